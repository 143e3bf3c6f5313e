package dev.pocketglm.core;

import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Single classes of the host for the tests: a question a line, {"ask":...}, answered by a line. */
public final class Probe {
    private Probe() {}

    public static void main(String[] arguments) throws Exception {
        PrintStream output = new PrintStream(System.out, true, "UTF-8");
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = input.readLine()) != null; ) {
            output.println(Json.write(answer(Json.asObject(Json.read(line, 32)))));
        }
    }

    private static Map<String, Object> answer(Map<String, Object> question) {
        try {
            return Json.object("answer", perform((String) question.get("ask"), question));
        } catch (Failure failure) {
            return Json.object("code", failure.code, "error", failure.getMessage());
        } catch (JsonException | IOException problem) {
            return Json.object("code", problem.getClass().getSimpleName(), "error", problem.getMessage());
        }
    }

    private static Object perform(String what, Map<String, Object> question)
            throws Failure, JsonException, IOException {
        switch (what) {
            case "json":
                return Json.read(bytes((String) question.get("hex")), Json.MOST_DEPTH);
            case "walk":
                return walk((String) question.get("path"), Boolean.TRUE.equals(question.get("open")));
            case "cores":
                return Cores.big(new File((String) question.get("path")), ((Long) question.get("cores")).intValue());
            case "manifest":
                return Manifest.read(bytes((String) question.get("hex"))).id;
            case "plan":
                return plan(Manifest.read(bytes((String) question.get("hex"))), question);
            default:
                throw new IllegalArgumentException(what);
        }
    }

    private static Map<String, Object> plan(Manifest manifest, Map<String, Object> question) {
        long free = (Long) question.get("free"), total = (Long) question.get("total");
        Device device = new Device("0", 34, "en", free, total, 0, 8, 4);
        Wish wish = new Wish((Long) question.get("context"), (String) question.get("kv"),
                (Long) question.get("threads"), (Long) question.get("memory"));
        return Planner.plan(manifest, device, (Long) question.get("given"), wish).toJson();
    }

    private static byte[] bytes(String hex) {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        for (int i = 0; i < hex.length(); i += 2) bytes.write(Integer.parseInt(hex.substring(i, i + 2), 16));
        return bytes.toByteArray();
    }

    /** Path, size and, where the files are opened, hash of each file. */
    private static List<Object> walk(String path, boolean open) throws IOException {
        List<Object> found = new ArrayList<>();
        try (Source.Walk walk = new ZipSource(path, () -> new FileInputStream(path)).walk()) {
            for (Source.Entry entry; (entry = walk.next()) != null; ) {
                String hash = null;
                if (open) {
                    try (InputStream stream = entry.open()) {
                        hash = Hashes.sha256(Files.read(stream, 1 << 24));
                    }
                }
                found.add(Json.object("path", entry.path(), "size", entry.size(), "sha256", hash));
            }
        }
        return found;
    }
}
