package android.webkit;

import java.util.Map;
import java.util.TreeMap;

public class WebSettings {
    public final Map<String, Object> values = new TreeMap<>();

    public void setJavaScriptEnabled(boolean value) {
        values.put("javaScript", value);
    }

    public void setDomStorageEnabled(boolean value) {
        values.put("domStorage", value);
    }

    public void setAllowFileAccess(boolean value) {
        values.put("fileAccess", value);
    }

    public void setAllowContentAccess(boolean value) {
        values.put("contentAccess", value);
    }

    public void setGeolocationEnabled(boolean value) {
        values.put("geolocation", value);
    }

    public void setSupportMultipleWindows(boolean value) {
        values.put("multipleWindows", value);
    }

    public void setCacheMode(int mode) {
        values.put("cacheMode", (long) mode);
    }
}
