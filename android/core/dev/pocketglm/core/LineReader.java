package dev.pocketglm.core;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;

/** Lines of UTF-8 out of a stream. Lines that are too long are passed over, so that memory stays bounded. */
final class LineReader {
    private final InputStream stream;
    private final int most;
    private final byte[] buffer = new byte[1 << 14];
    private int at;
    private int end;

    LineReader(InputStream stream, int most) {
        this.stream = stream;
        this.most = most;
    }

    /** Without its line feed; null at the end. What follows the last line feed is no line. */
    String next() throws IOException {
        ByteArrayOutputStream line = new ByteArrayOutputStream();
        boolean isTooLong = false;
        while (true) {
            if (at == end && !fill()) return null;
            int feed = at;
            while (feed < end && buffer[feed] != '\n') feed++;
            isTooLong = isTooLong || line.size() + feed - at > most;
            if (!isTooLong) line.write(buffer, at, feed - at);
            boolean isWhole = feed < end;
            at = isWhole ? feed + 1 : feed;
            if (!isWhole) continue;
            if (!isTooLong) return new String(line.toByteArray(), Json.UTF_8);
            line.reset();
            isTooLong = false;
        }
    }

    private boolean fill() throws IOException {
        at = 0;
        end = Math.max(0, stream.read(buffer));
        return end > 0;
    }
}
