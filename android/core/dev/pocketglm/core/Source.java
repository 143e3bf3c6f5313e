package dev.pocketglm.core;

import java.io.Closeable;
import java.io.IOException;
import java.io.InputStream;

/** What a package is imported from: an archive ({@link ZipSource}) or a folder. */
public interface Source {
    /** Of the archive, without ".zip", or of the folder; the package's where the files have no folder. */
    String name();

    /** Walks over the files from the start. May be called again: each walk opens what it needs afresh. */
    Walk walk() throws IOException;

    /** One file after the other. */
    interface Walk extends Closeable {
        /** The next file; null at the end. Ends the use of the entry before. */
        Entry next() throws IOException;
    }

    /** A file. */
    interface Entry {
        /** With its folders, divided by "/", as "smollm2-int4/manifest.json". */
        String path();

        /** Bytes; -1 where they are not known before they are read. */
        long size();

        /**
         * The file's bytes; called at most once, and closed by the caller before the next file. A stream that
         * can skip fast lets an interrupted import go on fast.
         */
        InputStream open() throws IOException;
    }
}
