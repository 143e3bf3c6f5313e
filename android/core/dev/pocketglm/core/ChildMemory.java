package dev.pocketglm.core;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStreamReader;

/** Memory that this process's children hold for themselves: /proc, where an app sees its own processes. */
final class ChildMemory {
    private static final File PROC = new File("/proc");

    private ChildMemory() {}

    /** Bytes; 0 where the system does not say (Linux before 4.5). */
    static long anonymous() {
        String[] names = PROC.list();
        String own = ownId();
        if (names == null || own == null) return 0;
        long sum = 0;
        for (String name : names) {
            if (Character.isDigit(name.charAt(0))) sum += anonymousOf(new File(PROC, name + "/status"), own);
        }
        return sum;
    }

    private static String ownId() {
        try {
            return new File(PROC, "self").getCanonicalFile().getName();
        } catch (IOException hidden) {
            return null;
        }
    }

    /** 0 where it is no child of `parent`, or gone. */
    private static long anonymousOf(File status, String parent) {
        try (FileInputStream stream = new FileInputStream(status);
                BufferedReader reader = new BufferedReader(new InputStreamReader(stream, "ISO-8859-1"))) {
            for (String line; (line = reader.readLine()) != null; ) {
                String value = line.substring(line.indexOf(':') + 1).trim();
                if (line.startsWith("PPid:") && !value.equals(parent)) return 0;
                if (line.startsWith("RssAnon:")) return 1024 * Long.parseLong(value.replace(" kB", ""));
            }
        } catch (IOException gone) {
            return 0;
        } catch (NumberFormatException unknown) {
            return 0;
        }
        return 0;
    }
}
