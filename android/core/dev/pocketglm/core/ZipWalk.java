package dev.pocketglm.core;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.PushbackInputStream;

/**
 * The files of a ZIP archive by the headers before them (PKWARE's APPNOTE 6.3, 4.3.7), with ZIP64 sizes:
 * stored as `pocketglm export` does it, or deflated. Checksums are left to the package's own hashes.
 */
final class ZipWalk implements Source.Walk {
    private static final int FILE = 0x04034b50, CENTRAL = 0x02014b50, END = 0x06054b50, END_64 = 0x06064b50;
    private static final int DESCRIPTOR = 0x08074b50;
    private static final int STORED = 0, DEFLATED = 8;
    private static final int ENCRYPTED = 1, SIZES_FOLLOW = 8;
    private static final int ZIP64 = 1;
    private static final long IN_ZIP64 = 0xFFFFFFFFL;

    private final PushbackInputStream stream;
    private ZipEntryStream current;
    private Header header;

    ZipWalk(InputStream stream) {
        this.stream = new PushbackInputStream(stream, ZipEntryStream.BUFFER);
    }

    @Override
    public Source.Entry next() throws IOException {
        if (header != null) finish();
        while (true) {
            int signature = integer();
            if (signature == CENTRAL || signature == END || signature == END_64) return null;
            if (signature != FILE) throw new IOException("it is no ZIP archive, or damaged");
            header = new Header();
            if (!header.path.endsWith("/")) return header;
            finish();
        }
    }

    @Override
    public void close() throws IOException {
        stream.close();
    }

    /** Goes to the end of the file here. */
    private void finish() throws IOException {
        Header ended = header;
        header = null;
        if (current == null && !ended.sizesFollow()) {
            Files.skip(stream, ended.packed);
            return;
        }
        if (current == null) current = ended.stream();
        long size = current.drain();
        current = null;
        if (ended.sizesFollow()) skipDescriptor(ended.hasZip64 || size > IN_ZIP64);
    }

    private void skipDescriptor(boolean isLong) throws IOException {
        if (integer() == DESCRIPTOR) integer(); // else that was the checksum: the signature may be left out
        Files.skip(stream, isLong ? 16 : 8);
    }

    private int octet() throws IOException {
        int read = stream.read();
        if (read < 0) throw new EOFException("the archive ends early");
        return read;
    }

    private int half() throws IOException {
        return octet() | octet() << 8;
    }

    private int integer() throws IOException {
        return half() | half() << 16;
    }

    private long unsigned() throws IOException {
        return integer() & 0xFFFFFFFFL;
    }

    private long longSize() throws IOException {
        long low = unsigned(), value = low | unsigned() << 32;
        if (value < 0) throw new IOException("the archive is damaged");
        return value;
    }

    private byte[] bytes(int count) throws IOException {
        byte[] bytes = new byte[count];
        for (int done = 0; done < count; ) {
            int read = stream.read(bytes, done, count - done);
            if (read < 0) throw new EOFException("the archive ends early");
            done += read;
        }
        return bytes;
    }

    /** What stands before a file. */
    private final class Header implements Source.Entry {
        private final int flags;
        private final int method;
        private final String path;
        private boolean hasZip64;
        private long packed;
        private long unpacked;

        Header() throws IOException {
            half(); // the version needed says less than what is looked at below
            flags = half();
            method = half();
            Files.skip(stream, 8); // time, date, checksum
            packed = unsigned();
            unpacked = unsigned();
            int nameLength = half(), extraLength = half();
            path = new String(bytes(nameLength), Json.UTF_8);
            readExtra(extraLength);
            check();
        }

        private void readExtra(int length) throws IOException {
            int left = length;
            while (left >= 4) {
                int kind = half(), size = half();
                left -= 4 + size;
                if (left < 0) throw new IOException("the archive is damaged");
                if (kind == ZIP64) size -= readZip64(size);
                Files.skip(stream, size);
            }
            Files.skip(stream, left);
        }

        /** Takes the sizes that no 32 bits hold; returns the bytes read. */
        private int readZip64(int size) throws IOException {
            hasZip64 = true;
            int read = 0;
            if (unpacked == IN_ZIP64 && size >= read + 8) {
                unpacked = longSize();
                read += 8;
            }
            if (packed == IN_ZIP64 && size >= read + 8) {
                packed = longSize();
                read += 8;
            }
            return read;
        }

        private void check() throws IOException {
            if ((flags & ENCRYPTED) != 0) throw new IOException("the archive has a password");
            if (method != STORED && method != DEFLATED) {
                throw new IOException("the archive is packed by a method that is not known: " + method);
            }
            if (sizesFollow() && method == STORED) {
                throw new IOException("the archive does not say how long its files are; make it again");
            }
            if (method == STORED && packed != unpacked) throw new IOException("the archive is damaged");
        }

        boolean sizesFollow() {
            return (flags & SIZES_FOLLOW) != 0;
        }

        ZipEntryStream stream() {
            return method == STORED
                    ? ZipEntryStream.stored(stream, packed)
                    : ZipEntryStream.deflated(stream);
        }

        @Override
        public String path() {
            return path;
        }

        @Override
        public long size() {
            return sizesFollow() ? -1 : unpacked;
        }

        @Override
        public InputStream open() throws IOException {
            if (header != this || current != null) throw new IOException("a file is opened once, in its turn");
            current = stream();
            return current;
        }
    }
}
