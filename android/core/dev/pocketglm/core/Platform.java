package dev.pocketglm.core;

import java.io.File;
import java.io.IOException;
import java.util.List;

/** What the host needs of the system around it: Android in the app, a folder in the tests. Any thread may call. */
public interface Platform {
    /** Read anew at each call: free memory changes. */
    Device device();

    /** The app's own folder for files; packages get a folder in it. */
    File files();

    /** The command that starts the engine: on the phone the path of the executable alone. */
    List<String> engineCommand();

    /** Opens the system's picker for an archive. Returns at once. */
    void pickZip(Picked picked);

    /** Opens the system's picker for a folder. Returns at once. */
    void pickFolder(Picked picked);

    /** Opens the system's picker for a new file and writes `text` to it as UTF-8. Returns at once. */
    void saveFile(String name, String text, Saved saved);

    void copyToClipboard(String text) throws IOException;

    /** How a picker ended: exactly one call, from any thread. */
    interface Picked {
        void source(Source source);

        /** The user went back. */
        void cancelled();

        /** What was chosen cannot be opened, or there is no picker. */
        void failed(String problem);
    }

    /** How saving ended: exactly one call, from any thread. */
    interface Saved {
        void saved();

        void cancelled();

        void failed(String problem);
    }
}
