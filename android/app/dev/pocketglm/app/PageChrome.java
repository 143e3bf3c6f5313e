package dev.pocketglm.app;

import android.net.Uri;
import android.webkit.ValueCallback;
import android.webkit.WebChromeClient;
import android.webkit.WebView;

/** What the page asks of the window around it: files to read. */
final class PageChrome extends WebChromeClient {
    private final Pickers pickers;

    PageChrome(Pickers pickers) {
        this.pickers = pickers;
    }

    @Override
    public boolean onShowFileChooser(WebView view, final ValueCallback<Uri[]> files, FileChooserParams wanted) {
        pickers.open(Pickers.anyFile(), new Pickers.Chosen() {
            @Override
            public void chosen(Uri file) {
                files.onReceiveValue(new Uri[] {file});
            }

            @Override
            public void cancelled() {
                files.onReceiveValue(null);
            }

            @Override
            public void failed(String problem) {
                files.onReceiveValue(null);
            }
        });
        return true;
    }
}
