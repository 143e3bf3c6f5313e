package android.util;

import java.util.ArrayList;
import java.util.TreeMap;

public class SparseArray<E> {
    private final TreeMap<Integer, E> entries = new TreeMap<>();

    public int size() {
        return entries.size();
    }

    public int keyAt(int index) {
        return new ArrayList<>(entries.keySet()).get(index);
    }

    public E get(int key) {
        return entries.get(key);
    }

    public void put(int key, E value) {
        entries.put(key, value);
    }

    public void remove(int key) {
        entries.remove(key);
    }
}
