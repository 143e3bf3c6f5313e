package android.content.res;

import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import phone.Phone;

public class AssetManager {
    public InputStream open(String name) throws IOException {
        return new FileInputStream(new File(Phone.assets, name));
    }
}
