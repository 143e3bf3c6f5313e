package dev.pocketglm.core;

/** Why a text is not JSON as it is asked for, and the character where that shows. */
public final class JsonException extends Exception {
    private static final long serialVersionUID = 1;

    JsonException(String problem, int at) {
        super(problem + " (character " + at + ")");
    }
}
