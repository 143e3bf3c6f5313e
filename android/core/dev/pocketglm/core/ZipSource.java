package dev.pocketglm.core;

import java.io.IOException;
import java.io.InputStream;
import java.util.Locale;

/** A ZIP archive, read from its start to its end, so that it may come from anywhere. */
public final class ZipSource implements Source {
    /** Opens the archive's bytes at their start. A stream that can jump (a file's) makes a walk fast. */
    public interface Opener {
        InputStream open() throws IOException;
    }

    private final String name;
    private final Opener opener;

    /** `fileName` as the user sees it, "smollm2-int4.zip" say. */
    public ZipSource(String fileName, Opener opener) {
        boolean hasEnding = fileName.toLowerCase(Locale.ROOT).endsWith(".zip");
        this.name = hasEnding ? fileName.substring(0, fileName.length() - 4) : fileName;
        this.opener = opener;
    }

    @Override
    public String name() {
        return name;
    }

    @Override
    public Walk walk() throws IOException {
        return new ZipWalk(opener.open());
    }
}
