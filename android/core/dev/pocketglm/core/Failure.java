package dev.pocketglm.core;

import java.util.LinkedHashMap;
import java.util.Map;

/** Why a call fails: one of the codes in docs/android-bridge.md, with a message in English and details. */
final class Failure extends Exception {
    private static final long serialVersionUID = 1;

    final String code;
    private final transient Map<String, Object> details = new LinkedHashMap<String, Object>();

    Failure(String code, String message) {
        super(message);
        this.code = code;
    }

    Failure with(String name, Object value) {
        details.put(name, value);
        return this;
    }

    Map<String, Object> details() {
        return details;
    }

    static Failure request(String problem) {
        return new Failure("request", problem);
    }

    static Failure missing(String packageId) {
        return new Failure("missing", "There is no package " + packageId + ".");
    }

    static Failure internal(Throwable cause) {
        Failure failure = new Failure("internal", cause.toString());
        failure.initCause(cause);
        return failure;
    }
}
