package dev.pocketglm.core;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.Charset;
import java.nio.charset.CodingErrorAction;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * JSON texts and what they stand for: Map (in the order of the text), List, String, Long, Double, Boolean,
 * null. Integers that no long holds are doubles.
 */
public final class Json {
    static final Charset UTF_8 = Charset.forName("UTF-8");

    /** As the engine has it for requests. */
    public static final int MOST_DEPTH = 8;

    static final int MOST_VALUES = 2000000;

    private Json() {}

    /** Strict; JsonException where the text is not one JSON value or too large. */
    public static Object read(String text, int mostDepth) throws JsonException {
        return new JsonParser(text, mostDepth, MOST_VALUES).whole();
    }

    static Object read(byte[] utf8, int mostDepth) throws JsonException {
        try {
            return read(
                    UTF_8.newDecoder()
                            .onMalformedInput(CodingErrorAction.REPORT)
                            .onUnmappableCharacter(CodingErrorAction.REPORT)
                            .decode(ByteBuffer.wrap(utf8))
                            .toString(),
                    mostDepth);
        } catch (CharacterCodingException problem) {
            throw new JsonException("it is not UTF-8", 0);
        }
    }

    /** Maps, lists, strings, numbers, booleans and null as a JSON text in one line. */
    public static String write(Object value) {
        StringBuilder out = new StringBuilder();
        write(value, out);
        return out.toString();
    }

    /** An object of these names and values, in turn. */
    static Map<String, Object> object(Object... namesAndValues) {
        Map<String, Object> made = new LinkedHashMap<String, Object>();
        for (int i = 0; i < namesAndValues.length; i += 2) {
            made.put((String) namesAndValues[i], namesAndValues[i + 1]);
        }
        return made;
    }

    /** The value as an object; null where it is none. */
    @SuppressWarnings("unchecked")
    public static Map<String, Object> asObject(Object value) {
        return value instanceof Map ? (Map<String, Object>) value : null;
    }

    @SuppressWarnings("unchecked")
    static List<Object> asList(Object value) {
        return value instanceof List ? (List<Object>) value : null;
    }

    /** The value as a whole number from `low` to `high`; null where it is none. */
    static Long asLong(Object value, long low, long high) {
        if (!(value instanceof Long)) return null;
        long number = (Long) value;
        return number >= low && number <= high ? (Long) value : null;
    }

    private static void write(Object value, StringBuilder out) {
        if (value instanceof Map) writeObject((Map<?, ?>) value, out);
        else if (value instanceof List) writeList((List<?>) value, out);
        else if (value instanceof String) writeString((String) value, out);
        else if (value instanceof Double) out.append(finite((Double) value));
        else if (value == null || value instanceof Number || value instanceof Boolean) out.append(value);
        else throw new IllegalArgumentException("not a JSON value: " + value.getClass());
    }

    private static double finite(double value) {
        return Double.isNaN(value) || Double.isInfinite(value) ? 0 : value;
    }

    private static void writeObject(Map<?, ?> object, StringBuilder out) {
        char before = '{';
        for (Map.Entry<?, ?> entry : object.entrySet()) {
            out.append(before);
            writeString((String) entry.getKey(), out);
            out.append(':');
            write(entry.getValue(), out);
            before = ',';
        }
        out.append(before == '{' ? "{}" : "}");
    }

    private static void writeList(List<?> list, StringBuilder out) {
        char before = '[';
        for (Object item : list) {
            out.append(before);
            write(item, out);
            before = ',';
        }
        out.append(before == '[' ? "[]" : "]");
    }

    private static void writeString(String text, StringBuilder out) {
        out.append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            boolean isPair = i + 1 < text.length() && Character.isSurrogatePair(c, text.charAt(i + 1));
            if (c == '"' || c == '\\') out.append('\\').append(c);
            else if (isPair) out.append(c).append(text.charAt(++i));
            else if (Character.isSurrogate(c)) out.append('\uFFFD'); // half a pair stands for nothing
            else if (mustEscape(c)) out.append(String.format("\\u%04x", (int) c));
            else out.append(c);
        }
        out.append('"');
    }

    /** Control characters, and the two that end a line in old JavaScript: texts are put into scripts. */
    private static boolean mustEscape(char c) {
        return c < 0x20 || c == 0x7F || c == 0x2028 || c == 0x2029;
    }
}
