package android.webkit;

/** Stands in for Android's class while compiling: it came with Android 8, the API's stubs are those of 6. */
public abstract class RenderProcessGoneDetail {}
