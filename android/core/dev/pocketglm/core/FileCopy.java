package dev.pocketglm.core;

import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.security.MessageDigest;

/** One file of an import: what is there of it, and the rest of it. IOException is of the app's folder only. */
final class FileCopy {
    private static final int AT_ONCE = 1 << 18;

    private final File file;
    private final String name;
    private final Manifest.FileEntry wanted;
    private final Import owner;
    private final MessageDigest digest = Hashes.sha256();
    private final byte[] buffer = new byte[AT_ONCE];

    FileCopy(File file, String name, Manifest.FileEntry wanted, Import owner) {
        this.file = file;
        this.name = name;
        this.wanted = wanted;
        this.owner = owner;
    }

    /** Bytes that are there; of one that is too long, none can be used. */
    long length() throws IOException {
        if (file.length() > wanted.size) delete();
        return file.length();
    }

    boolean isWhole() throws IOException {
        return file.isFile() && length() == wanted.size;
    }

    void delete() throws IOException {
        Files.delete(file);
    }

    /** Whether the whole file has the hash that it should; it is deleted where not. */
    boolean isRight() throws IOException, Failure {
        digestWhatIsThere();
        if (isDigestRight()) return true;
        delete();
        return false;
    }

    /** Copies what is not there yet. Whether size and hash are right then. */
    boolean fill(Source.Entry entry) throws IOException, Failure {
        if (entry.size() >= 0 && entry.size() != wanted.size) return false;
        digestWhatIsThere();
        try (FileOutputStream output = new FileOutputStream(file, true)) {
            boolean isWhole = append(entry, output);
            output.getFD().sync();
            return isWhole && isDigestRight();
        }
    }

    private void digestWhatIsThere() throws IOException, Failure {
        digest.reset();
        long left = length();
        if (left == 0) return;
        try (FileInputStream stream = new FileInputStream(file)) {
            for (int count; (count = stream.read(buffer)) > 0; ) {
                digest.update(buffer, 0, count);
                owner.checkCancelled();
            }
        }
    }

    /** Whether the source's file has exactly the bytes that it should. */
    private boolean append(Source.Entry entry, FileOutputStream output) throws IOException, Failure {
        long left = wanted.size - file.length();
        try (Reading reading = new Reading(entry, name)) {
            reading.skip(wanted.size - left);
            while (left > 0) {
                int count = reading.read(buffer, (int) Math.min(left, buffer.length));
                if (count < 0) return false;
                output.write(buffer, 0, count);
                digest.update(buffer, 0, count);
                left -= count;
                owner.copied(name, count);
            }
            return reading.read(buffer, 1) < 0;
        }
    }

    private boolean isDigestRight() {
        return Hashes.hexadecimal(digest.digest()).equals(wanted.sha256);
    }

    /** The source's file, whose troubles are Failures `source` and not those of the app's folder. */
    private static final class Reading implements AutoCloseable {
        private final String name;
        private final InputStream stream;

        Reading(Source.Entry entry, String name) throws Failure {
            this.name = name;
            try {
                stream = entry.open();
            } catch (IOException problem) {
                throw Import.unreadable(problem.getMessage(), name);
            }
        }

        void skip(long count) throws Failure {
            try {
                Files.skip(stream, count);
            } catch (IOException problem) {
                throw Import.unreadable(problem.getMessage(), name);
            }
        }

        int read(byte[] bytes, int count) throws Failure {
            try {
                return stream.read(bytes, 0, count);
            } catch (IOException problem) {
                throw Import.unreadable(problem.getMessage(), name);
            }
        }

        @Override
        public void close() {
            try {
                stream.close();
            } catch (IOException unimportant) {
                // all that is wanted of it was read
            }
        }
    }
}
