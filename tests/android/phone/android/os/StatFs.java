package android.os;

import java.io.File;

public class StatFs {
    private final String path;

    public StatFs(String path) {
        this.path = path;
    }

    public long getAvailableBytes() {
        return new File(path).getUsableSpace();
    }
}
