package dev.pocketglm.core;

import java.util.Map;
import java.util.concurrent.atomic.AtomicBoolean;

/** The one answer to a call, from whatever thread has it. What comes after the first is ignored. */
final class Reply {
    private final long id;
    private final Outbox outbox;
    private final AtomicBoolean isGiven = new AtomicBoolean();

    Reply(long id, Outbox outbox) {
        this.id = id;
        this.outbox = outbox;
    }

    void result(Map<String, Object> result) {
        if (isGiven.compareAndSet(false, true)) outbox.result(id, result);
    }

    void failure(Failure failure) {
        if (isGiven.compareAndSet(false, true)) outbox.error(id, failure);
    }
}
