package android.content;

public class ClipData {
    final String text;

    private ClipData(String text) {
        this.text = text;
    }

    public static ClipData newPlainText(CharSequence label, CharSequence text) {
        return new ClipData(text.toString());
    }
}
