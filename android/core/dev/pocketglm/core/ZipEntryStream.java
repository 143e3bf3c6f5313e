package dev.pocketglm.core;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.PushbackInputStream;
import java.util.zip.DataFormatException;
import java.util.zip.Inflater;

/** The bytes of one file in an archive. Leaves the archive's stream right behind them when drained. */
abstract class ZipEntryStream extends InputStream {
    static final int BUFFER = 1 << 16;

    /** Reads what is left. Returns the file's bytes, unpacked. */
    abstract long drain() throws IOException;

    @Override
    public int read() throws IOException {
        byte[] one = new byte[1];
        return read(one, 0, 1) < 0 ? -1 : one[0] & 0xFF;
    }

    /** Closing leaves the archive open. */
    @Override
    public void close() {}

    static ZipEntryStream stored(final InputStream archive, final long size) {
        return new ZipEntryStream() {
            private long left = size;

            @Override
            public int read(byte[] bytes, int offset, int count) throws IOException {
                if (left == 0) return -1;
                int read = archive.read(bytes, offset, (int) Math.min(count, left));
                if (read < 0) throw new EOFException("the archive ends early");
                left -= read;
                return read;
            }

            @Override
            public long skip(long count) throws IOException {
                long skipped = archive.skip(Math.min(Math.max(count, 0), left));
                left -= skipped;
                return skipped;
            }

            @Override
            long drain() throws IOException {
                Files.skip(archive, left);
                left = 0;
                return size;
            }
        };
    }

    static ZipEntryStream deflated(PushbackInputStream archive) {
        return new Deflated(archive);
    }

    private static final class Deflated extends ZipEntryStream {
        private final PushbackInputStream archive;
        private final Inflater inflater = new Inflater(true);
        private final byte[] buffer = new byte[BUFFER];
        private int filled;
        private long unpacked;
        private boolean hasEnded;

        Deflated(PushbackInputStream archive) {
            this.archive = archive;
        }

        @Override
        public int read(byte[] bytes, int offset, int count) throws IOException {
            if (count == 0) return 0;
            while (!hasEnded) {
                int made = inflate(bytes, offset, count);
                if (made > 0) {
                    unpacked += made;
                    return made;
                }
                if (inflater.finished()) end();
                else if (inflater.needsInput()) fill();
            }
            return -1;
        }

        private int inflate(byte[] bytes, int offset, int count) throws IOException {
            try {
                return inflater.inflate(bytes, offset, count);
            } catch (DataFormatException problem) {
                throw new IOException("the archive is damaged: " + problem.getMessage());
            }
        }

        private void fill() throws IOException {
            filled = archive.read(buffer);
            if (filled < 0) throw new EOFException("the archive ends early");
            inflater.setInput(buffer, 0, filled);
        }

        /** Gives back what was read of the archive beyond this file. */
        private void end() throws IOException {
            int left = inflater.getRemaining();
            archive.unread(buffer, filled - left, left);
            inflater.end();
            hasEnded = true;
        }

        @Override
        long drain() throws IOException {
            byte[] unwanted = new byte[BUFFER];
            while (read(unwanted, 0, unwanted.length) >= 0) continue;
            return unpacked;
        }
    }
}
