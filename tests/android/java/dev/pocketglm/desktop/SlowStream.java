package dev.pocketglm.desktop;

import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InterruptedIOException;

/** A stream as from a slow card, so that something can happen while it is read. */
final class SlowStream extends FilterInputStream {
    private static final int AT_ONCE = 1 << 12;

    private final long bytesPerSecond;

    SlowStream(InputStream stream, long bytesPerSecond) {
        super(stream);
        this.bytesPerSecond = bytesPerSecond;
    }

    @Override
    public int read(byte[] bytes, int offset, int count) throws IOException {
        int read = super.read(bytes, offset, Math.min(count, AT_ONCE));
        try {
            if (read > 0) Thread.sleep(Math.max(1, read * 1000L / bytesPerSecond));
        } catch (InterruptedException problem) {
            throw new InterruptedIOException();
        }
        return read;
    }
}
