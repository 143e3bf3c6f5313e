package dev.pocketglm.app;

import android.app.Activity;
import android.content.ActivityNotFoundException;
import android.content.Intent;
import android.net.Uri;
import android.os.Handler;
import android.util.SparseArray;

/**
 * Opens the system's pickers and passes on what was chosen. A picker may be open while the window behind it
 * is made anew, so this lives as long as the process. All but `open` is called on the main thread.
 */
final class Pickers {
    /** How a picker ended: one call, on the main thread. */
    interface Chosen {
        void chosen(Uri document);

        void cancelled();

        void failed(String problem);
    }

    private final Handler main;
    private final SparseArray<Chosen> waiting = new SparseArray<Chosen>();
    private Activity window;
    private int last;

    Pickers(Handler main) {
        this.main = main;
    }

    /** Any file: many providers do not know the types of archives and of JSON. */
    static Intent anyFile() {
        return new Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("*/*");
    }

    void attach(Activity window) {
        this.window = window;
    }

    /** `isLast`: the window goes for good, and what its pickers would say does not come any more. */
    void detach(Activity window, boolean isLast) {
        if (this.window != window) return;
        this.window = null;
        while (isLast && waiting.size() > 0) result(waiting.keyAt(0), null);
    }

    void open(final Intent intent, final Chosen chosen) {
        main.post(new Runnable() {
            @Override
            public void run() {
                start(intent, chosen);
            }
        });
    }

    /** `document` is null where the user went back. */
    void result(int request, Uri document) {
        Chosen chosen = waiting.get(request);
        waiting.remove(request);
        if (chosen == null) return; // of a process before this one
        if (document == null) chosen.cancelled();
        else chosen.chosen(document);
    }

    private void start(Intent intent, Chosen chosen) {
        if (window == null) {
            chosen.failed("the app has no window");
            return;
        }
        try {
            window.startActivityForResult(intent, ++last);
            waiting.put(last, chosen);
        } catch (ActivityNotFoundException missing) {
            chosen.failed("the phone has no file picker");
        }
    }
}
