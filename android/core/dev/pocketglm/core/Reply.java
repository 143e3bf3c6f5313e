package dev.pocketglm.core;

import java.util.Map;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * The one answer to a call, from whatever thread has it. What comes after the first is ignored, and what comes
 * when the page that called is gone: the next page's calls have the same ids.
 */
final class Reply {
    private final long id;
    private final Outbox outbox;
    private final AtomicBoolean isPageThere;
    private final AtomicBoolean isGiven = new AtomicBoolean();

    Reply(long id, Outbox outbox, AtomicBoolean isPageThere) {
        this.id = id;
        this.outbox = outbox;
        this.isPageThere = isPageThere;
    }

    /** Whether anybody would hear it. */
    boolean isAwaited() {
        return isPageThere.get() && !isGiven.get();
    }

    void result(Map<String, Object> result) {
        if (isPageThere.get() && isGiven.compareAndSet(false, true)) outbox.result(id, result);
    }

    void failure(Failure failure) {
        if (isPageThere.get() && isGiven.compareAndSet(false, true)) outbox.error(id, failure);
    }
}
