package android.content;

import android.app.ActivityManager;
import android.content.pm.ApplicationInfo;
import android.content.pm.PackageManager;
import android.content.res.AssetManager;
import android.content.res.Resources;
import java.io.File;
import phone.Phone;

public class Context {
    public ContentResolver getContentResolver() {
        return new ContentResolver();
    }

    public Object getSystemService(String name) {
        if (name.equals("activity")) return new ActivityManager();
        if (name.equals("clipboard")) return new ClipboardManager();
        return null;
    }

    public String getPackageName() {
        return "dev.pocketglm.app";
    }

    public PackageManager getPackageManager() {
        return new PackageManager();
    }

    public File getNoBackupFilesDir() {
        return Phone.files;
    }

    public ApplicationInfo getApplicationInfo() {
        ApplicationInfo info = new ApplicationInfo();
        info.nativeLibraryDir = Phone.libraries.getPath();
        return info;
    }

    public AssetManager getAssets() {
        return new AssetManager();
    }

    public Resources getResources() {
        return new Resources();
    }

    public Resources.Theme getTheme() {
        return new Resources().new Theme();
    }
}
