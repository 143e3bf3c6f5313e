package dev.pocketglm.core;

/** The page in the WebView, as the host sees it. */
public interface Page {
    /**
     * Gives the page one JSON text: an answer or an event (docs/android-bridge.md). Called from the host's
     * threads, one call at a time and in order; must not wait for the page.
     */
    void receive(String json);
}
