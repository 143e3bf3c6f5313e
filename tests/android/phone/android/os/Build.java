package android.os;

public class Build {
    public static class VERSION {
        /** Not a constant to the compiler. */
        public static final int SDK_INT = Integer.parseInt("34");
    }
}
