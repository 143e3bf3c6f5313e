package dev.pocketglm.core;

import java.io.File;
import java.util.Map;

/** A package in the app's folder, or what is left of an interrupted import. */
final class StoredPackage {
    final String id;
    final String name;
    final boolean isComplete;
    final File folder;
    /** null where the folder holds none that can be read: it can only be deleted then. */
    final Manifest manifest;
    /** Bytes of its files that are there. */
    final long copied;

    StoredPackage(String id, String name, boolean isComplete, File folder, Manifest manifest, long copied) {
        this.id = id;
        this.name = name;
        this.isComplete = isComplete;
        this.folder = folder;
        this.manifest = manifest;
        this.copied = copied;
    }

    /** As docs/android-bridge.md says. */
    Map<String, Object> toJson() {
        boolean isKnown = manifest != null;
        return Json.object(
                "id", id,
                "name", name,
                "complete", isComplete,
                "bytes", isKnown ? manifest.bytes : copied,
                "copied", copied,
                "family", isKnown ? manifest.family : "",
                "blocks", isKnown ? manifest.numBlocks : 0,
                "contextLength", isKnown ? manifest.maxContext : 0,
                "template", isKnown && manifest.hasTemplate());
    }
}
