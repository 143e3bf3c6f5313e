package dev.pocketglm.core;

import java.io.Closeable;
import java.io.File;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * The app's side of docs/android-bridge.md: takes the page's calls, answers them, and tells what happens. One
 * lives as long as the app's process; the page may come and go.
 */
public final class Host implements Closeable {
    /** Android's ComponentCallbacks2: the app runs, and the system is about to end processes. */
    private static final int RUNNING_CRITICAL = 15;
    /** The app is not seen any more, which says nothing about memory. */
    private static final int UI_HIDDEN = 20;
    /** The app is not seen, and soon among those that are ended; levels above are sooner. */
    private static final int MODERATE = 60;

    private final Outbox outbox;
    private final Packages packages;
    private final Methods methods;
    private final ExecutorService calls;
    /** Of the page that is there now; false when another has taken its place. */
    private volatile AtomicBoolean isPageThere = new AtomicBoolean(true);

    public Host(Platform platform, Page page) {
        outbox = new Outbox(page);
        packages = new Packages(new File(platform.files(), "packages"));
        methods = new Methods(platform, packages, outbox);
        calls = Executors.newSingleThreadExecutor(new Named("calls"));
    }

    /**
     * Another page takes the place of the one before, or the same is loaded anew. What was asked before is not
     * answered any more, and an import that runs is cancelled: nobody waits for it, and it can be continued. A
     * loaded package stays in the engine until the page starts one.
     */
    public void pageOpened() {
        isPageThere.set(false);
        isPageThere = new AtomicBoolean(true);
        methods.pageOpened();
    }

    /** A text from the page. Returns at once, from any thread; nothing is thrown. */
    public void send(final String text) {
        final AtomicBoolean isCallerThere = isPageThere;
        try {
            calls.execute(new Runnable() {
                @Override
                public void run() {
                    take(text, isCallerThere);
                }
            });
        } catch (RejectedExecutionException closed) {
            // the app ends: nobody waits for an answer
        }
    }

    /** The system is short of memory; `level` is that of Android's onTrimMemory. */
    public void trimMemory(int level) {
        if (level == UI_HIDDEN) return;
        boolean isSevere = level == RUNNING_CRITICAL || level >= MODERATE;
        outbox.event("memory.low", Json.object("level", level, "severe", isSevere));
    }

    /**
     * The answer to a GET of /packages/ID/NAME, `path` being the address without scheme and host. Reads the
     * file: not for the thread that draws. Everything else that the page has is the app's.
     */
    public Resource open(String path) {
        return PackageFiles.open(packages, path);
    }

    /** Ends the engine and an import that runs; it goes on when it is started again. */
    @Override
    public void close() {
        calls.shutdown();
        methods.close();
    }

    private void take(String text, AtomicBoolean isCallerThere) {
        Call call;
        try {
            call = Call.read(text);
        } catch (Call.Unreadable problem) {
            if (isCallerThere.get()) outbox.error(problem.id, Failure.request(problem.getMessage()));
            return;
        }
        Reply reply = new Reply(call.id, outbox, isCallerThere);
        try {
            Map<String, Object> result = methods.perform(call, reply);
            if (result != null) reply.result(result);
        } catch (Failure failure) {
            reply.failure(failure);
        } catch (RuntimeException problem) {
            reply.failure(Failure.internal(problem));
        } catch (OutOfMemoryError problem) {
            reply.failure(Failure.internal(problem));
        }
    }
}
