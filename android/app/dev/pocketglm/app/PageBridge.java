package dev.pocketglm.app;

import android.webkit.JavascriptInterface;
import dev.pocketglm.core.Host;

/** `window.PocketGLMHost` in the page: docs/android-bridge.md. */
final class PageBridge {
    private final Host host;

    PageBridge(Host host) {
        this.host = host;
    }

    /** Called on a thread of the WebView's. */
    @JavascriptInterface
    public void send(String text) {
        if (text != null) host.send(text);
    }
}
