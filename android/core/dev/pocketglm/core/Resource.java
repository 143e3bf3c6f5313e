package dev.pocketglm.core;

/** The answer to a GET of the page. */
public final class Resource {
    /** As in HTTP: 200, 403, 404, or 500 for a damaged file. */
    public final int status;
    /** "application/json" or "text/plain", always UTF-8. */
    public final String type;
    public final byte[] body;

    Resource(int status, String type, byte[] body) {
        this.status = status;
        this.type = type;
        this.body = body;
    }

    static Resource refused(int status) {
        return new Resource(status, "text/plain", new byte[0]);
    }
}
