package dev.pocketglm.core;

/** What the host knows of the phone at one moment. Sizes in bytes. */
public final class Device {
    /** Of the app, as "0.1.0". */
    public final String version;
    /** Android's API level. */
    public final int sdk;
    /** "en" or "zh". */
    public final String language;
    /** What the system says is available, page cache and all; on Android MemoryInfo.availMem. */
    public final long freeMemory;
    public final long totalMemory;
    /** Of the file system that holds {@link Platform#files}. */
    public final long freeStorage;
    public final int cores;
    /** See {@link Cores}. */
    public final int bigCores;

    public Device(String version, int sdk, String language, long freeMemory, long totalMemory,
            long freeStorage, int cores, int bigCores) {
        this.version = version;
        this.sdk = sdk;
        this.language = language;
        this.freeMemory = freeMemory;
        this.totalMemory = totalMemory;
        this.freeStorage = freeStorage;
        this.cores = cores;
        this.bigCores = bigCores;
    }
}
