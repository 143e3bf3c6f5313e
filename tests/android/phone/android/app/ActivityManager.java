package android.app;

public class ActivityManager {
    public static class MemoryInfo {
        public long availMem;
        public long totalMem;
    }

    public void getMemoryInfo(MemoryInfo info) {
        info.availMem = 3L << 30;
        info.totalMem = 8L << 30;
    }
}
