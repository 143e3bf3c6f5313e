package android.view;

import android.content.Context;
import phone.Phone;

public class View {
    public boolean keepsScreenOn;

    public View(Context context) {
        Phone.requireMain();
    }

    public void setKeepScreenOn(boolean keepsScreenOn) {
        Phone.requireMain();
        this.keepsScreenOn = keepsScreenOn;
    }

    public void setBackgroundColor(int color) {}
}
