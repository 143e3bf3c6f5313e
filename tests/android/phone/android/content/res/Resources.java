package android.content.res;

public class Resources {
    public class Theme {}

    public int getColor(int name, Theme theme) {
        return 0xff000000;
    }
}
