package dev.pocketglm.core;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** What each method of docs/android-bridge.md does. Called by one thread. */
final class Methods {
    private static final int BRIDGE = 1;
    private static final int MOST_FILE_NAME = 200;

    private final Platform platform;
    private final Packages packages;
    private final Pickers pickers = new Pickers();
    private final Importer importer;
    private final Runner runner;

    Methods(Platform platform, Packages packages, Outbox outbox) {
        this.platform = platform;
        this.packages = packages;
        importer = new Importer(platform, packages, outbox, pickers);
        runner = new Runner(platform, outbox);
    }

    /** Nobody waits for an import any more. */
    void pageOpened() {
        importer.cancel();
    }

    /** Ends what runs by itself. */
    void close() {
        importer.cancel();
        runner.close();
    }

    /** The result; null where it comes later through `reply`. */
    Map<String, Object> perform(Call call, Reply reply) throws Failure {
        switch (call.method) {
            case "device.info":
                call.allow();
                return deviceInfo(platform.device());
            case "packages.list":
                call.allow();
                return list();
            case "packages.import":
                call.allow("kind");
                importer.begin(call.choice("kind", "zip", "folder"), reply);
                return null;
            case "import.cancel":
                call.allow();
                return Json.object("cancelled", importer.cancel());
            case "packages.rename":
                call.allow("package", "name");
                return Json.object("package", packages.rename(call.text("package"), call.text("name")).toJson());
            case "packages.delete":
                call.allow("package");
                return delete(call.text("package"));
            case "engine.plan":
                call.allow("package", "context", "kv", "threads", "memory");
                return plan(call.text("package"), Wish.of(call));
            case "engine.start":
                call.allow("package", "context", "kv", "threads", "memory");
                return start(call.text("package"), Wish.of(call), reply);
            case "engine.send":
                call.allow("line");
                runner.send(call.text("line"));
                return Json.object();
            case "engine.stop":
                call.allow();
                return Json.object("running", runner.stop());
            case "files.save":
                call.allow("name", "text");
                return save(call.text("name"), call.text("text"), reply);
            case "clipboard.write":
                call.allow("text");
                return copy(call.text("text"));
            default:
                throw Failure.request("There is no method " + Call.brief(call.method) + ".");
        }
    }

    private static Map<String, Object> deviceInfo(Device device) {
        return Json.object(
                "bridge", BRIDGE,
                "version", device.version,
                "sdk", device.sdk,
                "language", device.language,
                "memory", Json.object("free", device.freeMemory, "total", device.totalMemory),
                "storage", Json.object("free", device.freeStorage),
                "cores", device.cores,
                "bigCores", device.bigCores);
    }

    private Map<String, Object> list() {
        List<Object> listed = new ArrayList<Object>();
        for (StoredPackage one : packages.list()) listed.add(one.toJson());
        return Json.object("packages", listed, "running", runner.running());
    }

    private Map<String, Object> delete(String id) throws Failure {
        if (importer.isFilling(id)) throw new Failure("busy", "The package is being imported.");
        if (runner.isUsing(id)) throw new Failure("busy", "The package is in the engine.");
        packages.delete(id);
        return Json.object();
    }

    private Map<String, Object> plan(String id, Wish wish) throws Failure {
        return runner.plan(packages.findComplete(id), wish).toJson();
    }

    private Map<String, Object> start(String id, Wish wish, Reply reply) throws Failure {
        runner.start(packages.findComplete(id), wish, reply);
        return null;
    }

    private Map<String, Object> save(String name, String text, final Reply reply) throws Failure {
        if (name.isEmpty() || name.length() > MOST_FILE_NAME || name.contains("/")) {
            throw Failure.request("A file's name has 1 to " + MOST_FILE_NAME + " characters and no \"/\".");
        }
        pickers.begin();
        platform.saveFile(name, text, new Platform.Saved() {
            @Override
            public void saved() {
                pickers.end();
                reply.result(Json.object("saved", true));
            }

            @Override
            public void cancelled() {
                pickers.end();
                reply.result(Json.object("saved", false));
            }

            @Override
            public void failed(String problem) {
                pickers.end();
                reply.failure(new Failure("internal", problem));
            }
        });
        return null;
    }

    private Map<String, Object> copy(String text) throws Failure {
        try {
            platform.copyToClipboard(text);
        } catch (IOException problem) {
            throw Failure.internal(problem);
        }
        return Json.object();
    }
}
