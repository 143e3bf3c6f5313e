package dev.pocketglm.core;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Reads one JSON text, as strictly as the engine does (docs/engine-protocol.md). See {@link Json}. */
final class JsonParser {
    private final String text;
    private final int mostDepth;
    private final int mostValues;
    private int at;
    private int values;

    JsonParser(String text, int mostDepth, int mostValues) {
        this.text = text;
        this.mostDepth = mostDepth;
        this.mostValues = mostValues;
    }

    Object whole() throws JsonException {
        Object value = value(0);
        skipSpace();
        if (at < text.length()) throw failure("something follows the value");
        return value;
    }

    private JsonException failure(String problem) {
        return new JsonException(problem, at);
    }

    /** The character here; 0, which is valid nowhere, at the end. */
    private char peek() {
        return at < text.length() ? text.charAt(at) : 0;
    }

    private boolean take(char wanted) {
        if (at >= text.length() || text.charAt(at) != wanted) return false;
        at++;
        return true;
    }

    private void expect(char wanted) throws JsonException {
        skipSpace();
        if (!take(wanted)) throw failure("'" + wanted + "' is missing");
    }

    private void skipSpace() {
        while (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r') at++;
    }

    private Object value(int depth) throws JsonException {
        if (++values > mostValues) throw failure("more than " + mostValues + " values");
        if (depth > mostDepth) throw failure("nested deeper than " + mostDepth);
        skipSpace();
        switch (peek()) {
            case '{':
                return members(depth);
            case '[':
                return items(depth);
            case '"':
                return string();
            case 't':
                return word("true", Boolean.TRUE);
            case 'f':
                return word("false", Boolean.FALSE);
            case 'n':
                return word("null", null);
            default:
                return number();
        }
    }

    private Object word(String expected, Object value) throws JsonException {
        if (!text.startsWith(expected, at)) throw failure("no JSON value");
        at += expected.length();
        return value;
    }

    private List<Object> items(int depth) throws JsonException {
        List<Object> found = new ArrayList<Object>();
        expect('[');
        skipSpace();
        if (take(']')) return found;
        do {
            found.add(value(depth + 1));
            skipSpace();
        } while (take(','));
        expect(']');
        return found;
    }

    private Map<String, Object> members(int depth) throws JsonException {
        Map<String, Object> found = new LinkedHashMap<String, Object>();
        expect('{');
        skipSpace();
        if (take('}')) return found;
        do {
            skipSpace();
            if (peek() != '"') throw failure("a name is missing");
            String name = string();
            if (found.containsKey(name)) throw failure("a name occurs twice");
            expect(':');
            found.put(name, value(depth + 1));
            skipSpace();
        } while (take(','));
        expect('}');
        return found;
    }

    private String string() throws JsonException {
        at++; // the quote
        int start = at;
        while (at < text.length() && isPlain(text.charAt(at))) at++;
        if (take('"')) return text.substring(start, at - 1);
        StringBuilder found = new StringBuilder(text.substring(start, at));
        while (!take('"')) {
            if (at >= text.length()) throw failure("a string does not end");
            char c = text.charAt(at++);
            if (c < 0x20) throw failure("a control character in a string");
            if (c == '\\') found.append(escaped());
            else if (!Character.isSurrogate(c)) found.append(c);
            else found.append(c).append(secondHalf(c));
        }
        return found.toString();
    }

    private static boolean isPlain(char c) {
        return c >= 0x20 && c != '"' && c != '\\' && !Character.isSurrogate(c);
    }

    private char secondHalf(char first) throws JsonException {
        char second = peek();
        if (!Character.isSurrogatePair(first, second)) throw failure("half a surrogate pair");
        at++;
        return second;
    }

    private String escaped() throws JsonException {
        char c = peek();
        at++;
        int place = "\"\\/bfnrt".indexOf(c);
        if (place >= 0) return String.valueOf("\"\\/\b\f\n\r\t".charAt(place));
        if (c != 'u') throw failure("an unknown escape");
        char first = hexadecimal();
        if (!Character.isSurrogate(first)) return String.valueOf(first);
        if (!take('\\') || !take('u')) throw failure("half a surrogate pair");
        char second = hexadecimal();
        if (!Character.isSurrogatePair(first, second)) throw failure("half a surrogate pair");
        return new String(new char[] {first, second});
    }

    private char hexadecimal() throws JsonException {
        int code = 0;
        for (int i = 0; i < 4; i++, at++) {
            char c = peek();
            // Character.digit also knows digits of other scripts
            int digit = c < 0x80 ? Character.digit(c, 16) : -1;
            if (digit < 0) throw failure("four hexadecimal digits are missing");
            code = code * 16 + digit;
        }
        return (char) code;
    }

    private void digits() throws JsonException {
        if (!isDigit(peek())) throw failure("no JSON value");
        while (isDigit(peek())) at++;
    }

    private static boolean isDigit(char c) {
        return c >= '0' && c <= '9';
    }

    private Object number() throws JsonException {
        int start = at;
        boolean whole = true;
        take('-');
        if (!take('0')) digits();
        if (take('.')) {
            whole = false;
            digits();
        }
        if (peek() == 'e' || peek() == 'E') {
            whole = false;
            at++;
            if (peek() == '+' || peek() == '-') at++;
            digits();
        }
        String written = text.substring(start, at);
        if (whole) {
            try {
                return Long.valueOf(written);
            } catch (NumberFormatException beyondLong) {
                // a double then, as in the engine
            }
        }
        double value = Double.parseDouble(written);
        if (Double.isInfinite(value)) throw failure("a number is too large");
        return value;
    }
}
