package android.content;

import android.net.Uri;
import java.util.LinkedHashMap;
import java.util.Map;

public class Intent {
    private final Map<String, Object> said = new LinkedHashMap<>();
    private Uri data;

    public Intent(String action) {
        said.put("action", action);
    }

    public Intent(String action, Uri data) {
        this(action);
        setData(data);
    }

    public Intent addCategory(String category) {
        said.put("category", category);
        return this;
    }

    public Intent setType(String type) {
        said.put("type", type);
        return this;
    }

    public Intent putExtra(String name, String value) {
        said.put(name, value);
        return this;
    }

    public Intent setData(Uri data) {
        this.data = data;
        said.put("data", data.toString());
        return this;
    }

    public Uri getData() {
        return data;
    }

    public Map<String, Object> describe() {
        return said;
    }
}
