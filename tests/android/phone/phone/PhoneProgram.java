package phone;

import android.app.Application;
import android.net.Uri;
import android.webkit.WebResourceRequest;
import android.webkit.WebResourceResponse;
import dev.pocketglm.core.Json;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Map;

/**
 * Runs the app on the fake phone: FILES LIBRARIES ASSETS are its folders. Each line of input is an object
 * whose `do` says what the user, the page or the system does. Ends with its input.
 */
public final class PhoneProgram {
    private static final String APPLICATION = "dev.pocketglm.app.PocketGLMApplication";
    private static final String WINDOW = "dev.pocketglm.app.MainActivity";

    private interface Step {
        void run() throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        System.setOut(new PrintStream(System.out, true, "UTF-8"));
        Phone.files = new File(arguments[0]);
        Phone.libraries = new File(arguments[1]);
        Phone.assets = new File(arguments[2]);
        Phone.hasNoWebView = arguments.length > 3;
        onMain(() -> {
            Phone.application = (Application) Class.forName(APPLICATION).getDeclaredConstructor().newInstance();
            Phone.application.onCreate();
            Phone.openWindow(Class.forName(WINDOW));
        });
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = lines.readLine()) != null; ) perform(Json.asObject(Json.read(line, 8)));
        System.exit(0);
    }

    private static void perform(Map<String, Object> step) throws Exception {
        String kind = (String) step.get("do");
        if (kind.equals("send")) send((String) step.get("text"));
        else if (kind.equals("get")) get((String) step.get("method"), (String) step.get("address"));
        else onMain(() -> performOnMain(kind, step));
    }

    private static void performOnMain(String kind, Map<String, Object> step) throws Exception {
        switch (kind) {
            case "choose":
                Phone.choose((String) step.get("path"));
                break;
            case "trim":
                Phone.application.onTrimMemory(((Long) step.get("level")).intValue());
                break;
            case "low memory":
                Phone.application.onLowMemory();
                break;
            case "turn": // as on a phone that makes the window anew
                Phone.closeWindow(false);
                Phone.openWindow(Class.forName(WINDOW));
                break;
            case "close":
                Phone.closeWindow(true);
                break;
            case "open":
                Phone.openWindow(Class.forName(WINDOW));
                break;
            case "back":
                Phone.canGoBack = (Boolean) step.get("hasHistory");
                Phone.window.onBackPressed();
                break;
            case "alone":
                Phone.hasNoOtherApps = true;
                break;
            case "kill page":
                boolean isHandled = Phone.page().client.onRenderProcessGone(Phone.page(), null);
                Phone.say("survived", isHandled);
                break;
            case "tap":
                tap((String) step.get("address"), (Boolean) step.get("gesture"));
                break;
            case "choose file":
                Phone.page().chrome.onShowFileChooser(Phone.page(),
                        files -> Phone.say("files", files == null ? null : files[0].toString()), null);
                break;
            case "screen":
                Phone.say("screenOn", Phone.page().keepsScreenOn);
                break;
            default:
                throw new IllegalArgumentException(kind);
        }
    }

    private static void tap(String address, boolean hasGesture) {
        Request request = new Request("GET", address, hasGesture);
        Phone.say("stays", Phone.page().client.shouldOverrideUrlLoading(Phone.page(), request));
    }

    /** As a WebView does, from a thread of its own. */
    private static void send(String text) throws Exception {
        Object bridge = Phone.page().bridge;
        Method method = bridge.getClass().getMethod("send", String.class);
        method.setAccessible(true);
        method.invoke(bridge, text);
    }

    private static void get(String method, String address) throws Exception {
        Request request = new Request(method, address, false);
        WebResourceResponse found = Phone.page().client.shouldInterceptRequest(Phone.page(), request);
        Phone.say("got", found == null ? null : Phone.values("status", found.status, "type", found.type,
                "headers", found.headers, "body", Base64.getEncoder().encodeToString(found.body.readAllBytes())));
    }

    /** Returns when it is done. */
    private static void onMain(Step step) throws Exception {
        Phone.later(() -> {
            try {
                step.run();
            } catch (Exception problem) {
                throw new IllegalStateException(problem);
            }
        }, 0).get();
    }

    private static final class Request implements WebResourceRequest {
        private final String method;
        private final String address;
        private final boolean hasGesture;

        Request(String method, String address, boolean hasGesture) {
            this.method = method;
            this.address = address;
            this.hasGesture = hasGesture;
        }

        @Override
        public Uri getUrl() {
            return Uri.parse(address);
        }

        @Override
        public String getMethod() {
            return method;
        }

        @Override
        public boolean hasGesture() {
            return hasGesture;
        }
    }
}
