#include "package.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <set>
#include <utility>

#include "fields.h"
#include "refusal.h"
#include "stored_tensor.h"

namespace pocketglm::executable {

namespace {

constexpr const char* MANIFEST = "manifest.json";
constexpr const char* HEAD_FILE = "head.mnn.weight";
constexpr std::int64_t MAX_MANIFEST_BYTES = 64 << 20;
constexpr int MAX_BLOCKS = 1024;
// A manifest of 1024 blocks has about 200,000 values, 6 deep.
constexpr JsonLimits LIMITS{32, 2'000'000};
const std::string DAMAGED = "the package is damaged or was not made by pocketglm; convert or copy it again";

[[noreturn]] void refuse(const std::string& problem) { throw Refusal("package", problem); }

std::string joined(const std::vector<std::string>& names) {
    std::string text;
    for (std::size_t i = 0; i < names.size() && i < 4; ++i) text += (i == 0 ? "" : ", ") + names[i];
    return text;
}

std::string block_file(int block) {
    char name[40];
    std::snprintf(name, sizeof name, "block_%02d.mnn.weight", block);
    return name;
}

// [A-Za-z0-9][A-Za-z0-9._-]{0,127}, and not the manifest's name
bool is_file_name(const std::string& name) {
    const auto is_letter_or_digit = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    };
    const auto is_allowed = [&](char c) { return is_letter_or_digit(c) || c == '.' || c == '_' || c == '-'; };
    return !name.empty() && name.size() <= 128 && is_letter_or_digit(name[0]) &&
           std::all_of(name.begin(), name.end(), is_allowed) && name != MANIFEST;
}

bool is_digest(const std::string& text) {
    const auto is_hexadecimal = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    return text.size() == 64 && std::all_of(text.begin(), text.end(), is_hexadecimal);
}

// A descriptor that closes itself.
class File {
  public:
    explicit File(const std::string& path)
        : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
    ~File() {
        if (descriptor_ >= 0) ::close(descriptor_);
    }
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    int descriptor() const { return descriptor_; }
    int release() { return std::exchange(descriptor_, -1); }
    // Its size, or -1 for anything but a regular file.
    std::int64_t size() const {
        struct stat status{};
        if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) return -1;
        return status.st_size;
    }

  private:
    int descriptor_;
};

// Whether all bytes could be read.
bool read_at(int descriptor, std::uint64_t offset, std::size_t bytes, void* to) {
    for (std::size_t done = 0; done < bytes;) {
        const ssize_t count = ::pread(descriptor, static_cast<char*>(to) + done, bytes - done,
                                      static_cast<off_t>(offset + done));
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return false;
        done += static_cast<std::size_t>(count);
    }
    return true;
}

std::string read_manifest(const std::string& directory) {
    const std::string path = directory + "/" + MANIFEST;
    const File file(path);
    if (file.descriptor() < 0) {
        throw Refusal("package",
                      directory + ": no package here (" + MANIFEST + ": " + std::strerror(errno) + ")",
                      "name a directory made by `pocketglm convert`");
    }
    const std::int64_t size = file.size();
    if (size < 0) refuse(path + ": is not a regular file");
    if (size > MAX_MANIFEST_BYTES)
        refuse(path + ": is larger than " + std::to_string(MAX_MANIFEST_BYTES) + " bytes");
    std::string text(static_cast<std::size_t>(size), '\0');
    if (!read_at(file.descriptor(), 0, text.size(), text.data())) refuse(path + ": cannot be read");
    return text;
}

Json parse_manifest(const std::string& text) {
    const auto parsed = [&] {
        try {
            return Json::parse(text, LIMITS);
        } catch (const JsonError& error) {
            refuse(std::string("not valid JSON: ") + error.what());
        }
    };
    Json manifest = parsed();
    const Json *format = manifest.find("format"), *version = manifest.find("version");
    if (format == nullptr || format->text() == nullptr || *format->text() != "pocketglm-package")
        refuse("not a PocketGLM manifest (no \"format\": \"pocketglm-package\")");
    if (version == nullptr || version->integer() == nullptr || *version->integer() != 1) {
        throw Refusal("package",
                      "format version is " + (version == nullptr ? "missing" : version->brief()) +
                          ", this program reads version 1",
                      "upgrade the engine, or convert the checkpoint again");
    }
    return manifest;
}

const Json& member(const Json& manifest, const char* name) {
    const Json* found = manifest.find(name);
    if (found == nullptr || found->members() == nullptr) refuse(std::string(name) + " must be an object");
    return *found;
}

void check_optional_fields(const Json& manifest) {
    for (const char* name : {"source", "quantization", "graphs"})
        if (manifest.find(name) != nullptr) (void)member(manifest, name);
    const Json *fidelity = manifest.find("fidelity"), *graphs = manifest.find("graphs");
    if (fidelity != nullptr && !fidelity->is_null()) (void)member(manifest, "fidelity");
    if (graphs == nullptr) return;
    for (const JsonMember& graph : *graphs->members())
        if (graph.value.members() == nullptr) refuse("graphs: " + graph.name + " must be an object");
}

// The file is a regular file of exactly `size` bytes.
void check_file(const std::string& path, std::uint64_t size) {
    struct stat status{};
    if (::stat(path.c_str(), &status) != 0) refuse(path + ": cannot be read (" + std::strerror(errno) + ")");
    if (!S_ISREG(status.st_mode)) refuse(path + ": is not a regular file");
    if (static_cast<std::uint64_t>(status.st_size) != size) {
        refuse(path + ": is " + std::to_string(status.st_size) + " bytes, the manifest says " +
               std::to_string(size));
    }
}

const StoredTensor* find_tensor(const std::vector<StoredTensor>& tensors, const std::string& name) {
    const auto found = std::find_if(tensors.begin(), tensors.end(),
                                    [&](const StoredTensor& tensor) { return tensor.name == name; });
    return found == tensors.end() ? nullptr : &*found;
}

// The tensors are the model's: each once, no other, linear layers being linear layers.
void check_names(const std::string& file, const std::vector<StoredTensor>& tensors,
                 const std::vector<ExpectedTensor>& expected) {
    std::set<std::string> names, wanted;
    for (const StoredTensor& tensor : tensors) names.insert(tensor.name);
    for (const ExpectedTensor& tensor : expected) {
        wanted.insert(tensor.name);
        if (names.count(tensor.name) == 0) refuse(file + " lacks tensor " + tensor.name);
    }
    if (names.size() != tensors.size()) refuse(file + " lists a tensor twice");
    std::vector<std::string> extra;
    std::set_difference(names.begin(), names.end(), wanted.begin(), wanted.end(), std::back_inserter(extra));
    if (!extra.empty()) refuse(file + " lists tensors the model does not have: " + joined(extra));
}

void check_tensor(const std::string& file, const StoredTensor& tensor, const ExpectedTensor& expected) {
    const auto shape = [](std::int64_t rows, std::int64_t inputs, bool is_linear) {
        return "[" + std::to_string(rows) + (is_linear ? ", " + std::to_string(inputs) : "") + "]";
    };
    const bool wants_linear = expected.inputs != 0;
    if (tensor.is_linear != wants_linear || tensor.rows != expected.rows ||
        tensor.inputs != expected.inputs) {
        refuse(file + ": " + tensor.name + " has shape " +
               shape(tensor.rows, tensor.inputs, tensor.is_linear) + ", expected " +
               shape(expected.rows, expected.inputs, wants_linear));
    }
    if (!wants_linear) {
        if (tensor.offset % 4 != 0)
            refuse(file + ": " + tensor.name + " at " + std::to_string(tensor.offset) + " is not aligned");
        return;
    }
    if (tensor.bias != expected.bias) {
        refuse(file + ": " + tensor.name + (tensor.bias ? " has" : " lacks") +
               " a bias, the model's settings disagree");
    }
    if (tensor.codes_offset() % 64 != 0) {
        refuse(file + ": codes of " + tensor.name + " start at " + std::to_string(tensor.codes_offset()) +
               ", not on a 64-byte boundary");
    }
}

// The tensors, whose shapes are sound, lie inside the file and do not overlap.
void check_ranges(const std::string& file, std::uint64_t size, std::vector<StoredTensor> tensors) {
    std::sort(tensors.begin(), tensors.end(),
              [](const StoredTensor& a, const StoredTensor& b) { return a.offset < b.offset; });
    std::int64_t end = 0;
    std::string previous = "the start";
    for (const StoredTensor& tensor : tensors) {
        if (tensor.offset < end) {
            refuse(file + ": " + tensor.name + " at " + std::to_string(tensor.offset) + " overlaps " +
                   previous + ", which ends at " + std::to_string(end));
        }
        end = tensor.end();
        previous = tensor.name;
    }
    if (size < static_cast<std::uint64_t>(end)) {
        refuse(file + ": " + previous + " ends at byte " + std::to_string(end) + ", the file has " +
               std::to_string(size));
    }
}

}  // namespace

pglm_file WeightFileEntry::description() const {
    return {path.c_str(), size, window, static_cast<std::int32_t>(tensors.size()), tensors.data()};
}

Package::Package(const std::string& path) : path_(path) {
    if (path.empty() || path.find('\0') != path.npos)
        throw Refusal("request", "the path is empty or holds a zero");
    const std::string text = read_manifest(path);
    try {
        const Json manifest = parse_manifest(text);
        spec_ = std::make_unique<ModelSpec>(member(manifest, "model"));
        check_optional_fields(manifest);
        read_embedding_type(manifest);
        read_files(manifest);
        read_weights(manifest);
    } catch (const Refusal& refusal) {
        throw Refusal(refusal.code, path + "/" + MANIFEST + ": " + refusal.what(),
                      refusal.hint.empty() ? DAMAGED : refusal.hint);
    }
    for (const auto& [name, size] : files_) check_file(path + "/" + name, size);
    File embedding(path + (wide_embedding_ ? "/embedding.f32" : "/embedding.bf16"));
    if (embedding.size() < 0) refuse(path + ": the embedding cannot be opened");
    embedding_ = embedding.release();
}

Package::~Package() {
    if (embedding_ >= 0) ::close(embedding_);
}

void Package::read_embedding_type(const Json& manifest) {
    const Json* type = member(manifest, "embedding").find("dtype");
    const std::string* text = type == nullptr ? nullptr : type->text();
    wide_embedding_ = text != nullptr && *text == "float32";
    if (!wide_embedding_ && (text == nullptr || *text != "bfloat16")) {
        refuse("embedding dtype is " + (type == nullptr ? "missing" : type->brief()) +
               ", expected bfloat16 or float32");
    }
}

void Package::read_files(const Json& manifest) {
    for (const JsonMember& file : *member(manifest, "files").members()) {
        if (!is_file_name(file.name))
            refuse(json_string(file.name.substr(0, 80)) + " is not an allowed file name");
        const Json *size = file.value.find("size"), *digest = file.value.find("sha256");
        const bool sized = size != nullptr && size->integer() != nullptr && *size->integer() >= 0 &&
                           *size->integer() < SIZE_LIMIT;
        if (!sized || digest == nullptr || digest->text() == nullptr || !is_digest(*digest->text())) {
            refuse("files: " + file.name + " has size " + (size == nullptr ? "missing" : size->brief()) +
                   " and sha256 " + (digest == nullptr ? "missing" : digest->brief()));
        }
        files_[file.name] = static_cast<std::uint64_t>(*size->integer());
    }
    const std::uint64_t row = std::uint64_t{wide_embedding_ ? 4u : 2u} * spec_->hidden_size;
    const std::string embedding = wide_embedding_ ? "embedding.f32" : "embedding.bf16";
    const std::uint64_t wanted = row * spec_->vocab_size, found = listed_size(embedding);
    if (found != wanted)
        refuse(embedding + " is " + std::to_string(found) + " bytes, expected " + std::to_string(wanted));
}

std::uint64_t Package::listed_size(const std::string& name) const {
    const auto found = files_.find(name);
    if (found == files_.end()) refuse("files does not list " + name);
    return found->second;
}

void Package::read_weights(const Json& manifest) {
    if (spec_->num_blocks > MAX_BLOCKS) {
        refuse("num_blocks is " + std::to_string(spec_->num_blocks) + ", at most " +
               std::to_string(MAX_BLOCKS) + " are allowed");
    }
    const Json& weights = member(manifest, "weights");
    std::set<std::string> expected{HEAD_FILE};
    for (int block = 0; block < spec_->num_blocks; ++block) expected.insert(block_file(block));
    std::vector<std::string> difference;
    for (const JsonMember& file : *weights.members()) {
        if (!is_file_name(file.name))
            refuse(json_string(file.name.substr(0, 80)) + " is not an allowed file name");
        if (expected.erase(file.name) == 0) difference.push_back(file.name);
    }
    difference.insert(difference.end(), expected.begin(), expected.end());
    if (!difference.empty()) {
        refuse("weight files do not fit " + std::to_string(spec_->num_blocks) +
               " blocks: " + joined(difference));
    }
    for (int block = 0; block < spec_->num_blocks; ++block) {
        const std::string name = block_file(block);
        blocks_.push_back(read_weight_file(name, weights.find(name), block_tensors(*spec_)));
        blocks_.back().window = spec_->window_of(block);
    }
    head_ = read_weight_file(HEAD_FILE, weights.find(HEAD_FILE), head_tensors(*spec_));
}

WeightFileEntry Package::read_weight_file(const std::string& name, const Json* tensors,
                                          const std::vector<ExpectedTensor>& expected) const {
    if (tensors->items() == nullptr) refuse(name + " must be a list");
    std::vector<StoredTensor> stored;
    for (const Json& entry : *tensors->items()) stored.emplace_back(entry, name);
    check_names(name, stored, expected);
    WeightFileEntry file{path_ + "/" + name, listed_size(name), 0, {}};
    for (const ExpectedTensor& wanted : expected) {
        const StoredTensor& tensor = *find_tensor(stored, wanted.name);
        check_tensor(name, tensor, wanted);
        file.tensors.push_back(tensor.description(wanted.role));
    }
    check_ranges(name, file.size, std::move(stored));
    return file;
}

void Package::embed(const std::int32_t* tokens, int count, float* rows) const {
    const std::size_t hidden = spec_->hidden_size, element = wide_embedding_ ? 4 : 2;
    std::vector<std::uint8_t> row(hidden * element);
    const float scale = static_cast<float>(spec_->embedding_scale);
    for (int i = 0; i < count; ++i, rows += hidden) {
        if (!read_at(embedding_, row.size() * static_cast<std::uint64_t>(tokens[i]), row.size(), row.data()))
            refuse(path_ + ": the embedding of token " + std::to_string(tokens[i]) + " cannot be read");
        for (std::size_t j = 0; j < hidden; ++j) {
            std::uint32_t bits = 0;
            // bfloat16 is the upper half of a float32
            std::memcpy(reinterpret_cast<std::uint8_t*>(&bits) + (4 - element), &row[j * element], element);
            std::memcpy(&rows[j], &bits, sizeof bits);
            rows[j] *= scale;
        }
    }
}

}  // namespace pocketglm::executable
