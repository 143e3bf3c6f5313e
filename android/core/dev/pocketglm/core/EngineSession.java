package dev.pocketglm.core;

import java.io.IOException;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** One life of the engine's process: passes on what it says, and speaks for the host (docs/engine-protocol.md). */
final class EngineSession implements Engine.Listener {
    private static final int PROTOCOL = 1;
    /** A package of 1024 blocks is mapped in seconds; slow storage and an emulated CPU have their time too. */
    private static final long LOAD_MS = 180000;
    private static final long READY_MS = 30000;
    /** An answer ends between two pieces of its prompt; a phone may need seconds for one. */
    private static final long UNLOAD_MS = 10000;
    private static final long END_MS = 5000;
    /** The ids of requests that are not the page's begin with it. */
    private static final String OWN_ID = "host-";
    /** Most events are of this kind, and none of the host's business. */
    private static final String TOKEN = "{\"event\":\"token\"";

    private final Runner runner;
    private final Outbox outbox;
    private final Engine engine;
    /** Events that answer the host, and at the end one without a name. */
    private final BlockingQueue<Map<String, Object>> answers = new LinkedBlockingQueue<Map<String, Object>>();
    private volatile String loaded;
    private volatile boolean isKilled;
    private int requests;

    EngineSession(Platform platform, Runner runner, Outbox outbox) throws IOException {
        this.runner = runner;
        this.outbox = outbox;
        engine = new Engine(platform.engineCommand(), platform.files(), this);
        engine.begin(); // only now: what it calls needs the field
    }

    String loaded() {
        return loaded;
    }

    boolean isStopping() {
        return engine.isStopping();
    }

    boolean send(String line) {
        return engine.send(line);
    }

    void stop() {
        loaded = null;
        engine.stop();
    }

    void kill() {
        isKilled = true;
        loaded = null;
        engine.kill();
    }

    /** Failure `internal` where it does not end; a second one must not run beside it. */
    void waitForEnd() throws Failure {
        if (!engine.waitForEnd(END_MS)) throw new Failure("internal", "The engine does not end.");
    }

    void waitUntilReady() throws Failure {
        Map<String, Object> ready = take(READY_MS);
        if (Long.valueOf(PROTOCOL).equals(ready.get("protocol"))) return;
        kill();
        throw new Failure("engine", "The engine speaks another version of the protocol.");
    }

    /** Ends answers, and frees what is loaded. False where the engine did not do so, and has been stopped. */
    boolean unload() throws Failure {
        if (loaded == null) return true;
        engine.send("{\"command\":\"stop\"}");
        loaded = null;
        try {
            ask(Json.object("command", "unload"), UNLOAD_MS);
            return true;
        } catch (Failure stuckOrGone) {
            kill();
            waitForEnd();
            return false;
        }
    }

    /** The event `loaded`. */
    Map<String, Object> load(StoredPackage wanted, Plan plan) throws Failure {
        Map<String, Object> request =
                Json.object(
                        "command", "load",
                        "package", wanted.folder.getAbsolutePath(),
                        "threads", plan.threads,
                        "kv", plan.kv,
                        "context", plan.context);
        if (plan.memory != null) request.put("memory", plan.memory);
        Map<String, Object> event = ask(request, LOAD_MS);
        if ("loaded".equals(event.get("event"))) {
            loaded = wanted.id;
            return event;
        }
        Object hint = event.get("hint");
        throw new Failure("engine", String.valueOf(event.get("message")))
                .with("engineCode", event.get("code"))
                .with("hint", hint == null ? "" : hint);
    }

    /** Sends a request of the host's and waits for the event that answers it. */
    private Map<String, Object> ask(Map<String, Object> request, long milliseconds) throws Failure {
        String id = OWN_ID + ++requests;
        request.put("id", id);
        engine.send(Json.write(request));
        long end = System.nanoTime() + milliseconds * 1000000;
        while (true) {
            Map<String, Object> event = take((end - System.nanoTime()) / 1000000);
            if (id.equals(event.get("id"))) return event;
        }
    }

    private Map<String, Object> take(long milliseconds) throws Failure {
        Map<String, Object> event;
        try {
            event = answers.poll(Math.max(0, milliseconds), TimeUnit.MILLISECONDS);
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
            event = null;
        }
        if (event == null) {
            kill();
            throw new Failure("engine", "The engine does not answer.");
        }
        if (event.containsKey("event")) return event;
        answers.add(event); // for who asks next
        String errors = engine.errors();
        throw new Failure("engine", "The engine has ended" + (errors.isEmpty() ? "." : ": " + errors));
    }

    @Override
    public void line(String line) {
        Map<String, Object> event = line.startsWith(TOKEN) ? null : eventIn(line);
        // Before the page hears of it, and asks.
        if (event != null && "unloaded".equals(event.get("event"))) loaded = null;
        outbox.event("engine.line", Json.object("line", line));
        if (event == null) return;
        Object id = event.get("id");
        boolean isOwn = id instanceof String && ((String) id).startsWith(OWN_ID);
        if (isOwn || "ready".equals(event.get("event"))) answers.add(event);
    }

    /** null where the line is none, as no engine says. */
    private static Map<String, Object> eventIn(String line) {
        try {
            return Json.asObject(Json.read(line, Json.MOST_DEPTH));
        } catch (JsonException notTheEngine) {
            return null;
        }
    }

    @Override
    public void ended(int code) {
        boolean wasExpected = isKilled || engine.isStopping();
        loaded = null;
        runner.ended(this);
        answers.add(Json.object());
        Map<String, Object> data = Json.object("code", code);
        if (code > 128) data.put("signal", code - 128); // as shells have it, and Java
        data.put("expected", wasExpected);
        outbox.event("engine.exit", data);
    }
}
