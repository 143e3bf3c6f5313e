// A file mapped read-only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace pocketglm {

class MappedFile {
  public:
    MappedFile() = default;
    // Throws `Failure` where the file cannot be mapped or is not exactly `size` bytes.
    MappedFile(const std::string& path, std::uint64_t size);
    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;
    ~MappedFile();

    const std::uint8_t* data() const { return static_cast<const std::uint8_t*>(start_); }
    std::size_t size() const { return size_; }

  private:
    void* start_ = nullptr;
    std::size_t size_ = 0;
};

// A descriptor of a regular file of exactly `size` bytes, open for reading. Throws `Failure`.
int open_weight_file(const std::string& path, std::uint64_t size);

}  // namespace pocketglm
