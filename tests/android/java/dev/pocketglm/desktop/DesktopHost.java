package dev.pocketglm.desktop;

import dev.pocketglm.core.Host;
import dev.pocketglm.core.Json;
import dev.pocketglm.core.JsonException;
import dev.pocketglm.core.Page;
import dev.pocketglm.core.Resource;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * The app's host as a program: `DesktopHost FOLDER ENGINE...`, FOLDER in place of the app's files and ENGINE
 * the command of the engine. One JSON text a line each way, as docs/android-bridge.md has them. Two lines are
 * not the page's: {"resource":"/packages/ID/NAME"} is answered with status, type and body; {"desktop":{...}}
 * says what {@link DesktopPlatform} is to be like. Ends with its input.
 */
public final class DesktopHost {
    private final PrintStream output;
    private final DesktopPlatform platform;
    private final Host host;

    private DesktopHost(File folder, String[] engine) throws IOException {
        output = new PrintStream(System.out, true, "UTF-8");
        platform = new DesktopPlatform(folder, Arrays.asList(engine));
        host = new Host(platform, new Page() {
            @Override
            public void receive(String json) {
                say(json);
            }
        });
    }

    public static void main(String[] arguments) throws IOException {
        String[] engine = Arrays.copyOfRange(arguments, 1, arguments.length);
        new DesktopHost(new File(arguments[0]), engine).run();
    }

    private void run() throws IOException {
        BufferedReader input =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = input.readLine()) != null; ) {
            Map<String, Object> own = ownLine(line);
            if (own == null) host.send(line);
            else if (own.containsKey("resource")) get((String) own.get("resource"));
            else control(Json.asObject(own.get("desktop")));
        }
        host.close();
    }

    /** null where the line is for the host, readable or not. */
    private static Map<String, Object> ownLine(String line) {
        if (!line.startsWith("{\"resource\"") && !line.startsWith("{\"desktop\"")) return null;
        try {
            return Json.asObject(Json.read(line, Json.MOST_DEPTH));
        } catch (JsonException problem) {
            return null;
        }
    }

    private void get(String path) {
        Resource found = host.open(path);
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("resource", path);
        answer.put("status", found.status);
        answer.put("type", found.type);
        answer.put("body", new String(found.body, StandardCharsets.UTF_8));
        say(Json.write(answer));
    }

    private void control(Map<String, Object> wanted) {
        if (wanted.containsKey("trim")) host.trimMemory(((Long) wanted.remove("trim")).intValue());
        platform.change(wanted);
    }

    private synchronized void say(String json) {
        output.println(json);
    }
}
