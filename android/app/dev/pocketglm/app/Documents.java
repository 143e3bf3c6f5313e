package dev.pocketglm.app;

import android.content.Context;
import android.database.Cursor;
import android.net.Uri;
import android.provider.OpenableColumns;
import java.io.IOException;
import java.io.InputStream;

/** Documents of other apps, as the system's pickers give them. */
final class Documents {
    private Documents() {}

    /** The name that the user sees; "package" where the provider has none. */
    static String nameOf(Context context, Uri document) {
        String[] columns = {OpenableColumns.DISPLAY_NAME};
        try (Cursor found = context.getContentResolver().query(document, columns, null, null, null)) {
            String name = found != null && found.moveToFirst() ? found.getString(0) : null;
            return name != null ? name : "package";
        }
    }

    /** Fails with IOException alone: a provider may refuse with exceptions of its own. */
    static InputStream open(Context context, Uri document) throws IOException {
        try {
            InputStream stream = context.getContentResolver().openInputStream(document);
            if (stream == null) throw new IOException("the provider gave no stream");
            return stream;
        } catch (RuntimeException refused) {
            throw new IOException(refused.toString());
        }
    }
}
