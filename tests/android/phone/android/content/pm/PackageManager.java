package android.content.pm;

public class PackageManager {
    public static class NameNotFoundException extends Exception {
        private static final long serialVersionUID = 1;
    }

    public PackageInfo getPackageInfo(String name, int flags) throws NameNotFoundException {
        if (!name.equals("dev.pocketglm.app")) throw new NameNotFoundException();
        PackageInfo info = new PackageInfo();
        info.versionName = "1.2.3";
        return info;
    }
}
