package android.webkit;

import android.content.Context;
import android.view.View;
import phone.Phone;

/** A page that runs no script: scripts, addresses and settings are told to the test. */
public class WebView extends View {
    public WebViewClient client = new WebViewClient();
    public WebChromeClient chrome = new WebChromeClient();
    public Object bridge;
    private final WebSettings settings = new WebSettings();
    private boolean isDestroyed;

    public WebView(Context context) {
        super(context);
        if (Phone.hasNoWebView) throw new RuntimeException("MissingWebViewPackageException");
    }

    public WebSettings getSettings() {
        return settings;
    }

    public void setWebViewClient(WebViewClient client) {
        this.client = client;
    }

    public void setWebChromeClient(WebChromeClient chrome) {
        this.chrome = chrome;
    }

    public void addJavascriptInterface(Object bridge, String name) {
        if (name.equals("PocketGLMHost")) this.bridge = bridge;
    }

    public void loadUrl(String address) {
        requireAlive();
        Phone.say("loaded", address);
        Phone.say("settings", settings.values);
    }

    public void evaluateJavascript(String script, ValueCallback<String> result) {
        requireAlive();
        Phone.say("script", script);
    }

    public boolean canGoBack() {
        return Phone.canGoBack;
    }

    public void goBack() {
        Phone.say("wentBack", true);
    }

    public void destroy() {
        requireAlive();
        isDestroyed = true;
    }

    private void requireAlive() {
        Phone.requireMain();
        if (isDestroyed) throw new IllegalStateException("the WebView is destroyed");
    }
}
