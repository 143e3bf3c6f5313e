package dev.pocketglm.core;

import java.util.ArrayList;
import java.util.List;

/**
 * Texts on their way into a WebView, which takes scripts on one thread only: collected from any thread, and
 * handed over together, since one script for every token would keep that thread busy.
 */
public final class Scripts implements Page {
    /** Runs `task` soon, on the WebView's thread. */
    public interface Poster {
        void post(Runnable task);
    }

    private final Poster poster;
    private final Runnable task;
    private List<Object> waiting = new ArrayList<Object>();

    /** `task` should {@link #take} and run what it gets. */
    public Scripts(Poster poster, Runnable task) {
        this.poster = poster;
        this.task = task;
    }

    @Override
    public void receive(String json) {
        boolean isFirst;
        synchronized (this) {
            isFirst = waiting.isEmpty();
            waiting.add(json);
        }
        if (isFirst) poster.post(task);
    }

    /** The script that gives the page all that has come since the last call. A text that fails stops no other. */
    public String take() {
        List<Object> texts;
        synchronized (this) {
            texts = waiting;
            waiting = new ArrayList<Object>();
        }
        return Json.write(texts) + ".forEach(function(text){try{window.pocketglmReceive(text)}"
                + "catch(problem){console.error(problem)}})";
    }
}
