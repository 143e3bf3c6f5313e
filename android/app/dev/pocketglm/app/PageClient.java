package dev.pocketglm.app;

import android.webkit.RenderProcessGoneDetail;
import android.webkit.WebResourceRequest;
import android.webkit.WebResourceResponse;
import android.webkit.WebView;
import android.webkit.WebViewClient;
import dev.pocketglm.core.Resource;
import dev.pocketglm.core.Site;
import java.io.ByteArrayInputStream;

/** Answers every request of the page from the app itself. */
final class PageClient extends WebViewClient {
    private final Site site;
    private final MainActivity window;

    PageClient(Site site, MainActivity window) {
        this.site = site;
        this.window = window;
    }

    @Override
    public WebResourceResponse shouldInterceptRequest(WebView view, WebResourceRequest request) {
        Resource found = site.answer(request.getMethod(), request.getUrl().toString());
        String reason = found.status == 200 ? "OK" : "Refused";
        ByteArrayInputStream body = new ByteArrayInputStream(found.body);
        return new WebResourceResponse(found.type, "utf-8", found.status, reason, Site.headers(), body);
    }

    /** Since Android 7. The page stays where it is; a link opens elsewhere if it was the user who tapped it. */
    public boolean shouldOverrideUrlLoading(WebView view, WebResourceRequest request) {
        String address = request.getUrl().toString();
        if (address.equals(Site.START)) return false;
        if (request.hasGesture() && Site.isForOthers(address)) window.openElsewhere(address);
        return true;
    }

    /** Since Android 8. Without it the app would end with the process that draws the page. */
    public boolean onRenderProcessGone(WebView view, RenderProcessGoneDetail detail) {
        window.reopenPage();
        return true;
    }
}
