package android.webkit;

import android.net.Uri;

public class WebChromeClient {
    public abstract static class FileChooserParams {}

    public boolean onShowFileChooser(WebView view, ValueCallback<Uri[]> files, FileChooserParams wanted) {
        return false;
    }
}
