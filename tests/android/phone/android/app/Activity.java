package android.app;

import android.content.ActivityNotFoundException;
import android.content.Context;
import android.content.Intent;
import android.os.Bundle;
import android.view.View;
import phone.Phone;

/** A window; `on...` are called by the fake phone. */
public class Activity extends Context {
    public boolean isFinishing;
    public View content;

    protected void onCreate(Bundle saved) {}

    protected void onDestroy() {}

    protected void onActivityResult(int request, int result, Intent data) {}

    public void onBackPressed() {}

    public final Application getApplication() {
        return Phone.application;
    }

    public boolean isFinishing() {
        return isFinishing;
    }

    public void setContentView(View content) {
        Phone.requireMain();
        this.content = content;
    }

    public boolean moveTaskToBack(boolean evenIfNotRoot) {
        Phone.say("toBack", evenIfNotRoot);
        return true;
    }

    public void startActivityForResult(Intent intent, int request) {
        Phone.requireMain();
        if (Phone.hasNoOtherApps) throw new ActivityNotFoundException();
        Phone.openPicker(intent, request);
    }

    public void startActivity(Intent intent) {
        Phone.requireMain();
        if (Phone.hasNoOtherApps) throw new ActivityNotFoundException();
        Phone.say("opened", intent.describe());
    }

    // What the system does to windows; from outside, the methods above are not to be seen.

    public void create() {
        onCreate(null);
    }

    public void destroy() {
        onDestroy();
    }

    public void result(int request, int result, Intent data) {
        onActivityResult(request, result, data);
    }
}
