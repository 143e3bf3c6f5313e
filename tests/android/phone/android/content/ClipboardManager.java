package android.content;

import phone.Phone;

public class ClipboardManager {
    public void setPrimaryClip(ClipData clip) {
        if (clip.text.length() > 1000000) throw new RuntimeException("TransactionTooLargeException");
        Phone.say("clipboard", clip.text);
    }
}
