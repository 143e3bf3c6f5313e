package dev.pocketglm.core;

import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * The packages in the app's folder: ID is a complete one, ID.partial an interrupted import, ID.deleted one that
 * is being deleted. Each moves from one state to the next by a rename. Any thread may call.
 */
final class Packages {
    private static final String PARTIAL = ".partial";
    private static final String DELETED = ".deleted";
    /** The package's name; no listed file can be called so. */
    private static final String NAME_FILE = ".name";

    private static final int MOST_NAME = 80;

    private final File root;
    /** Manifests that were read, by folder name: they never change in place. */
    private final Map<String, Manifest> manifests = new HashMap<String, Manifest>();

    Packages(File root) {
        this.root = root;
        for (String name : names()) {
            if (name.endsWith(DELETED)) deleteQuietly(new File(root, name));
        }
    }

    /** Complete ones and interrupted imports, by name. */
    synchronized List<StoredPackage> list() {
        List<StoredPackage> found = new ArrayList<StoredPackage>();
        for (String name : names()) {
            boolean isPartial = name.endsWith(PARTIAL);
            String id = isPartial ? name.substring(0, name.length() - PARTIAL.length()) : name;
            if (Manifest.isId(id)) found.add(stored(id, !isPartial));
        }
        Collections.sort(found, new Comparator<StoredPackage>() {
            @Override
            public int compare(StoredPackage one, StoredPackage other) {
                int order = one.name.compareToIgnoreCase(other.name);
                return order != 0 ? order : one.id.compareTo(other.id);
            }
        });
        return found;
    }

    /** Failure `missing` where there is none; an interrupted import is one. */
    synchronized StoredPackage find(String id) throws Failure {
        if (Manifest.isId(id)) {
            if (place(id).isDirectory()) return stored(id, true);
            if (partial(id).isDirectory()) return stored(id, false);
        }
        throw Failure.missing(Call.brief(id));
    }

    /** Failure `missing` where there is none that can be used. */
    synchronized StoredPackage findComplete(String id) throws Failure {
        StoredPackage found = find(id);
        if (!found.isComplete || found.manifest == null) {
            throw new Failure("missing", "Package " + id + " is not imported to its end.");
        }
        return found;
    }

    synchronized StoredPackage rename(String id, String name) throws Failure {
        if (!isName(name)) throw Failure.request("A name has 1 to 80 characters, none of them for control.");
        StoredPackage found = find(id);
        try {
            writeName(found.folder, name);
        } catch (IOException problem) {
            throw Failure.internal(problem);
        }
        return find(id);
    }

    synchronized void delete(String id) throws Failure {
        File folder = find(id).folder;
        File deleted = new File(root, id + DELETED);
        try {
            if (deleted.exists()) Files.delete(deleted);
            Files.rename(folder, deleted); // from here on the package is gone, whatever happens
        } catch (IOException problem) {
            throw Failure.internal(problem);
        }
        manifests.remove(folder.getName());
        deleteQuietly(deleted);
    }

    /** The folder that an import of this manifest fills, made where it is new. */
    synchronized File begin(Manifest manifest, byte[] bytes, String name) throws IOException, Failure {
        if (place(manifest.id).isDirectory()) {
            if (stored(manifest.id, true).manifest != null) {
                throw new Failure("exists", "The package is imported already.").with("package", manifest.id);
            }
            delete(manifest.id);
        }
        File folder = partial(manifest.id);
        if (folder.isDirectory() && stored(manifest.id, false).manifest != null) return folder;
        Files.makeFolder(folder);
        writeName(folder, name);
        Files.write(new File(folder, Manifest.FILE), bytes);
        return folder;
    }

    /** All files of the import are there and right: the package gets its place. */
    synchronized StoredPackage finish(String id) throws IOException, Failure {
        Files.rename(partial(id), place(id));
        return find(id);
    }

    /** A name for a package, made of what a folder or an archive is called. */
    static String nameFrom(String text) {
        StringBuilder name = new StringBuilder();
        int characters = 0;
        for (int i = 0; i < text.length() && characters < MOST_NAME; characters++) {
            int character = text.codePointAt(i);
            if (!Character.isISOControl(character)) name.appendCodePoint(character);
            i += Character.charCount(character);
        }
        String trimmed = name.toString().trim();
        return trimmed.isEmpty() ? "package" : trimmed;
    }

    private static boolean isName(String text) {
        int characters = text.codePointCount(0, text.length());
        if (characters < 1 || characters > MOST_NAME || text.trim().isEmpty()) return false;
        for (int i = 0; i < text.length(); i++) if (Character.isISOControl(text.charAt(i))) return false;
        return true;
    }

    private String[] names() {
        String[] names = root.list();
        return names == null ? new String[0] : names;
    }

    private File place(String id) {
        return new File(root, id);
    }

    private File partial(String id) {
        return new File(root, id + PARTIAL);
    }

    private StoredPackage stored(String id, boolean isComplete) {
        File folder = isComplete ? place(id) : partial(id);
        Manifest manifest = manifestIn(folder, id);
        long copied = 0;
        if (manifest != null) {
            for (Map.Entry<String, Manifest.FileEntry> file : manifest.files.entrySet()) {
                copied += Math.min(file.getValue().size, new File(folder, file.getKey()).length());
            }
        }
        return new StoredPackage(id, nameIn(folder, id), isComplete && manifest != null, folder, manifest, copied);
    }

    /** null where the folder has none, or not that of this id. */
    private Manifest manifestIn(File folder, String id) {
        Manifest known = manifests.get(folder.getName());
        if (known != null) return known;
        try {
            byte[] bytes = Files.read(new File(folder, Manifest.FILE), Manifest.MOST_BYTES);
            Manifest manifest = Manifest.read(bytes);
            if (!manifest.id.equals(id)) return null;
            manifests.put(folder.getName(), manifest);
            return manifest;
        } catch (IOException unreadable) {
            return null;
        } catch (Failure notOne) {
            return null;
        }
    }

    private static String nameIn(File folder, String id) {
        try {
            return nameFrom(new String(Files.read(new File(folder, NAME_FILE), 1 << 10), Json.UTF_8));
        } catch (IOException unreadable) {
            return id;
        }
    }

    private static void writeName(File folder, String name) throws IOException {
        Files.write(new File(folder, NAME_FILE), name.getBytes(Json.UTF_8));
    }

    /** What is left is deleted at the app's next start. */
    private static void deleteQuietly(File folder) {
        try {
            Files.delete(folder);
        } catch (IOException left) {
            // see above
        }
    }
}
