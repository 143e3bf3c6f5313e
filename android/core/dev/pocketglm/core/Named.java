package dev.pocketglm.core;

import java.util.concurrent.ThreadFactory;

/** Threads of one name, which do not keep a process alive. */
final class Named implements ThreadFactory {
    private final String name;

    Named(String name) {
        this.name = name;
    }

    @Override
    public Thread newThread(Runnable task) {
        Thread thread = new Thread(task, "pocketglm-" + name);
        thread.setDaemon(true);
        return thread;
    }

    static Thread start(String name, Runnable task) {
        Thread thread = new Named(name).newThread(task);
        thread.start();
        return thread;
    }
}
