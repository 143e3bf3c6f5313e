package dev.pocketglm.core;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.regex.Pattern;

/**
 * A package's manifest.json, as far as the host needs it: which files there are, and the model's sizes. What is
 * checked is what copying and planning rely on; the engine checks the rest when it loads (docs/package-format.md).
 */
final class Manifest {
    static final String FILE = "manifest.json";
    static final String TEMPLATE_FILE = "chat_template.jinja";
    static final String HEAD_FILE = "head.mnn.weight";
    static final int MOST_BYTES = 64 << 20;

    private static final int MOST_DEPTH = 32;
    private static final int MOST_BLOCKS = 1024;
    private static final int MOST_DIMENSION = 1 << 24;
    private static final long MOST_SIZE = (1L << 48) - 1;
    private static final int ID_DIGITS = 16;
    private static final Pattern NAME = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,127}");
    private static final Pattern DIGEST = Pattern.compile("[0-9a-f]{64}");

    /** A listed file: its bytes, and their SHA-256 in hexadecimal digits. */
    static final class FileEntry {
        final long size;
        final String sha256;

        FileEntry(long size, String sha256) {
            this.size = size;
            this.sha256 = sha256;
        }
    }

    /** The package's, made of the manifest's bytes. */
    final String id;
    final String family;
    final int vocabSize;
    final int hiddenSize;
    final int numBlocks;
    final int numHeads;
    final int numKvHeads;
    final int headDim;
    final int intermediateSize;
    final int maxContext;
    /** Whether the prompt is one bidirectional context, computed in one piece. */
    final boolean hasPrefix;
    /** By name, in the manifest's order. */
    final Map<String, FileEntry> files;
    /** Of all files. */
    final long bytes;

    /** Failure `package` where the bytes are no manifest, or one that this app does not know. */
    static Manifest read(byte[] bytes) throws Failure {
        if (bytes.length > MOST_BYTES) throw refusal("it is larger than 64 MiB");
        try {
            Map<String, Object> manifest = Json.asObject(Json.read(bytes, MOST_DEPTH));
            if (manifest == null) throw refusal("it is not an object");
            return new Manifest(idOf(bytes), manifest);
        } catch (JsonException problem) {
            throw refusal("it is not JSON: " + problem.getMessage());
        }
    }

    static String idOf(byte[] bytes) {
        return Hashes.sha256(bytes).substring(0, ID_DIGITS);
    }

    static boolean isId(String text) {
        return text.matches("[0-9a-f]{" + ID_DIGITS + "}");
    }

    static String blockFile(int block) {
        return (block < 10 ? "block_0" : "block_") + block + ".mnn.weight";
    }

    private Manifest(String id, Map<String, Object> manifest) throws Failure {
        this.id = id;
        if (!"pocketglm-package".equals(manifest.get("format"))) throw refusal("it is not PocketGLM's");
        if (!Long.valueOf(1).equals(manifest.get("version"))) {
            throw refusal("its version is " + Call.brief(Json.write(manifest.get("version"))) + ", known is 1");
        }
        Map<String, Object> model = member(manifest, "model");
        Object name = model.get("family");
        if (!(name instanceof String)) throw refusal("model.family is no string");
        family = (String) name;
        vocabSize = dimension(model, "vocab_size");
        hiddenSize = dimension(model, "hidden_size");
        numBlocks = dimension(model, "num_blocks");
        numHeads = dimension(model, "num_heads");
        numKvHeads = dimension(model, "num_kv_heads");
        headDim = dimension(model, "head_dim");
        intermediateSize = dimension(model, "intermediate_size");
        maxContext = dimension(model, "max_context");
        hasPrefix = "glm_2d".equals(model.get("positions"));
        if (numHeads % numKvHeads != 0 || (long) numHeads * headDim > MOST_DIMENSION) {
            throw refusal("the heads are not as they should be");
        }
        if (numBlocks > MOST_BLOCKS) throw refusal("it has more than " + MOST_BLOCKS + " blocks");
        files = Collections.unmodifiableMap(readFiles(member(manifest, "files")));
        long sum = 0;
        for (FileEntry file : files.values()) sum += file.size;
        bytes = sum;
        checkFiles(member(manifest, "embedding").get("dtype"));
    }

    private static Map<String, FileEntry> readFiles(Map<String, Object> listed) throws Failure {
        Map<String, FileEntry> files = new LinkedHashMap<String, FileEntry>();
        for (Map.Entry<String, Object> entry : listed.entrySet()) {
            String name = entry.getKey();
            if (!NAME.matcher(name).matches() || name.equals(FILE)) {
                throw refusal("a file's name is not allowed: " + Call.brief(name));
            }
            Map<String, Object> file = Json.asObject(entry.getValue());
            Long size = file == null ? null : Json.asLong(file.get("size"), 0, MOST_SIZE);
            Object digest = file == null ? null : file.get("sha256");
            if (size == null || !(digest instanceof String) || !DIGEST.matcher((String) digest).matches()) {
                throw refusal("size or hash of " + name + " are not as they should be");
            }
            files.put(name, new FileEntry(size, (String) digest));
        }
        return files;
    }

    /** The model's files are listed, and the embedding has its size. */
    private void checkFiles(Object embeddingType) throws Failure {
        for (int block = 0; block < numBlocks; block++) fileNamed(blockFile(block));
        fileNamed(HEAD_FILE);
        boolean isWide = "float32".equals(embeddingType);
        if (!isWide && !"bfloat16".equals(embeddingType)) throw refusal("the embedding's type is not known");
        String name = isWide ? "embedding.f32" : "embedding.bf16";
        if (fileNamed(name).size != (isWide ? 4L : 2L) * vocabSize * hiddenSize) {
            throw refusal(name + " has not the model's size");
        }
    }

    FileEntry fileNamed(String name) throws Failure {
        FileEntry file = files.get(name);
        if (file == null) throw refusal(name + " is not listed");
        return file;
    }

    boolean hasTemplate() {
        return files.containsKey(TEMPLATE_FILE);
    }

    private static Map<String, Object> member(Map<String, Object> manifest, String name) throws Failure {
        Map<String, Object> found = Json.asObject(manifest.get(name));
        if (found == null) throw refusal(name + " is no object");
        return found;
    }

    private static int dimension(Map<String, Object> model, String name) throws Failure {
        Long value = Json.asLong(model.get(name), 1, MOST_DIMENSION);
        if (value == null) throw refusal("model." + name + " is no integer from 1 to 2^24");
        return value.intValue();
    }

    private static Failure refusal(String problem) {
        return new Failure("package", "manifest.json: " + problem + ".").with("file", FILE);
    }
}
