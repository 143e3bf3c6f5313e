package dev.pocketglm.app;

import android.app.Activity;
import android.content.ActivityNotFoundException;
import android.content.Intent;
import android.net.Uri;
import android.os.Bundle;
import android.webkit.WebSettings;
import android.webkit.WebView;
import android.widget.TextView;
import dev.pocketglm.core.Site;

/** The window: a WebView with the page. */
public final class MainActivity extends Activity {
    private PocketGLMApplication app;
    private WebView page;

    @Override
    protected void onCreate(Bundle saved) {
        super.onCreate(saved);
        app = (PocketGLMApplication) getApplication();
        app.pickers().attach(this);
        openPage();
    }

    @Override
    protected void onDestroy() {
        app.pickers().detach(this, isFinishing());
        closePage();
        super.onDestroy();
    }

    /** Leaves the process, and an answer in it, alone. */
    @Override
    public void onBackPressed() {
        if (page != null && page.canGoBack()) page.goBack();
        else moveTaskToBack(true);
    }

    @Override
    protected void onActivityResult(int request, int result, Intent data) {
        super.onActivityResult(request, result, data);
        app.pickers().result(request, result == RESULT_OK && data != null ? data.getData() : null);
    }

    /** The process that draws the page has ended, for want of memory perhaps: a new page takes its place. */
    void reopenPage() {
        closePage();
        openPage();
    }

    /** A link that the user has tapped. */
    void openElsewhere(String address) {
        Intent intent = new Intent(Intent.ACTION_VIEW, Uri.parse(address));
        intent.addCategory(Intent.CATEGORY_BROWSABLE);
        try {
            startActivity(intent);
        } catch (ActivityNotFoundException nobody) {
            // a phone without a browser: the link leads nowhere
        }
    }

    private void openPage() {
        try {
            page = new WebView(this);
        } catch (RuntimeException missing) { // of several kinds, none of them public
            TextView text = new TextView(this);
            text.setText(R.string.no_webview);
            setContentView(text);
            return;
        }
        prepare(page.getSettings());
        page.setBackgroundColor(getResources().getColor(R.color.ground, getTheme()));
        page.setWebViewClient(new PageClient(app.site(), this));
        page.setWebChromeClient(new PageChrome(app.pickers()));
        page.addJavascriptInterface(new PageBridge(app.host()), "PocketGLMHost");
        app.host().pageOpened();
        app.show(page);
        setContentView(page);
        page.loadUrl(Site.START);
    }

    /** No file, no content provider, no place: the page needs what the site gives it, and memory of its own. */
    private static void prepare(WebSettings settings) {
        settings.setJavaScriptEnabled(true);
        settings.setDomStorageEnabled(true);
        settings.setAllowFileAccess(false);
        settings.setAllowContentAccess(false);
        settings.setGeolocationEnabled(false);
        settings.setSupportMultipleWindows(false);
        settings.setCacheMode(WebSettings.LOAD_NO_CACHE);
    }

    private void closePage() {
        if (page == null) return;
        if (app.page() == page) app.show(null);
        page.destroy();
        page = null;
    }
}
