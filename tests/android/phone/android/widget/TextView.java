package android.widget;

import android.content.Context;
import android.view.View;
import phone.Phone;

public class TextView extends View {
    public TextView(Context context) {
        super(context);
    }

    public final void setText(int resource) {
        Phone.say("text", resource != 0);
    }
}
