package phone;

import android.database.Cursor;
import java.io.File;
import java.util.List;

/** Files as a provider of documents lists them. */
public final class FileRows implements Cursor {
    private final List<File> files;
    private final String[] columns;
    private int row = -1;

    public FileRows(List<File> files, String[] columns) {
        this.files = files;
        this.columns = columns;
    }

    @Override
    public boolean moveToFirst() {
        row = 0;
        return row < files.size();
    }

    @Override
    public boolean moveToNext() {
        return ++row < files.size();
    }

    @Override
    public boolean isNull(int column) {
        return getString(column) == null;
    }

    @Override
    public String getString(int column) {
        File file = files.get(row);
        switch (columns[column]) {
            case "document_id":
                return file.getPath();
            case "_display_name":
                return file.getName();
            case "mime_type":
                return file.isDirectory() ? "vnd.android.document/directory" : "application/octet-stream";
            case "_size":
                return file.isDirectory() ? null : String.valueOf(file.length());
            default:
                throw new IllegalArgumentException(columns[column]);
        }
    }

    @Override
    public long getLong(int column) {
        return Long.parseLong(getString(column));
    }

    @Override
    public void close() {}
}
