package dev.pocketglm.core;

import java.util.Map;

/** How the engine is to run a package; sizes in bytes. See docs/android-bridge.md. */
final class Plan {
    final boolean fits;
    final int context;
    final String kv;
    final int threads;
    /** The limit given to the engine; null for none. */
    final Long memory;
    final long anonymous;
    final long weights;
    final long free;
    final boolean isStreamed;
    /** The least that must be free for this plan. */
    final long needed;

    Plan(boolean fits, int context, String kv, int threads, Long memory, long anonymous, long weights,
            long free, boolean isStreamed, long needed) {
        this.fits = fits;
        this.context = context;
        this.kv = kv;
        this.threads = threads;
        this.memory = memory;
        this.anonymous = anonymous;
        this.weights = weights;
        this.free = free;
        this.isStreamed = isStreamed;
        this.needed = needed;
    }

    Map<String, Object> toJson() {
        return Json.object(
                "fits", fits,
                "reason", fits ? null : "memory",
                "context", context,
                "kv", kv,
                "threads", threads,
                "memory", memory,
                "anonymous", anonymous,
                "weights", weights,
                "needed", needed,
                "free", free,
                "streamed", isStreamed);
    }

    Failure failure() {
        return new Failure("memory", "The model does not fit into the free memory.")
                .with("needed", needed)
                .with("free", free);
    }
}
