package dev.pocketglm.core;

import java.util.Map;

/** What the host says to the page, one text at a time. Any thread may call. */
final class Outbox {
    private final Page page;

    Outbox(Page page) {
        this.page = page;
    }

    void result(long id, Map<String, Object> result) {
        put(Json.object("id", id, "result", result));
    }

    /** `id` is null where the call had none. */
    void error(Long id, Failure failure) {
        Map<String, Object> error =
                Json.object("code", failure.code, "message", failure.getMessage(), "details", failure.details());
        put(Json.object("id", id, "error", error));
    }

    void event(String name, Map<String, Object> data) {
        put(Json.object("event", name, "data", data));
    }

    private synchronized void put(Map<String, Object> text) {
        page.receive(Json.write(text));
    }
}
