package dev.pocketglm.core;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.Map;
import java.util.Set;

/**
 * One import. Enters: a source. Leaves: a package in its place, every byte of it held against the manifest, or
 * a Failure and what was copied so far, which the next import of the same package goes on with.
 */
final class Import {
    /** A phone without any free storage does not work well, nor does the page, which keeps conversations. */
    private static final long KEPT_STORAGE = 256 << 20;

    private final Source source;
    private final Platform platform;
    private final Packages packages;
    private final Progress progress;
    private final Set<String> done = new HashSet<String>();
    private volatile boolean isCancelled;
    private volatile String id;
    private Manifest manifest;
    private File folder;
    /** Of the package in the source, with a "/" at its end, or "". */
    private String prefix;

    Import(Source source, Platform platform, Packages packages, Outbox outbox) {
        this.source = source;
        this.platform = platform;
        this.packages = packages;
        this.progress = new Progress(outbox);
    }

    void cancel() {
        isCancelled = true;
    }

    /** null while it is not known. */
    String packageId() {
        return id;
    }

    StoredPackage perform() throws Failure {
        byte[] bytes = findManifest();
        id = manifest.id;
        try {
            folder = packages.begin(manifest, bytes, packageName());
            progress.begin(manifest);
            keepWhatIsThere();
            checkStorage();
            // A file whose half from before was wrong is copied anew in a second walk.
            copyFiles();
            if (done.size() < manifest.files.size()) copyFiles();
            checkAllThere();
            return packages.finish(id);
        } catch (IOException problem) {
            throw storageFailure(problem);
        }
    }

    static Failure unreadable(String problem, String file) {
        return new Failure("source", "The source cannot be read: " + problem).with("file", file);
    }

    /** The first manifest of a package in the source. Returns its bytes. */
    private byte[] findManifest() throws Failure {
        Failure problem = new Failure("package", "There is no package in it: no manifest.json.");
        problem.with("file", Manifest.FILE);
        try (Source.Walk walk = source.walk()) {
            for (Source.Entry entry; (entry = walk.next()) != null; ) {
                checkCancelled();
                if (!isManifest(entry.path())) continue;
                try (InputStream stream = entry.open()) {
                    byte[] bytes = Files.read(stream, Manifest.MOST_BYTES + 1);
                    manifest = Manifest.read(bytes);
                    prefix = entry.path().substring(0, entry.path().length() - Manifest.FILE.length());
                    return bytes;
                } catch (Failure refused) {
                    problem = refused; // another program's, perhaps; a package's may follow
                }
            }
        } catch (IOException unreadable) {
            throw unreadable(unreadable.getMessage(), null);
        }
        throw problem;
    }

    private static boolean isManifest(String path) {
        return path.equals(Manifest.FILE) || path.endsWith("/" + Manifest.FILE);
    }

    /** The folder's name in the source, else the source's. */
    private String packageName() {
        String[] folders = prefix.split("/");
        String last = folders[folders.length - 1];
        return Packages.nameFrom(last.isEmpty() || last.equals(".") || last.equals("..") ? source.name() : last);
    }

    /** Whole files of an interrupted import are checked and kept; wrong ones go. */
    private void keepWhatIsThere() throws Failure, IOException {
        for (Map.Entry<String, Manifest.FileEntry> listed : manifest.files.entrySet()) {
            FileCopy copy = copyOf(listed.getKey());
            if (copy.isWhole() && copy.isRight()) {
                done.add(listed.getKey());
            }
            progress.add(listed.getKey(), copy.length());
        }
    }

    private void checkStorage() throws Failure {
        long needed = manifest.bytes - progress.bytes(), free = freeStorage();
        if (needed > free) throw noStorage(needed, free);
    }

    private void copyFiles() throws Failure, IOException {
        Set<String> tried = new LinkedHashSet<String>();
        try (Source.Walk walk = openWalk()) {
            while (done.size() < manifest.files.size()) {
                Source.Entry entry = nextEntry(walk);
                if (entry == null) return;
                String name = nameOf(entry);
                // Of a name that comes twice, the first counts.
                if (name != null && !done.contains(name) && tried.add(name)) copy(entry, name);
            }
        }
    }

    private Source.Walk openWalk() throws Failure {
        try {
            return source.walk();
        } catch (IOException problem) {
            throw unreadable(problem.getMessage(), null);
        }
    }

    private Source.Entry nextEntry(Source.Walk walk) throws Failure {
        checkCancelled();
        try {
            return walk.next();
        } catch (IOException problem) {
            throw unreadable(problem.getMessage(), null);
        }
    }

    /** Of a file of the package; null for every other one. What is made of it is always a name that is listed. */
    private String nameOf(Source.Entry entry) {
        String path = entry.path();
        if (!path.startsWith(prefix)) return null;
        String name = path.substring(prefix.length());
        return manifest.files.containsKey(name) ? name : null;
    }

    private void copy(Source.Entry entry, String name) throws Failure, IOException {
        FileCopy copy = copyOf(name);
        long before = copy.length();
        boolean isRight = copy.fill(entry);
        if (isRight) {
            done.add(name);
            return;
        }
        progress.add(name, -copy.length());
        copy.delete();
        if (before == 0) throw damaged(name);
    }

    private FileCopy copyOf(String name) {
        return new FileCopy(new File(folder, name), name, manifest.files.get(name), this);
    }

    private void checkAllThere() throws Failure {
        for (String name : manifest.files.keySet()) if (!done.contains(name)) throw damaged(name);
    }

    static Failure damaged(String name) {
        return new Failure("damaged", name + " is missing, or not as the manifest says.").with("file", name);
    }

    /** Of each part of a file that is copied. */
    void copied(String name, int bytes) throws Failure {
        progress.add(name, bytes);
        checkCancelled();
    }

    void checkCancelled() throws Failure {
        if (isCancelled) throw new Failure("cancelled", "The import was cancelled.");
    }

    /** Why the app's own folder cannot be written: it is full, most likely. */
    private Failure storageFailure(IOException problem) {
        long needed = manifest.bytes - progress.bytes(), free = freeStorage();
        String text = String.valueOf(problem.getMessage());
        boolean isFull = text.contains("ENOSPC") || text.contains("No space left") || needed > free;
        return isFull ? noStorage(needed, free) : Failure.internal(problem);
    }

    private long freeStorage() {
        return Math.max(0, platform.device().freeStorage - KEPT_STORAGE);
    }

    private static Failure noStorage(long needed, long free) {
        return new Failure("storage", "There is too little free storage.").with("needed", needed).with("free", free);
    }
}
