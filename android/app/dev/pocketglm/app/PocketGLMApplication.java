package dev.pocketglm.app;

import android.app.Application;
import android.os.Handler;
import android.os.Looper;
import android.webkit.WebView;
import dev.pocketglm.core.Host;
import dev.pocketglm.core.Scripts;
import dev.pocketglm.core.Site;
import java.io.IOException;
import java.io.InputStream;

/** What lives as long as the process: the host with its engine. Windows come and go. */
public final class PocketGLMApplication extends Application implements Scripts.Poster, Runnable, Site.Assets {
    /** The screen stays on for so long after the last sign of life of an answer or an import. */
    private static final long AWAKE_MS = 20000;

    private final Handler main = new Handler(Looper.getMainLooper());
    private final Scripts scripts = new Scripts(this, this);
    private final Runnable sleep = new Runnable() {
        @Override
        public void run() {
            if (page != null) page.setKeepScreenOn(false);
        }
    };
    private Pickers pickers;
    private Host host;
    private Site site;
    /** Used on the main thread only, like all views; null while there is no window. */
    private WebView page;

    @Override
    public void onCreate() {
        super.onCreate();
        pickers = new Pickers(main);
        host = new Host(new AndroidPlatform(this, pickers), scripts);
        site = new Site(this, host);
    }

    @Override
    public void onTrimMemory(int level) {
        super.onTrimMemory(level);
        host.trimMemory(level);
    }

    /** All that Android 14 and newer still tell an app that is in front. */
    @Override
    public void onLowMemory() {
        super.onLowMemory();
        host.trimMemory(TRIM_MEMORY_COMPLETE);
    }

    Host host() {
        return host;
    }

    Site site() {
        return site;
    }

    Pickers pickers() {
        return pickers;
    }

    /** The window's page: what the host says goes there. Null: to nobody. */
    void show(WebView page) {
        this.page = page;
    }

    WebView page() {
        return page;
    }

    @Override
    public void post(Runnable task) {
        main.post(task);
    }

    /** Gives the page what the host has said. */
    @Override
    public void run() {
        String script = scripts.take();
        if (page == null) return;
        page.evaluateJavascript(script, null);
        page.setKeepScreenOn(true);
        main.removeCallbacks(sleep);
        main.postDelayed(sleep, AWAKE_MS);
    }

    @Override
    public InputStream open(String name) throws IOException {
        return getAssets().open("page/" + name);
    }
}
