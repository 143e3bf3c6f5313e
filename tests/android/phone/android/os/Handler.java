package android.os;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import phone.Phone;

public class Handler {
    private final Map<Runnable, Future<?>> waiting = new ConcurrentHashMap<>();

    public Handler(Looper looper) {}

    public final boolean post(Runnable task) {
        Phone.later(task, 0);
        return true;
    }

    public final boolean postDelayed(Runnable task, long milliseconds) {
        waiting.put(task, Phone.later(task, milliseconds));
        return true;
    }

    public final void removeCallbacks(Runnable task) {
        Future<?> old = waiting.remove(task);
        if (old != null) old.cancel(false);
    }
}
