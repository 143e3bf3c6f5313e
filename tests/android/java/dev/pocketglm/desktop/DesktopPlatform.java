package dev.pocketglm.desktop;

import dev.pocketglm.core.Device;
import dev.pocketglm.core.Platform;
import dev.pocketglm.core.ZipSource;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A phone that is a folder. What a person would do, or the phone would say, is set by name: `pick`, the path
 * that the pickers give (null: the user goes back); `hold`, to leave a picker open; `freeMemory`,
 * `totalMemory`, `freeStorage`, `cores`, `bigCores`, `language`; `bytesPerSecond` at which sources are read.
 */
final class DesktopPlatform implements Platform {
    private final File folder;
    private final List<String> engine;
    private final Map<String, Object> settings = new LinkedHashMap<>();

    DesktopPlatform(File folder, List<String> engine) throws IOException {
        this.folder = folder;
        this.engine = engine;
        settings.put("language", "en");
        settings.put("freeMemory", 4L << 30);
        settings.put("totalMemory", 8L << 30);
        settings.put("freeStorage", 64L << 30);
        settings.put("cores", 8L);
        settings.put("bigCores", 2L);
        settings.put("bytesPerSecond", 0L);
        Files.createDirectories(folder.toPath());
    }

    synchronized void change(Map<String, Object> wanted) {
        settings.putAll(wanted);
    }

    private synchronized Object setting(String name) {
        return settings.get(name);
    }

    private long number(String name) {
        return (Long) setting(name);
    }

    @Override
    public Device device() {
        return new Device("0.1.0", 34, (String) setting("language"), number("freeMemory"), number("totalMemory"),
                number("freeStorage"), (int) number("cores"), (int) number("bigCores"));
    }

    @Override
    public File files() {
        return folder;
    }

    @Override
    public List<String> engineCommand() {
        return engine;
    }

    @Override
    public void pickZip(Picked picked) {
        String path = (String) setting("pick");
        if (setting("hold") == Boolean.TRUE) return;
        if (path == null) picked.cancelled();
        else if (!new File(path).isFile()) picked.failed("there is no such archive");
        else picked.source(new ZipSource(new File(path).getName(), () -> open(new File(path))));
    }

    @Override
    public void pickFolder(Picked picked) {
        String path = (String) setting("pick");
        if (setting("hold") == Boolean.TRUE) return;
        if (path == null) picked.cancelled();
        else picked.source(new FolderSource(new File(path), this::open));
    }

    @Override
    public void saveFile(String name, String text, Saved saved) {
        String path = (String) setting("pick");
        if (setting("hold") == Boolean.TRUE) return;
        if (path == null) {
            saved.cancelled();
            return;
        }
        try {
            Files.write(new File(path, name).toPath(), text.getBytes(StandardCharsets.UTF_8));
            saved.saved();
        } catch (IOException problem) {
            saved.failed(problem.toString());
        }
    }

    @Override
    public void copyToClipboard(String text) throws IOException {
        Files.write(new File(folder, "clipboard").toPath(), text.getBytes(StandardCharsets.UTF_8));
    }

    private InputStream open(File file) throws IOException {
        InputStream stream = new FileInputStream(file);
        long rate = number("bytesPerSecond");
        return rate == 0 ? stream : new SlowStream(stream, rate);
    }
}
