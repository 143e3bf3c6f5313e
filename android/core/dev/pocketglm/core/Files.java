package dev.pocketglm.core;

import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;

/** Small files as a whole, and folders. What is written is there after a power cut, or the old state is. */
final class Files {
    private Files() {}

    /** IOException where the stream has more than `most` bytes. */
    static byte[] read(InputStream stream, int most) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        byte[] buffer = new byte[1 << 16];
        for (int count; (count = stream.read(buffer)) >= 0; ) {
            if (bytes.size() + count > most) throw new IOException("larger than " + most + " bytes");
            bytes.write(buffer, 0, count);
        }
        return bytes.toByteArray();
    }

    static byte[] read(File file, int most) throws IOException {
        try (FileInputStream stream = new FileInputStream(file)) {
            return read(stream, most);
        }
    }

    static void write(File file, byte[] bytes) throws IOException {
        File written = new File(file.getPath() + ".new");
        try (FileOutputStream stream = new FileOutputStream(written)) {
            stream.write(bytes);
            stream.getFD().sync();
        }
        rename(written, file);
    }

    static void rename(File from, File to) throws IOException {
        if (!from.renameTo(to)) throw new IOException(from.getName() + " cannot be renamed to " + to.getName());
    }

    static void makeFolder(File folder) throws IOException {
        if (!folder.isDirectory() && !folder.mkdirs()) throw new IOException("cannot make " + folder.getName());
    }

    /** With all that is in it; IOException where something is left. */
    static void delete(File file) throws IOException {
        File[] inside = file.listFiles();
        if (inside != null) for (File one : inside) delete(one);
        if (!file.delete() && file.exists()) throw new IOException("cannot delete " + file.getName());
    }

    /** Passes over `count` bytes: by a jump where the stream can, else by reading. */
    static void skip(InputStream stream, long count) throws IOException {
        long left = count;
        try {
            // One byte less, which is read: a file's stream also jumps beyond its end.
            for (long skipped; left > 1 && (skipped = stream.skip(left - 1)) > 0; ) left -= skipped;
        } catch (IOException cannotJump) {
            // a pipe, say: nothing was passed over
        }
        byte[] buffer = new byte[(int) Math.min(left, 1 << 16)];
        while (left > 0) {
            int read = stream.read(buffer, 0, (int) Math.min(left, buffer.length));
            if (read < 0) throw new EOFException("it ends early");
            left -= read;
        }
    }
}
