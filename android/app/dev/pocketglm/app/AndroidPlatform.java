package dev.pocketglm.app;

import android.app.ActivityManager;
import android.content.ClipData;
import android.content.ClipboardManager;
import android.content.Context;
import android.content.Intent;
import android.content.pm.PackageManager;
import android.net.Uri;
import android.os.Build;
import android.os.StatFs;
import dev.pocketglm.core.Cores;
import dev.pocketglm.core.Device;
import dev.pocketglm.core.Platform;
import dev.pocketglm.core.ZipSource;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Executor;
import java.util.concurrent.Executors;

/** The phone, as the host sees it. */
final class AndroidPlatform implements Platform {
    private static final String ENGINE = "libpocketglm_engine.so";

    private final Context context;
    private final Pickers pickers;
    /** For providers of documents, which may be slow: the main thread draws. */
    private final Executor worker = Executors.newSingleThreadExecutor();

    AndroidPlatform(Context context, Pickers pickers) {
        this.context = context;
        this.pickers = pickers;
    }

    @Override
    public Device device() {
        ActivityManager.MemoryInfo memory = new ActivityManager.MemoryInfo();
        ((ActivityManager) context.getSystemService(Context.ACTIVITY_SERVICE)).getMemoryInfo(memory);
        boolean isChinese = Locale.getDefault().getLanguage().equals("zh");
        long storage = new StatFs(files().getPath()).getAvailableBytes();
        return new Device(version(), Build.VERSION.SDK_INT, isChinese ? "zh" : "en", memory.availMem,
                memory.totalMem, storage, Cores.count(), Cores.big());
    }

    /** Where backups do not look: models are too large for them and can be imported again. */
    @Override
    public File files() {
        return context.getNoBackupFilesDir();
    }

    /** Unpacked there by the system when the app is installed; nowhere else may an app start programs. */
    @Override
    public List<String> engineCommand() {
        return Collections.singletonList(new File(context.getApplicationInfo().nativeLibraryDir, ENGINE).getPath());
    }

    @Override
    public void pickZip(final Picked picked) {
        pickers.open(Pickers.anyFile(), new ForHost(picked) {
            @Override
            void use(final Uri document) {
                picked.source(new ZipSource(Documents.nameOf(context, document), new ZipSource.Opener() {
                    @Override
                    public InputStream open() throws IOException {
                        return Documents.open(context, document);
                    }
                }));
            }
        });
    }

    @Override
    public void pickFolder(final Picked picked) {
        pickers.open(new Intent(Intent.ACTION_OPEN_DOCUMENT_TREE), new ForHost(picked) {
            @Override
            void use(Uri tree) {
                picked.source(new TreeSource(context, tree));
            }
        });
    }

    @Override
    public void saveFile(String name, final String text, final Saved saved) {
        Intent intent = new Intent(Intent.ACTION_CREATE_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE);
        intent.setType(name.endsWith(".json") ? "application/json" : "text/plain");
        pickers.open(intent.putExtra(Intent.EXTRA_TITLE, name), new InWorker() {
            @Override
            void use(Uri document) {
                try (OutputStream stream = context.getContentResolver().openOutputStream(document)) {
                    if (stream == null) throw new IOException("the provider gave no stream");
                    stream.write(text.getBytes("UTF-8"));
                } catch (IOException problem) {
                    failed(problem.toString());
                    return;
                }
                saved.saved();
            }

            @Override
            public void cancelled() {
                saved.cancelled();
            }

            @Override
            public void failed(String problem) {
                saved.failed(problem);
            }
        });
    }

    @Override
    public void copyToClipboard(String text) throws IOException {
        try {
            ClipboardManager clipboard = (ClipboardManager) context.getSystemService(Context.CLIPBOARD_SERVICE);
            clipboard.setPrimaryClip(ClipData.newPlainText("PocketGLM", text));
        } catch (RuntimeException refused) { // larger than what processes may send each other, for one
            throw new IOException(refused.toString());
        }
    }

    private String version() {
        try {
            return context.getPackageManager().getPackageInfo(context.getPackageName(), 0).versionName;
        } catch (PackageManager.NameNotFoundException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    /** Uses what was chosen in the worker's thread. Providers are other apps: whatever they throw is a failure. */
    private abstract class InWorker implements Pickers.Chosen {
        abstract void use(Uri document);

        @Override
        public void chosen(final Uri document) {
            worker.execute(new Runnable() {
                @Override
                public void run() {
                    try {
                        use(document);
                    } catch (RuntimeException problem) {
                        failed(problem.toString());
                    }
                }
            });
        }
    }

    /** What the host is to import. */
    private abstract class ForHost extends InWorker {
        private final Picked picked;

        ForHost(Picked picked) {
            this.picked = picked;
        }

        @Override
        public void cancelled() {
            picked.cancelled();
        }

        @Override
        public void failed(String problem) {
            picked.failed(problem);
        }
    }
}
