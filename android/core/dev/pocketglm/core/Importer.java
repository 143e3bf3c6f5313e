package dev.pocketglm.core;

import java.util.Map;

/** packages.import from the picker to the answer: one at a time. */
final class Importer {
    private final Platform platform;
    private final Packages packages;
    private final Outbox outbox;
    private final Pickers pickers;
    private Import running;

    Importer(Platform platform, Packages packages, Outbox outbox, Pickers pickers) {
        this.platform = platform;
        this.packages = packages;
        this.outbox = outbox;
        this.pickers = pickers;
    }

    /** Opens the picker, and imports what is chosen. */
    synchronized void begin(String kind, final Reply reply) throws Failure {
        if (running != null) throw new Failure("busy", "An import runs already.");
        pickers.begin();
        Platform.Picked picked = new Platform.Picked() {
            @Override
            public void source(Source source) {
                pickers.end();
                start(source, reply);
            }

            @Override
            public void cancelled() {
                pickers.end();
                reply.failure(new Failure("cancelled", "The picker was closed."));
            }

            @Override
            public void failed(String problem) {
                pickers.end();
                reply.failure(Import.unreadable(problem, null));
            }
        };
        if (kind.equals("zip")) platform.pickZip(picked);
        else platform.pickFolder(picked);
    }

    /** Whether an import ran. It answers when it has noticed. */
    synchronized boolean cancel() {
        if (running != null) running.cancel();
        return running != null;
    }

    /** Whether an import fills this package. */
    synchronized boolean isFilling(String id) {
        return running != null && id.equals(running.packageId());
    }

    private synchronized void start(Source source, final Reply reply) {
        if (!reply.isAwaited()) return;
        final Import started = new Import(source, platform, packages, outbox);
        running = started;
        Named.start("import", new Runnable() {
            @Override
            public void run() {
                answer(started, reply);
            }
        });
    }

    private void answer(Import started, Reply reply) {
        Map<String, Object> result = null;
        Failure failure = null;
        try {
            result = Json.object("package", started.perform().toJson());
        } catch (Failure found) {
            failure = found;
        } catch (RuntimeException problem) {
            failure = Failure.internal(problem);
        } catch (OutOfMemoryError problem) {
            failure = Failure.internal(problem);
        }
        synchronized (this) {
            running = null; // before the answer: the page may begin another at once
        }
        if (failure == null) reply.result(result);
        else reply.failure(failure);
    }
}
