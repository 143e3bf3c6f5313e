package dev.pocketglm.core;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.regex.Pattern;

/**
 * What the page finds under its address: its own files, and the small files of packages. Every other request
 * gets 403, so that nothing that a model wrote can make the page ask another machine for something.
 */
public final class Site {
    public static final String ORIGIN = "https://app.pocketglm.invalid";
    public static final String START = ORIGIN + "/";

    private static final String POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; "
            + "img-src 'self'; font-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; "
            + "form-action 'none'";

    /** Names of folders and a file, none of them "." or "..", with nothing that would have to be decoded. */
    private static final Pattern ASSET = Pattern.compile("(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+");

    private static final Map<String, String> TYPES = types();

    /** The page's files. */
    public interface Assets {
        /** By names such as "index.html" and "assets/index.js"; IOException where there is none. */
        InputStream open(String name) throws IOException;
    }

    private final Assets assets;
    private final Host host;

    public Site(Assets assets, Host host) {
        this.assets = assets;
        this.host = host;
    }

    /** The answer to a request. Reads files: not for the thread that draws. */
    public Resource answer(String method, String address) {
        if (!method.equals("GET") || !address.startsWith(START)) return Resource.refused(403);
        String path = address.substring(ORIGIN.length());
        if (path.startsWith("/packages/")) return host.open(path);
        if (path.equals("/")) path = "/index.html";
        String type = TYPES.get(path.substring(path.lastIndexOf('.') + 1));
        if (type == null || !ASSET.matcher(path).matches()) return Resource.refused(403);
        try {
            return new Resource(200, type, read(path.substring(1)));
        } catch (IOException missing) {
            return Resource.refused(403);
        }
    }

    /** The headers of every answer. */
    public static Map<String, String> headers() {
        Map<String, String> headers = new LinkedHashMap<String, String>();
        headers.put("Content-Security-Policy", POLICY);
        headers.put("X-Content-Type-Options", "nosniff");
        headers.put("Referrer-Policy", "no-referrer");
        headers.put("Cache-Control", "no-store");
        return headers;
    }

    /** Whether a link leads to a place for the phone's browser or mail program. */
    public static boolean isForOthers(String address) {
        return !address.startsWith(START) && address.matches("(?i)(https?://|mailto:)[^\\s]+");
    }

    private byte[] read(String name) throws IOException {
        try (InputStream stream = assets.open(name)) {
            ByteArrayOutputStream whole = new ByteArrayOutputStream();
            byte[] buffer = new byte[1 << 16];
            for (int count; (count = stream.read(buffer)) >= 0; ) whole.write(buffer, 0, count);
            return whole.toByteArray();
        }
    }

    private static Map<String, String> types() {
        Map<String, String> types = new HashMap<String, String>();
        types.put("html", "text/html");
        types.put("js", "text/javascript");
        types.put("css", "text/css");
        types.put("svg", "image/svg+xml");
        types.put("png", "image/png");
        types.put("woff2", "font/woff2");
        types.put("json", "application/json");
        types.put("wasm", "application/wasm");
        return Collections.unmodifiableMap(types);
    }
}
