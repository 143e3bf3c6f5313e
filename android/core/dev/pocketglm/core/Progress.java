package dev.pocketglm.core;

/** import.progress events: at the start, at each file, and every 1/200 of the whole. Used by one thread. */
final class Progress {
    private static final int STEPS = 200;

    private final Outbox outbox;
    private Manifest manifest;
    private String file = "";
    private long bytes;
    private long told;

    Progress(Outbox outbox) {
        this.outbox = outbox;
    }

    void begin(Manifest started) {
        manifest = started;
        tell();
    }

    /** So many bytes more of a file are there. */
    void add(String name, long count) {
        bytes += count;
        boolean isNew = !name.equals(file) && count > 0;
        file = name;
        if (isNew || Math.abs(bytes - told) >= Math.max(1, manifest.bytes / STEPS)) tell();
    }

    long bytes() {
        return bytes;
    }

    private void tell() {
        told = bytes;
        outbox.event(
                "import.progress",
                Json.object("package", manifest.id, "bytes", bytes, "total", manifest.bytes, "file", file));
    }
}
