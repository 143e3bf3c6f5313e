// Fuzz target: a package directory with any manifest and one damaged file is refused, or loads and runs.
//
// POCKETGLM_FUZZ_PACKAGE names a sound package; its files stay beside the fuzzed manifest. The input is 4
// bytes (what is done to which file, and where), then the manifest.
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "model.h"
#include "refusal.h"

namespace {

namespace fs = std::filesystem;
using pocketglm::executable::LoadOptions;
using pocketglm::executable::Model;
using pocketglm::executable::Refusal;

// A copy of the sound package, for this process alone.
class Folder {
  public:
    Folder() : path_(fs::temp_directory_path() / ("pocketglm-fuzz-" + std::to_string(::getpid()))) {
        const char* given = std::getenv("POCKETGLM_FUZZ_PACKAGE");
        if (given == nullptr) throw std::runtime_error("POCKETGLM_FUZZ_PACKAGE is not set");
        sound_ = given;
        fs::remove_all(path_);
        fs::copy(sound_, path_);
        for (const auto& entry : fs::directory_iterator(sound_))
            if (entry.path().filename() != "manifest.json") names_.push_back(entry.path().filename());
    }
    ~Folder() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }

    std::string path() const { return path_.string(); }
    void write_manifest(const std::uint8_t* data, std::size_t size) const {
        std::ofstream file(path_ / "manifest.json", std::ios::binary | std::ios::trunc);
        file.write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
    }
    // Damages one file; `repair` undoes it.
    void damage(int kind, int which, int place) {
        damaged_ = path_ / names_[which % names_.size()];
        const auto size = fs::file_size(damaged_);
        if (kind % 4 == 1) fs::resize_file(damaged_, place % (size + 1));
        if (kind % 4 != 2 || size == 0) return;
        std::fstream file(damaged_, std::ios::binary | std::ios::in | std::ios::out);
        file.seekp(static_cast<std::streamoff>(place % size));
        file.write("\xff\xff\xff\xff", 1 + kind / 4 % 4);
    }
    void repair() const {
        fs::copy_file(sound_ / damaged_.filename(), damaged_, fs::copy_options::overwrite_existing);
    }

  private:
    fs::path path_, sound_, damaged_;
    std::vector<fs::path> names_;
};

void load_and_run(const std::string& path) {
    LoadOptions options;
    options.package = path;
    options.threads = 1;
    try {
        Model model(options);
        const std::atomic<bool> stopped{false};
        const std::vector<std::int32_t> tokens{0, 0, 0};
        model.forward(tokens.data(), 3, stopped);
        model.reuse({0, 0});
        model.forward(tokens.data(), 1, stopped);
    } catch (const Refusal&) {
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static Folder folder;
    if (size < 4) return 0;
    folder.write_manifest(data + 4, size - 4);
    const bool damages = data[0] % 4 == 1 || data[0] % 4 == 2;
    if (damages) folder.damage(data[0], data[1], data[2] * 256 + data[3]);
    load_and_run(folder.path());
    if (damages) folder.repair();
    return 0;
}
