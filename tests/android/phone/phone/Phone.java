package phone;

import android.app.Activity;
import android.app.Application;
import android.content.Intent;
import android.net.Uri;
import android.webkit.WebView;
import dev.pocketglm.core.Json;
import java.io.File;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;

/** A phone with one app on it: its main thread, folders, pickers. What happens is told as lines of JSON. */
public final class Phone {
    public static File files;
    public static File libraries;
    public static File assets;
    public static Application application;
    public static Activity window;
    public static boolean canGoBack;
    public static boolean hasNoWebView;
    public static boolean hasNoOtherApps;

    private static Thread mainThread;
    private static int openRequest;
    private static final ScheduledExecutorService MAIN =
            Executors.newSingleThreadScheduledExecutor(task -> mainThread = new Thread(task, "main"));

    private Phone() {}

    /** Runs it on the main thread. What it throws ends the phone, as it ends an app. */
    public static Future<?> later(Runnable task, long milliseconds) {
        Runnable guarded = () -> {
            try {
                task.run();
            } catch (Throwable problem) {
                problem.printStackTrace();
                System.exit(3);
            }
        };
        return MAIN.schedule(guarded, milliseconds, TimeUnit.MILLISECONDS);
    }

    public static void requireMain() {
        if (Thread.currentThread() != mainThread) throw new IllegalStateException("not the main thread");
    }

    public static void say(String what, Object value) {
        String line = Json.write(Collections.singletonMap(what, value));
        synchronized (System.out) {
            System.out.println(line);
            System.out.flush();
        }
    }

    public static void openPicker(Intent intent, int request) {
        openRequest = request;
        say("picker", intent.describe());
    }

    /** The user chooses a file or folder in the picker; null: goes back. */
    static void choose(String path) {
        Intent data = path == null ? null : new Intent("").setData(Uri.parse("content://one/" + path));
        window.result(openRequest, path == null ? 0 : -1, data);
    }

    static WebView page() {
        return (WebView) window.content;
    }

    static void openWindow(Class<?> kind) throws ReflectiveOperationException {
        window = (Activity) kind.getDeclaredConstructor().newInstance();
        window.create();
    }

    static void closeWindow(boolean forGood) {
        window.isFinishing = forGood;
        window.destroy();
    }

    static Map<String, Object> values(Object... namesAndValues) {
        Map<String, Object> made = new LinkedHashMap<>();
        for (int i = 0; i < namesAndValues.length; i += 2) made.put((String) namesAndValues[i], namesAndValues[i + 1]);
        return made;
    }
}
