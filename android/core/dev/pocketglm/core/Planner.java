package dev.pocketglm.core;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;

/**
 * How a package can run in the memory that is free. Enters: manifest, device, and what the page asks for.
 *
 * Weights are mapped files. The system may drop their pages, but every token needs all of them, so that a model
 * whose weights do not stay in memory reads them again and again, and presses out everything else meanwhile.
 * So weights must fit beside the rest, or are read block by block into two buffers, within a limit.
 */
final class Planner {
    /** Contexts below are not worth a shorter answer: rather are blocks read from storage. */
    private static final long LEAST_CONTEXT = 512;

    /** A longer one is not chosen where it would take memory from the blocks. */
    private static final long STREAMED_CONTEXT = 2048;

    /** Android ends processes before all is taken, the earlier the more memory there is. */
    private static final long KEPT = 256 << 20;

    private static final int KEPT_PART = 16;

    private final MemorySizes sizes;
    private final Wish wish;
    private final long threads;
    private final long most;
    private final long free;

    private Planner(Manifest model, Device device, long given, Wish wish) {
        this.sizes = new MemorySizes(model);
        this.wish = wish;
        threads = wish.threads != null ? wish.threads : device.bigCores;
        most = wish.context != null ? Math.min(wish.context, model.maxContext) : model.maxContext;
        free = Math.max(0, device.freeMemory + given - kept(device));
    }

    /** `given`: bytes that are in use now, but will be free. */
    static Plan plan(Manifest model, Device device, long given, Wish wish) {
        return new Planner(model, device, given, wish).plan();
    }

    private static long kept(Device device) {
        return KEPT + device.totalMemory / KEPT_PART;
    }

    private Plan plan() {
        Plan last = null;
        for (long context : contexts(most)) {
            for (String kv : kvTypes()) {
                last = resident(context, kv);
                if (last.fits) return last;
            }
        }
        // A smaller cache leaves more blocks in memory, and each token waits for the others.
        String smallest = kvTypes().get(kvTypes().size() - 1);
        for (long context : contexts(wish.context != null ? most : Math.min(most, STREAMED_CONTEXT))) {
            last = streamed(context, smallest);
            if (last.fits) return last;
        }
        return last;
    }

    private List<String> kvTypes() {
        return wish.kv != null ? Collections.singletonList(wish.kv) : Arrays.asList("float16", "int8");
    }

    /** The longest, then powers of two; one alone where the page asks for it. */
    private List<Long> contexts(long longest) {
        List<Long> found = new ArrayList<Long>();
        found.add(longest);
        if (wish.context != null) return found;
        for (long context = Long.highestOneBit(longest); context >= LEAST_CONTEXT; context /= 2) {
            if (context < longest) found.add(context);
        }
        return found;
    }

    /** With all weights in memory. A limit that the page asks for must hold them too. */
    private Plan resident(long context, String kv) {
        long anonymous = sizes.anonymous(context, kv, threads), needed = anonymous + sizes.weights();
        boolean fits = needed <= free;
        if (wish.memory != null) fits = fits && needed - sizes.process(context) <= wish.memory;
        return made(fits, context, kv, wish.memory, anonymous, false, needed);
    }

    /** With as many blocks as the limit has room for. */
    private Plan streamed(long context, String kv) {
        long anonymous = sizes.anonymous(context, kv, threads) + sizes.streamBuffers();
        long process = sizes.process(context), needed = anonymous + sizes.head();
        long limit = free - process;
        if (wish.memory != null) limit = Math.min(limit, wish.memory);
        return made(needed - process <= limit, context, kv, Math.max(1, limit), anonymous, true, needed);
    }

    private Plan made(boolean fits, long context, String kv, Long memory, long anonymous, boolean isStreamed,
            long needed) {
        return new Plan(fits, (int) context, kv, (int) threads, memory, anonymous, sizes.weights(), free,
                isStreamed, needed);
    }
}
