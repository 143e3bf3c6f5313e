package dev.pocketglm.core;

/**
 * What the engine takes of the memory, in bytes. The formulas are those of native/executable/memory_plan.cpp and of
 * src/pocketglm/plan/native_memory.py; a test holds them against the latter, and against a running engine.
 */
final class MemorySizes {
    private static final long PAGE_POSITIONS = 64;
    private static final long VALUE_MULTIPLE = 16;
    private static final long PIECE_ROWS = 512;
    private static final long SLICE_ROWS = 256;
    private static final long HUGE_PAGE = 2 << 20;
    private static final long STREAM_BUFFERS = 2;
    /** Work memory of one thread at most. */
    private static final long SCRATCH = 1 << 20;
    /** The head's activations and a piece's hidden states. */
    private static final long OTHER_BUFFERS = 16 << 20;
    /** The process itself: its code's data, stacks, a manifest and requests as they are read. */
    private static final long PROCESS = 16 << 20;

    /** More than there will be; sums of such sizes fit a long. */
    private static final long MOST = 1L << 60;

    private final Manifest model;

    MemorySizes(Manifest model) {
        this.model = model;
    }

    /** All blocks and the head; the embedding's rows are read one by one. */
    long weights() {
        long sum = head();
        for (int block = 0; block < model.numBlocks; block++) sum += size(Manifest.blockFile(block));
        return sum;
    }

    long head() {
        return size(Manifest.HEAD_FILE);
    }

    /** Two of the largest block, which the others are read into in turn. */
    long streamBuffers() {
        long largest = 0;
        for (int block = 0; block < model.numBlocks; block++) {
            largest = Math.max(largest, size(Manifest.blockFile(block)));
        }
        return STREAM_BUFFERS * roundedUp(largest, HUGE_PAGE);
    }

    /** KV pages of one sequence, and one page of room. */
    long cache(long context, String kv) {
        boolean isInt8 = kv.equals("int8");
        long valueStride = roundedUp(model.headDim, VALUE_MULTIPLE);
        long tile = PAGE_POSITIONS * ((isInt8 ? 1 : 2) * (model.headDim + valueStride) + (isInt8 ? 8 : 0));
        long pages = roundedUp(context, PAGE_POSITIONS) / PAGE_POSITIONS + 1;
        // As a double first: the largest numbers of a manifest exceed 64 bits here, and only here.
        double bytes = (double) pages * tile * model.numBlocks * model.numKvHeads;
        return bytes > MOST ? MOST : pages * tile * model.numBlocks * model.numKvHeads;
    }

    /** What the largest pass needs beside weights and cache, as if weights were floats: the engine asks for less. */
    long work(long context, long threads) {
        long rows = model.hasPrefix ? context : Math.min(PIECE_ROWS, context);
        long heads = (long) model.numHeads * model.headDim;
        long qkv = (model.numHeads + 2L * model.numKvHeads) * model.headDim;
        long inputs = Math.max(Math.max(model.hiddenSize, model.intermediateSize), heads);
        long queries = rows > SLICE_ROWS ? heads : 0;
        long floats =
                rows * (queries + 2L * model.headDim)
                        + Math.min(SLICE_ROWS, rows) * (Math.max(qkv, inputs) + inputs);
        return 4 * floats + SCRATCH * threads;
    }

    /** The head's part of the engine's own rule for its limit, besides the head's weights. */
    long buffers() {
        return OTHER_BUFFERS + 4L * model.vocabSize;
    }

    /** What the process takes that its limit knows nothing of: a long context's hidden states among it. */
    long process(long context) {
        long rows = model.hasPrefix ? Math.max(0, context - PIECE_ROWS) : 0;
        return PROCESS + 4 * rows * model.hiddenSize;
    }

    /** Everything that is no weight. */
    long anonymous(long context, String kv, long threads) {
        return cache(context, kv) + work(context, threads) + buffers() + process(context);
    }

    private long size(String name) {
        return model.files.get(name).size; // the manifest has checked that it is listed
    }

    private static long roundedUp(long value, long step) {
        return (value + step - 1) / step * step;
    }
}
