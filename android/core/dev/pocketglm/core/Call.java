package dev.pocketglm.core;

import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;

/** One call of the page, and its parameters with their types checked. */
final class Call {
    /** The largest integer that every number of JavaScript up to it can be told from. */
    private static final long MOST_ID = (1L << 53) - 1;

    /** UTF-16 units are at most as many as bytes in UTF-8, so that this is checked before anything is read. */
    static final int MOST_BYTES = 9 << 20;

    /** null where the call has none. */
    final Long id;
    final String method;
    private final Map<String, Object> params;

    private Call(Long id, String method, Map<String, Object> params) {
        this.id = id;
        this.method = method;
        this.params = params;
    }

    /** Never null: what cannot be read is a Failure, with the id that it has if it has one. */
    static Call read(String text) throws Unreadable {
        if (text.length() > MOST_BYTES || text.getBytes(Json.UTF_8).length > MOST_BYTES) {
            throw new Unreadable(null, "The text is longer than 9 MiB.");
        }
        Map<String, Object> object;
        try {
            object = Json.asObject(Json.read(text, Json.MOST_DEPTH));
        } catch (JsonException problem) {
            throw new Unreadable(null, "The text is not JSON: " + problem.getMessage());
        }
        if (object == null) throw new Unreadable(null, "A call must be an object.");
        return ofObject(object);
    }

    private static Call ofObject(Map<String, Object> object) throws Unreadable {
        Long id = Json.asLong(object.get("id"), 0, MOST_ID);
        if (id == null) throw new Unreadable(null, "id must be an integer from 0 to 2^53 - 1.");
        for (String name : object.keySet()) {
            if (!Arrays.asList("id", "method", "params").contains(name)) {
                throw new Unreadable(id, "A call has no field " + brief(name) + ".");
            }
        }
        Object method = object.get("method"), params = object.get("params");
        if (!(method instanceof String)) throw new Unreadable(id, "method must be a string.");
        if (params == null) params = Collections.emptyMap();
        if (!(params instanceof Map)) throw new Unreadable(id, "params must be an object.");
        return new Call(id, (String) method, Json.asObject(params));
    }

    /** Refuses parameters that are not among these. */
    void allow(String... known) throws Failure {
        List<String> names = Arrays.asList(known);
        for (String name : params.keySet()) {
            if (!names.contains(name)) throw Failure.request(method + " has no parameter " + brief(name) + ".");
        }
    }

    String text(String name) throws Failure {
        Object value = params.get(name);
        if (!(value instanceof String)) throw wrong(name, "a string");
        return (String) value;
    }

    /** null where it is left out. */
    Long optionalInteger(String name, long low, long high) throws Failure {
        if (params.get(name) == null) return null;
        Long value = Json.asLong(params.get(name), low, high);
        if (value == null) throw wrong(name, "an integer from " + low + " to " + high);
        return value;
    }

    String choice(String name, String... choices) throws Failure {
        String found = optionalChoice(name, choices);
        if (found == null) throw wrong(name, "one of " + Arrays.asList(choices));
        return found;
    }

    /** null where it is left out. */
    String optionalChoice(String name, String... choices) throws Failure {
        Object value = params.get(name);
        if (value == null) return null;
        if (!Arrays.asList(choices).contains(value)) throw wrong(name, "one of " + Arrays.asList(choices));
        return (String) value;
    }

    private Failure wrong(String name, String expected) {
        return Failure.request(method + ": " + name + " must be " + expected + ".");
    }

    /** A name from outside, short enough for a message. */
    static String brief(String text) {
        return text.length() <= 80 ? text : text.substring(0, 80) + "...";
    }

    /** A text that is no call. */
    static final class Unreadable extends Exception {
        private static final long serialVersionUID = 1;

        /** null where the text has none. */
        final Long id;

        Unreadable(Long id, String problem) {
            super(problem);
            this.id = id;
        }
    }
}
