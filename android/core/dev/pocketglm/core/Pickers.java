package dev.pocketglm.core;

import java.util.concurrent.atomic.AtomicBoolean;

/** The system's picker, of which one is open at a time. */
final class Pickers {
    private final AtomicBoolean isOpen = new AtomicBoolean();

    void begin() throws Failure {
        if (!isOpen.compareAndSet(false, true)) throw new Failure("busy", "A picker is open already.");
    }

    void end() {
        isOpen.set(false);
    }
}
