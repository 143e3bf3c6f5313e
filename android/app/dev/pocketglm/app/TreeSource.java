package dev.pocketglm.app;

import android.content.Context;
import android.database.Cursor;
import android.net.Uri;
import android.provider.DocumentsContract;
import android.provider.DocumentsContract.Document;
import dev.pocketglm.core.Source;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayDeque;
import java.util.Deque;

/** A folder that the user has chosen, with all that is in it. */
final class TreeSource implements Source {
    /** Packages have one level; a whole card chosen by mistake should not be walked to its end. */
    private static final int MOST_LEVELS = 4;

    private static final String[] COLUMNS = {
        Document.COLUMN_DOCUMENT_ID, Document.COLUMN_DISPLAY_NAME, Document.COLUMN_MIME_TYPE, Document.COLUMN_SIZE
    };

    private final Context context;
    private final Uri tree;
    private final String name;

    TreeSource(Context context, Uri tree) {
        this.context = context;
        this.tree = tree;
        String root = DocumentsContract.getTreeDocumentId(tree);
        this.name = Documents.nameOf(context, DocumentsContract.buildDocumentUriUsingTree(tree, root));
    }

    @Override
    public String name() {
        return name;
    }

    @Override
    public Walk walk() throws IOException {
        TreeWalk walk = new TreeWalk();
        walk.list("", DocumentsContract.getTreeDocumentId(tree), 1);
        return walk;
    }

    /** Lists a folder when it comes to it. */
    private final class TreeWalk implements Walk {
        private final Deque<Found> waiting = new ArrayDeque<Found>();

        @Override
        public Entry next() throws IOException {
            while (!waiting.isEmpty()) {
                Found found = waiting.poll();
                if (!found.isFolder) return found;
                if (found.level < MOST_LEVELS) list(found.path + "/", found.id, found.level + 1);
            }
            return null;
        }

        @Override
        public void close() {}

        void list(String before, String folder, int level) throws IOException {
            Uri children = DocumentsContract.buildChildDocumentsUriUsingTree(tree, folder);
            try (Cursor row = context.getContentResolver().query(children, COLUMNS, null, null, null)) {
                if (row == null) throw new IOException("the folder cannot be listed: " + before);
                while (row.moveToNext()) waiting.add(new Found(row, before, level));
            } catch (RuntimeException refused) {
                throw new IOException(refused.toString());
            }
        }
    }

    private final class Found implements Entry {
        final String id;
        final boolean isFolder;
        final int level;
        private final String path;
        private final long size;

        Found(Cursor row, String before, int level) {
            id = row.getString(0);
            path = before + row.getString(1);
            isFolder = Document.MIME_TYPE_DIR.equals(row.getString(2));
            size = row.isNull(3) ? -1 : row.getLong(3);
            this.level = level;
        }

        @Override
        public String path() {
            return path;
        }

        @Override
        public long size() {
            return size;
        }

        @Override
        public InputStream open() throws IOException {
            return Documents.open(context, DocumentsContract.buildDocumentUriUsingTree(tree, id));
        }
    }
}
