package dev.pocketglm.desktop;

import dev.pocketglm.core.Source;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Iterator;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** A folder with all that is in it, in order of names. */
final class FolderSource implements Source {
    /** Opens a file's bytes. */
    interface Opener {
        InputStream open(File file) throws IOException;
    }

    private final Path folder;
    private final Opener opener;

    FolderSource(File folder, Opener opener) {
        this.folder = folder.toPath();
        this.opener = opener;
    }

    @Override
    public String name() {
        return folder.getFileName().toString();
    }

    @Override
    public Walk walk() throws IOException {
        try (Stream<Path> found = Files.walk(folder)) {
            List<Path> files = found.filter(Files::isRegularFile).sorted().collect(Collectors.toList());
            return new FolderWalk(files.iterator());
        }
    }

    private final class FolderWalk implements Walk {
        private final Iterator<Path> files;

        FolderWalk(Iterator<Path> files) {
            this.files = files;
        }

        @Override
        public Entry next() {
            return files.hasNext() ? new FolderEntry(files.next()) : null;
        }

        @Override
        public void close() {}
    }

    private final class FolderEntry implements Entry {
        private final Path file;

        FolderEntry(Path file) {
            this.file = file;
        }

        @Override
        public String path() {
            return folder.relativize(file).toString();
        }

        @Override
        public long size() {
            return file.toFile().length();
        }

        @Override
        public InputStream open() throws IOException {
            return opener.open(file.toFile());
        }
    }
}
