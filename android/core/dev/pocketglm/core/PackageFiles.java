package dev.pocketglm.core;

import java.io.File;
import java.io.IOException;
import java.util.Arrays;
import java.util.List;

/** The small files that the page reads itself: GET /packages/ID/NAME. */
final class PackageFiles {
    private static final List<String> NAMES =
            Arrays.asList(Manifest.FILE, "tokenizer.json", Manifest.TEMPLATE_FILE, "generation.json");

    /** The largest tokenizers have 30 MiB. */
    private static final int MOST_BYTES = 64 << 20;

    private PackageFiles() {}

    static Resource open(Packages packages, String path) {
        String[] parts = path.split("/", -1);
        boolean isFile = parts.length == 4 && parts[0].isEmpty() && parts[1].equals("packages");
        if (!isFile || !NAMES.contains(parts[3])) return Resource.refused(403);
        try {
            return read(packages.findComplete(parts[2]), parts[3]);
        } catch (Failure missing) {
            return Resource.refused(404);
        }
    }

    private static Resource read(StoredPackage found, String name) {
        Manifest.FileEntry file = found.manifest.files.get(name);
        boolean isManifest = name.equals(Manifest.FILE);
        if (file == null && !isManifest) return Resource.refused(404);
        try {
            byte[] bytes = Files.read(new File(found.folder, name), MOST_BYTES);
            boolean isWhole =
                    isManifest ? Manifest.idOf(bytes).equals(found.id) : Hashes.sha256(bytes).equals(file.sha256);
            if (!isWhole) return Resource.refused(500);
            return new Resource(200, name.endsWith(".json") ? "application/json" : "text/plain", bytes);
        } catch (IOException unreadable) {
            return Resource.refused(500);
        }
    }
}
