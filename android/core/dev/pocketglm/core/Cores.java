package dev.pocketglm.core;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/**
 * How many cores are worth a thread of the engine. Enters: /sys/devices/system/cpu. All threads wait for the
 * slowest at every layer, so that a small core costs more than it gives.
 */
public final class Cores {
    /** Cores at less than this of the fastest one's frequency are small: 2.0 of 2.4 GHz is a big core's. */
    private static final double BIG = 0.8;

    private static final int MOST_BIG = 8;

    private Cores() {}

    public static int count() {
        return Math.max(1, Runtime.getRuntime().availableProcessors());
    }

    /** At least 1; half of all where the system does not tell their frequencies. */
    public static int big() {
        return big(new File("/sys/devices/system/cpu"), count());
    }

    static int big(File folder, int cores) {
        List<Long> frequencies = new ArrayList<Long>();
        for (int core = 0; new File(folder, "cpu" + core).isDirectory(); core++) {
            long frequency = frequency(new File(folder, "cpu" + core + "/cpufreq/cpuinfo_max_freq"));
            if (frequency > 0) frequencies.add(frequency);
        }
        if (frequencies.isEmpty()) return Math.max(1, cores / 2);
        double least = BIG * Collections.max(frequencies);
        int big = 0;
        for (long frequency : frequencies) if (frequency >= least) big++;
        // One prime core alone is slower than it and its neighbours together.
        if (big == 1) big = Math.min(2, frequencies.size());
        return Math.min(big, MOST_BIG);
    }

    /** In kHz; 0 where it is not known. */
    private static long frequency(File file) {
        try (FileInputStream stream = new FileInputStream(file);
                BufferedReader reader = new BufferedReader(new InputStreamReader(stream, "US-ASCII"))) {
            String line = reader.readLine();
            return line == null ? 0 : Long.parseLong(line.trim());
        } catch (IOException | NumberFormatException unknown) {
            return 0;
        }
    }
}
