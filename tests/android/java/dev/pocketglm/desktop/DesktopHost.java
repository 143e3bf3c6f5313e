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
import java.util.List;
import java.util.Map;

/**
 * The app's host as a program: `DesktopHost FOLDER ENGINE...`, FOLDER in place of the app's files and ENGINE
 * the command of the engine. One JSON text a line each way, as docs/android-bridge.md has them. Lines that are
 * not the page's: {"resource":"/packages/ID/NAME"} is answered with status, type and body;
 * {"restart":FOLDER}, answered alike, ends the app and starts it over another folder; {"desktop":{...}} says
 * what {@link DesktopPlatform} is to be like; in it, "trim":LEVEL says that memory is short, "opened":true that
 * the page was loaded anew. Ends with its input.
 */
public final class DesktopHost {
    private final PrintStream output;
    private final List<String> engine;
    private DesktopPlatform platform;
    private Host host;
    /** The page of the host that runs. */
    private Page page;

    private DesktopHost(List<String> engine) throws IOException {
        output = new PrintStream(System.out, true, "UTF-8");
        this.engine = engine;
    }

    public static void main(String[] arguments) throws IOException {
        List<String> words = Arrays.asList(arguments);
        DesktopHost program = new DesktopHost(words.subList(1, words.size()));
        program.start(words.get(0));
        program.run();
    }

    private void start(String folder) throws IOException {
        platform = new DesktopPlatform(new File(folder), engine);
        Page begun = new Page() {
            @Override
            public void receive(String json) {
                say(this, json);
            }
        };
        page = begun;
        host = new Host(platform, begun);
    }

    private void run() throws IOException {
        BufferedReader input =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = input.readLine()) != null; ) {
            Map<String, Object> own = ownLine(line);
            if (own == null) host.send(line);
            else if (own.containsKey("resource")) get((String) own.get("resource"));
            else if (own.containsKey("restart")) restart((String) own.get("restart"));
            else control(Json.asObject(own.get("desktop")));
        }
        host.close();
    }

    private void restart(String folder) throws IOException {
        host.close();
        synchronized (this) {
            page = null; // what the old one still says is lost, as where the app has ended
        }
        start(folder);
        output.println("{\"restarted\":true}");
    }

    /** null where the line is for the host, readable or not. */
    private static Map<String, Object> ownLine(String line) {
        if (!line.startsWith("{\"resource\"") && !line.startsWith("{\"desktop\"")
                && !line.startsWith("{\"restart\"")) {
            return null;
        }
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
        say(page, Json.write(answer));
    }

    private void control(Map<String, Object> wanted) {
        if (wanted.containsKey("trim")) host.trimMemory(((Long) wanted.remove("trim")).intValue());
        if (wanted.remove("opened") != null) host.pageOpened();
        platform.change(wanted);
    }

    private synchronized void say(Page from, String json) {
        if (from == page) output.println(json);
    }
}
