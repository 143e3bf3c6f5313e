package android.content;

import android.database.Cursor;
import android.net.Uri;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileNotFoundException;
import java.io.FileOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import phone.FileRows;

/**
 * Documents are files: content://one/PATH is a file or folder, content://in/PATH are the files in a folder.
 * Names that begin with "bad" are of a provider that refuses, "no" of one that has nothing to give.
 */
public class ContentResolver {
    public final Cursor query(Uri document, String[] columns, String where, String[] values, String order) {
        File file = fileOf(document);
        if (file.getName().startsWith("no")) return null;
        List<File> rows = Collections.singletonList(file);
        if (document.toString().startsWith("content://in/")) {
            File[] found = file.listFiles();
            Arrays.sort(found);
            rows = Arrays.asList(found);
        }
        return new FileRows(rows, columns);
    }

    public final InputStream openInputStream(Uri document) throws FileNotFoundException {
        File file = fileOf(document);
        return file.getName().startsWith("no") ? null : new FileInputStream(file);
    }

    public final OutputStream openOutputStream(Uri document) throws FileNotFoundException {
        File file = fileOf(document);
        return file.getName().startsWith("no") ? null : new FileOutputStream(file);
    }

    private static File fileOf(Uri document) {
        File file = new File(document.toString().replaceFirst("content://(one|in)/", ""));
        if (file.getName().startsWith("bad")) throw new SecurityException("the provider refuses");
        return file;
    }
}
