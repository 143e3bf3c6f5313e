#include "weight_store.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

namespace pocketglm {

namespace {

// Of the memory allowed, weights may take three quarters; the rest is for KV caches and activations.
constexpr std::uint64_t weights_share(std::uint64_t limit) { return limit / 4 * 3; }

constexpr std::size_t READ_AT_ONCE = 8 << 20;  // so that closing a model does not wait for a whole block

}  // namespace

WeightStore::WeightStore(std::vector<WeightFile> files, MemoryAccount& account)
    : account_(account), files_(std::move(files)) {
    std::uint64_t total = 0, largest = 0;
    for (const WeightFile& file : files_) {
        total += file.size();
        largest = std::max(largest, file.size());
    }
    const int mapped = plan_mapped(total, largest);
    for (int block = 0; block < mapped; ++block) {
        maps_.emplace_back(files_[block].path(), files_[block].size());
        for (auto& views : views_) views.push_back(files_[block].views(maps_.back().data()));
        taken_ += files_[block].size();
        // Kept if the system lets us: else its pages are the first to go where memory is short.
        if (account_.limit() != 0) (void)::mlock(maps_.back().data(), maps_.back().size());
    }
    account_.take(taken_, "weights");
    if (mapped < count()) start_reading(largest);
}

WeightStore::~WeightStore() {
    if (reader_.joinable()) {
        {
            const std::lock_guard<std::mutex> guard(lock_);
            stopping_ = true;
        }
        changed_.notify_all();
        reader_.join();
    }
    close_files();
    account_.give_back(taken_);
}

// How many blocks are mapped: all, or what the buffers for the others leave room for.
int WeightStore::plan_mapped(std::uint64_t total, std::uint64_t largest) const {
    const std::uint64_t limit = account_.limit(), share = weights_share(limit);
    if (limit == 0 || total <= share) return count();
    if (share < BUFFERS * largest) {
        throw Failure(PGLM_MEMORY, "the memory limit of " + std::to_string(limit) +
                                       " bytes is too small: two blocks are held at a time, which takes " +
                                       std::to_string(BUFFERS * largest / 3 * 4 + 4) + " bytes or more");
    }
    std::uint64_t used = BUFFERS * largest;
    int mapped = 0;
    while (used + files_[mapped].size() <= share) used += files_[mapped++].size();
    return std::min(mapped, count() - 1);
}

void WeightStore::start_reading(std::uint64_t largest) {
    for (Buffer& buffer : buffers_) buffer = Buffer(account_, largest, "weights");
    for (int block = mapped_count(); block < count(); ++block) {
        for (int i = 0; i < BUFFERS; ++i) views_[i].push_back(files_[block].views(buffers_[i].data()));
    }
    try {
        for (int block = mapped_count(); block < count(); ++block) {
            descriptors_.push_back(open_weight_file(files_[block].path(), files_[block].size()));
        }
        reader_ = std::thread([this] { read_blocks(); });
    } catch (const std::system_error& error) {
        close_files();
        throw Failure(PGLM_STATE, std::string("cannot start the thread that reads weights: ") + error.what());
    } catch (...) {
        close_files();
        throw;
    }
}

void WeightStore::close_files() {
    for (const int descriptor : descriptors_) ::close(descriptor);
    descriptors_.clear();
}

const WeightViews& WeightStore::views(int block) {
    if (block < mapped_count()) return views_[0][block];
    const std::uint64_t number = number_of(block);
    if (read_.load(std::memory_order_acquire) <= number) {
        std::unique_lock<std::mutex> lock(lock_);
        changed_.wait(lock, [&] { return read_.load() > number; });
    }
    return views_[number % BUFFERS][block];
}

void WeightStore::release(int block) {
    if (block <= mapped_count()) return;
    {
        const std::lock_guard<std::mutex> guard(lock_);
        if (number_of(block) <= released_) return;
        released_ = number_of(block);
    }
    changed_.notify_all();
}

void WeightStore::end_pass() {
    if (streamed_count() == 0) return;
    release(count());
    const std::lock_guard<std::mutex> guard(lock_);
    pass_first_ += streamed_count();
    if (!failure_.empty()) throw Failure(PGLM_FILE, std::exchange(failure_, ""));
}

void WeightStore::read_blocks() {
    for (std::uint64_t number = 0;; ++number) {
        {
            std::unique_lock<std::mutex> lock(lock_);
            changed_.wait(lock, [&] { return stopping_ || number < released_ + BUFFERS; });
            if (stopping_) return;
        }
        const int block = mapped_count() + static_cast<int>(number % streamed_count());
        read_block(block, buffers_[number % BUFFERS].data());
        {
            const std::lock_guard<std::mutex> guard(lock_);
            read_.store(number + 1, std::memory_order_release);
        }
        changed_.notify_all();
    }
}

void WeightStore::read_block(int block, std::uint8_t* to) {
    const std::uint64_t size = files_[block].size();
    for (std::uint64_t at = 0; at < size;) {
        const std::size_t wanted = std::min<std::uint64_t>(READ_AT_ONCE, size - at);
        const ssize_t count = ::pread(descriptors_[block - mapped_count()], to + at, wanted, at);
        if (count < 0 && errno == EINTR) continue;
        const std::lock_guard<std::mutex> guard(lock_);
        if (stopping_) return;
        if (count <= 0) {
            const char* problem = count < 0 ? std::strerror(errno) : "it ends early";
            failure_ = files_[block].path() + ": cannot be read (" + problem + ")";
            return;
        }
        at += count;
    }
}

}  // namespace pocketglm
