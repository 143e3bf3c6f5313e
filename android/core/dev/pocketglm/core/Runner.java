package dev.pocketglm.core;

import java.io.IOException;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/** The engine for the page: start, send, stop; one process, in it one package or none. Any thread may call. */
final class Runner {
    private static final List<String> COMMANDS = Arrays.asList("generate", "stop", "stats", "unload");
    private static final int MOST_LINE = 8 << 20;

    private final Platform platform;
    private final Outbox outbox;
    /** null where none runs. */
    private EngineSession session;
    /** The package that is being started; null where none is. */
    private String starting;
    private boolean isClosed;

    Runner(Platform platform, Outbox outbox) {
        this.platform = platform;
        this.outbox = outbox;
    }

    /** Id of the package in the engine; null where none is. */
    synchronized String running() {
        return session == null ? null : session.loaded();
    }

    synchronized boolean isUsing(String id) {
        return id.equals(running()) || id.equals(starting);
    }

    /** How a package would run in place of the one that the engine has now: what that takes counts as free. */
    Plan plan(StoredPackage wanted, Wish wish) {
        return Planner.plan(wanted.manifest, platform.device(), ChildMemory.anonymous(), wish);
    }

    /** Answers when the package is loaded. */
    synchronized void start(final StoredPackage wanted, final Wish wish, final Reply reply) throws Failure {
        if (starting != null) throw new Failure("busy", "A package is being started already.");
        starting = wanted.id;
        Named.start("start", new Runnable() {
            @Override
            public void run() {
                answer(wanted, wish, reply);
            }
        });
    }

    private void answer(StoredPackage wanted, Wish wish, Reply reply) {
        Map<String, Object> result = null;
        Failure failure = null;
        try {
            result = load(wanted, wish);
        } catch (Failure found) {
            failure = found;
        } catch (RuntimeException problem) {
            failure = Failure.internal(problem);
        }
        synchronized (this) {
            starting = null; // before the answer: the page may start another at once
        }
        if (failure == null) reply.result(result);
        else reply.failure(failure);
    }

    /** The package before is unloaded first: two need not fit, and what it held is free for the plan. */
    private Map<String, Object> load(StoredPackage wanted, Wish wish) throws Failure {
        EngineSession current = current();
        if (current != null && !current.unload()) current = null;
        Plan plan = plan(wanted, wish);
        if (!plan.fits) throw plan.failure();
        if (current == null) current = begin();
        return Json.object("plan", plan.toJson(), "loaded", current.load(wanted, plan));
    }

    /** The process that runs, if it is to go on; waits for the end of one that is not. */
    private EngineSession current() throws Failure {
        EngineSession found;
        synchronized (this) {
            found = session;
        }
        if (found == null || !found.isStopping()) return found;
        found.waitForEnd();
        return null;
    }

    private EngineSession begin() throws Failure {
        EngineSession begun;
        synchronized (this) {
            if (isClosed) throw new Failure("internal", "The app ends.");
            try {
                begun = new EngineSession(platform, this, outbox);
            } catch (IOException problem) {
                throw new Failure("engine", "The engine cannot be started: " + problem.getMessage());
            }
            session = begun;
        }
        begun.waitUntilReady();
        return begun;
    }

    /** One request of the page's. */
    void send(String line) throws Failure {
        if (line.getBytes(Json.UTF_8).length > MOST_LINE) throw Failure.request("line is longer than 8 MiB.");
        Map<String, Object> request;
        try {
            request = Json.asObject(Json.read(line, Json.MOST_DEPTH));
        } catch (JsonException problem) {
            throw Failure.request("line is not JSON: " + problem.getMessage());
        }
        if (request == null || !COMMANDS.contains(request.get("command"))) {
            throw Failure.request("line must be an object whose command is one of " + COMMANDS + ".");
        }
        EngineSession target;
        synchronized (this) {
            target = running() == null ? null : session;
        }
        if (target == null) throw new Failure("not_running", "No package is loaded.");
        // Line feeds in a JSON text are space.
        if (!target.send(line.replace('\n', ' ').replace('\r', ' '))) {
            throw new Failure("busy", "The engine does not take more requests now.");
        }
    }

    /** Whether it ran. */
    synchronized boolean stop() {
        if (session == null || session.isStopping()) return false;
        session.stop();
        return true;
    }

    synchronized void close() {
        isClosed = true;
        if (session != null) session.kill();
    }

    /** A process has ended. */
    synchronized void ended(EngineSession which) {
        if (session == which) session = null;
    }
}
