package dev.pocketglm.core;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/**
 * The engine as a child process. Enters: lines for its standard input. Leaves, to a listener: its lines, and its
 * end. Three threads keep its three pipes moving, so that neither side ever waits for the other for good.
 */
final class Engine {
    /** Called by one thread: lines in their order, then the end, once. */
    interface Listener {
        void line(String line);

        void ended(int code);
    }

    /** The longest event is far shorter; what is longer is no event. */
    private static final int MOST_LINE = 1 << 20;

    /** Waiting for the engine to read; it reads at once while it lives. */
    private static final int MOST_WAITING = 32 << 20;

    private static final int MOST_ERRORS = 1 << 12;

    /** For an engine that was asked to end. A long pass over the model is not left before it is through. */
    private static final long GRACE_MS = 1500;

    private static final long END_OF_ERRORS_MS = 500;

    private final Process process;
    private final Listener listener;
    private final CountDownLatch ended = new CountDownLatch(1);
    private final Deque<byte[]> waiting = new ArrayDeque<byte[]>();
    private final ByteArrayOutputStream errors = new ByteArrayOutputStream();
    private Thread drain;
    private int waitingBytes;
    private boolean isStopping;

    /** Starts the process; IOException where that cannot be. */
    Engine(List<String> command, File folder, Listener listener) throws IOException {
        this.listener = listener;
        process = new ProcessBuilder(command).directory(folder).start();
    }

    /** From now on the pipes move, and the listener hears. */
    void begin() {
        drain = Named.start("engine-errors", new Runnable() {
            @Override
            public void run() {
                drainErrors();
            }
        });
        Named.start("engine-input", new Runnable() {
            @Override
            public void run() {
                writeLines();
            }
        });
        Named.start("engine-output", new Runnable() {
            @Override
            public void run() {
                readLines();
            }
        });
    }

    /** Returns at once. False where the engine does not take what it was sent before. */
    synchronized boolean send(String line) {
        byte[] bytes = (line + "\n").getBytes(Json.UTF_8);
        if (isStopping || waitingBytes + bytes.length > MOST_WAITING) return false;
        waiting.add(bytes);
        waitingBytes += bytes.length;
        notifyAll();
        return true;
    }

    /** Asks the engine to end; kills it if it does not. Returns at once. */
    void stop() {
        synchronized (this) {
            if (isStopping) return;
            isStopping = true;
            waiting.clear();
            notifyAll();
        }
        Named.start("engine-stop", new Runnable() {
            @Override
            public void run() {
                if (!waitForEnd(GRACE_MS)) destroy();
            }
        });
    }

    /** Ends it without asking. Returns at once. */
    void kill() {
        synchronized (this) {
            isStopping = true;
            notifyAll();
        }
        destroy();
    }

    /** In a thread of its own: it closes the pipes too, and waits for who is writing to them. */
    private void destroy() {
        Named.start("engine-kill", new Runnable() {
            @Override
            public void run() {
                process.destroy();
            }
        });
    }

    /** Whether it was asked to end. */
    synchronized boolean isStopping() {
        return isStopping;
    }

    /** Whether it has ended within that time. */
    boolean waitForEnd(long milliseconds) {
        try {
            return ended.await(milliseconds, TimeUnit.MILLISECONDS);
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
            return false;
        }
    }

    /** What it wrote to standard error, the beginning of it: why it did not start. */
    synchronized String errors() {
        return new String(errors.toByteArray(), Json.UTF_8).trim();
    }

    private void writeLines() {
        try (OutputStream input = process.getOutputStream()) {
            for (byte[] line; (line = nextLine()) != null; ) {
                input.write(line);
                input.flush();
            }
            input.write("{\"command\":\"quit\"}\n".getBytes(Json.UTF_8));
        } catch (IOException ended) {
            // the reading thread notices too
        }
    }

    /** Waits for a line; null where the engine is to end. */
    private synchronized byte[] nextLine() {
        while (waiting.isEmpty() && !isStopping && ended.getCount() > 0) {
            try {
                wait();
            } catch (InterruptedException stopped) {
                return null;
            }
        }
        byte[] line = waiting.poll();
        if (line != null) waitingBytes -= line.length;
        return line;
    }

    private void readLines() {
        try (InputStream output = process.getInputStream()) {
            LineReader reader = new LineReader(output, MOST_LINE);
            for (String line; (line = reader.next()) != null; ) listener.line(line);
        } catch (IOException closed) {
            // by kill
        }
        int code = exitCode();
        waitForErrors();
        ended.countDown();
        synchronized (this) {
            notifyAll();
        }
        listener.ended(code);
    }

    private int exitCode() {
        // It has closed its output: it has ended, or is no engine.
        while (true) {
            try {
                return process.waitFor();
            } catch (InterruptedException ignored) {
                destroy();
            }
        }
    }

    /** What it said last is complete; a child of its own may keep the pipe open for longer. */
    private void waitForErrors() {
        try {
            drain.join(END_OF_ERRORS_MS);
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
    }

    private void drainErrors() {
        byte[] buffer = new byte[1 << 10];
        try (InputStream stream = process.getErrorStream()) {
            for (int count; (count = stream.read(buffer)) >= 0; ) keepErrors(buffer, count);
        } catch (IOException closed) {
            // by kill
        }
    }

    private synchronized void keepErrors(byte[] bytes, int count) {
        errors.write(bytes, 0, Math.min(count, Math.max(0, MOST_ERRORS - errors.size())));
    }
}
