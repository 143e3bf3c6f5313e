package android.provider;

import android.net.Uri;

/** A document's id is its path. */
public class DocumentsContract {
    public static String getTreeDocumentId(Uri tree) {
        return tree.toString().substring("content://one/".length());
    }

    public static Uri buildDocumentUriUsingTree(Uri tree, String id) {
        return Uri.parse("content://one/" + id);
    }

    public static Uri buildChildDocumentsUriUsingTree(Uri tree, String id) {
        return Uri.parse("content://in/" + id);
    }
}
