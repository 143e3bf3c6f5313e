package dev.pocketglm.core;

/** What the page asks of a plan; what is null is chosen. */
final class Wish {
    private static final long MOST_THREADS = 1024;

    final Long context;
    /** "float16" or "int8". */
    final String kv;
    final Long threads;
    /** Bytes that the engine may take for weights, cache and buffers. */
    final Long memory;

    Wish(Long context, String kv, Long threads, Long memory) {
        this.context = context;
        this.kv = kv;
        this.threads = threads;
        this.memory = memory;
    }

    static Wish of(Call call) throws Failure {
        return new Wish(
                call.optionalInteger("context", 1, 1L << 24),
                call.optionalChoice("kv", "float16", "int8"),
                call.optionalInteger("threads", 1, MOST_THREADS),
                call.optionalInteger("memory", 1, Long.MAX_VALUE));
    }
}
