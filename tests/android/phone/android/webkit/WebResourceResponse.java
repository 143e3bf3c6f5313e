package android.webkit;

import java.io.InputStream;
import java.util.Map;

public class WebResourceResponse {
    public final String type;
    public final String encoding;
    public final int status;
    public final Map<String, String> headers;
    public final InputStream body;

    public WebResourceResponse(
            String type, String encoding, int status, String reason, Map<String, String> headers, InputStream body) {
        if (status < 100 || status > 599 || status / 100 == 3) throw new IllegalArgumentException();
        if (reason.trim().isEmpty()) throw new IllegalArgumentException();
        this.type = type;
        this.encoding = encoding;
        this.status = status;
        this.headers = headers;
        this.body = body;
    }
}
