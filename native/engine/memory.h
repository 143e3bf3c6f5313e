// Aligned buffers, and the account of how much memory an engine part has taken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "failure.h"

namespace pocketglm {

// How many bytes of one kind are taken, out of how many; 0 stands for no limit.
class MemoryAccount {
  public:
    explicit MemoryAccount(std::uint64_t limit) : limit_(limit) {}

    void take(std::uint64_t bytes, const char* what) {
        if (limit_ != 0 && used_ + bytes > limit_) {
            throw Failure(PGLM_MEMORY, std::string("the memory limit of ") + std::to_string(limit_) +
                                           " bytes leaves no room for " + std::to_string(bytes) +
                                           " bytes of " + what + " (" + std::to_string(used_) +
                                           " are in use)");
        }
        used_ += bytes;
    }
    void give_back(std::uint64_t bytes) { used_ -= bytes; }
    std::uint64_t used() const { return used_; }
    std::uint64_t limit() const { return limit_; }

  private:
    std::uint64_t limit_;
    std::uint64_t used_ = 0;
};

// Zeroed memory out of which buffers are made. Large ones are mapped: what is freed is the system's again
// at once, and what is never written takes no memory, which the C library's heap does not promise.
void* take_zeroed(std::size_t bytes);  // null where there is none
void free_zeroed(void* memory, std::size_t bytes);

// Asks for huge pages, where the system has them, under what is mapped there and not read or written yet.
void want_huge_pages(void* mapped, std::size_t bytes);

// Zeroed bytes on a cache-line boundary or a wider one, counted in an account.
class Buffer {
  public:
    static constexpr std::size_t ALIGNMENT = 64;

    Buffer() = default;
    Buffer(MemoryAccount& account, std::size_t bytes, const char* what, std::size_t alignment = ALIGNMENT)
        : account_(&account), bytes_(bytes), alignment_(alignment) {
        account.take(bytes, what);
        raw_ = take_zeroed(bytes + alignment);
        if (raw_ == nullptr) {
            account.give_back(bytes);
            throw Failure(PGLM_MEMORY, "out of memory for " + std::to_string(bytes) + " bytes of " + what);
        }
    }
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        Buffer taken(std::move(other));
        swap(taken);
        return *this;
    }
    ~Buffer() {
        if (raw_ == nullptr) return;
        free_zeroed(raw_, bytes_ + alignment_);
        account_->give_back(bytes_);
    }

    std::uint8_t* data() const {
        const auto address = reinterpret_cast<std::uintptr_t>(raw_);
        return reinterpret_cast<std::uint8_t*>((address + alignment_ - 1) / alignment_ * alignment_);
    }
    std::size_t size() const { return raw_ == nullptr ? 0 : bytes_; }

  private:
    void swap(Buffer& other) noexcept {
        std::swap(account_, other.account_);
        std::swap(bytes_, other.bytes_);
        std::swap(alignment_, other.alignment_);
        std::swap(raw_, other.raw_);
    }

    MemoryAccount* account_ = nullptr;
    std::size_t bytes_ = 0;
    std::size_t alignment_ = ALIGNMENT;
    void* raw_ = nullptr;
};

}  // namespace pocketglm
