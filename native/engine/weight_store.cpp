#include "weight_store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>
#include <utility>

#include "failure.h"

namespace pocketglm {

namespace {

// What weights may take of the memory allowed.
std::uint64_t weights_share(std::uint64_t limit, std::uint64_t reserve) {
    if (reserve == 0) return limit / 4 * 3;
    return limit > reserve ? limit - reserve : 0;
}

// Reads past the page cache need places in file and memory, and sizes, in whole blocks of the disk.
constexpr std::uint64_t DIRECT_ALIGNMENT = 4096;

// The buffers are of huge pages where the system has them: a read past the page cache maps every page for
// the device, which with small pages costs two thirds of a fast disk's rate.
constexpr std::uint64_t HUGE_PAGE = 2 << 20;

std::uint64_t rounded_up(std::uint64_t size, std::uint64_t step) { return (size + step - 1) / step * step; }

// Reads go past the page cache from now on, or not. False where the system or the file system cannot.
bool set_direct(int descriptor, bool direct) {
#if defined(O_DIRECT)
    const int flags = ::fcntl(descriptor, F_GETFL);
    if (flags < 0) return false;
    return ::fcntl(descriptor, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
#elif defined(F_NOCACHE)
    return ::fcntl(descriptor, F_NOCACHE, direct ? 1 : 0) != -1;
#else
    (void)descriptor;
    return !direct;
#endif
}

bool is_direct(int descriptor) {
#if defined(O_DIRECT)
    return (::fcntl(descriptor, F_GETFL) & O_DIRECT) != 0;
#else
    return false;
#endif
}

// Where reads went through the page cache all the same: the pages may go.
void drop_cached(int descriptor, std::uint64_t at, std::uint64_t count) {
#if defined(POSIX_FADV_DONTNEED)
    (void)::posix_fadvise(descriptor, static_cast<off_t>(at), static_cast<off_t>(count), POSIX_FADV_DONTNEED);
#else
    (void)descriptor, (void)at, (void)count;
#endif
}

// `number` of `count` blocks, far from one another: then the reader is at work during the whole pass, and
// not only while the blocks at its end are computed.
std::vector<std::uint8_t> spread_evenly(int count, int number) {
    std::vector<std::uint8_t> chosen;
    for (int block = 0; block < count; ++block) {
        chosen.push_back((block + 1) * number / count > block * number / count);
    }
    return chosen;
}

// Whoever waits for a block looks now and then. Were it woken by the reader, it would often take the reader's
// processor at once and begin to compute, and the disk would have nothing to read until it is done.
constexpr std::chrono::microseconds LOOK_AGAIN{50};

constexpr std::size_t READ_AT_ONCE = 8 << 20;  // so that closing a model does not wait for a whole block

}  // namespace

WeightStore::WeightStore(std::vector<WeightFile> files, MemoryAccount& account, std::uint64_t reserve,
                         const std::vector<std::uint8_t>& streamed)
    : account_(account), files_(std::move(files)) {
    require(streamed.empty() || streamed.size() == files_.size(),
            "what is said about streamed blocks does not fit the number of blocks");
    const std::uint64_t share = weights_share(account_.limit(), reserve);
    const std::vector<std::uint8_t> chosen = streamed.empty() ? plan_streamed(share) : streamed;
    if (account_.limit() != 0) check_share(share, chosen);
    for (auto& views : views_) views.resize(files_.size());
    for (int block = 0; block < count(); ++block) {
        before_.push_back(streamed_count());
        if (chosen[block]) streamed_.push_back(block);
    }
    before_.push_back(streamed_count());
    for (int block = 0; block < count(); ++block) {
        if (is_mapped(block)) map_block(block);
    }
    account_.take(taken_, "weights");
    if (streamed_count() != 0) start_reading(buffer_size(chosen));
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

void WeightStore::map_block(int block) {
    maps_.emplace_back(files_[block].path(), files_[block].size());
    for (auto& views : views_) views[block] = files_[block].views(maps_.back().data());
    taken_ += files_[block].size();
    // Kept if the system lets us: else its pages are the first to go where memory is short.
    if (account_.limit() != 0 || streamed_count() != 0) {
        (void)::mlock(maps_.back().data(), maps_.back().size());
    }
}

// Bytes of one buffer: the largest block that is read, in whole huge pages.
std::uint64_t WeightStore::buffer_size(const std::vector<std::uint8_t>& streamed) const {
    std::uint64_t largest = 0;
    for (int block = 0; block < count(); ++block) {
        if (streamed[block]) largest = std::max(largest, rounded_up(files_[block].size(), HUGE_PAGE));
    }
    return largest;
}

// Which blocks are read: none, or as few as the memory needs.
std::vector<std::uint8_t> WeightStore::plan_streamed(std::uint64_t share) const {
    std::vector<std::uint8_t> streamed(files_.size(), 0);
    for (int number = 1; number <= count(); ++number) {
        if (account_.limit() == 0 || needed(streamed) <= share) break;
        streamed = spread_evenly(count(), number);
    }
    return streamed;
}

// What the weights take: those mapped, and the buffers for the others.
std::uint64_t WeightStore::needed(const std::vector<std::uint8_t>& streamed) const {
    std::uint64_t bytes = BUFFERS * buffer_size(streamed);
    for (int block = 0; block < count(); ++block) bytes += streamed[block] ? 0 : files_[block].size();
    return bytes;
}

void WeightStore::check_share(std::uint64_t share, const std::vector<std::uint8_t>& streamed) const {
    if (needed(streamed) <= share) return;
    const std::uint64_t limit = account_.limit();
    throw Failure(PGLM_MEMORY,
                  "the memory limit of " + std::to_string(limit) + " bytes is too small: weights take " +
                      std::to_string(needed(streamed)) + " bytes" +
                      (buffer_size(streamed) != 0 ? ", of those read from disk two blocks at a time" : "") +
                      ", and " + std::to_string(limit - share) + " are kept for other things");
}

void WeightStore::start_reading(std::uint64_t largest) {
    for (Buffer& buffer : buffers_) {
        buffer = Buffer(account_, largest, "weights", HUGE_PAGE);
        want_huge_pages(buffer.data(), buffer.size());
    }
    for (const int block : streamed_) {
        for (int i = 0; i < BUFFERS; ++i) views_[i][block] = files_[block].views(buffers_[i].data());
    }
    try {
        for (const int block : streamed_) {
            descriptors_.push_back(open_weight_file(files_[block].path(), files_[block].size()));
            (void)set_direct(descriptors_.back(), true);
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

std::uint64_t WeightStore::streamed_bytes() const {
    std::uint64_t bytes = 0;
    for (const int block : streamed_) bytes += files_[block].size();
    return bytes;
}

void WeightStore::close_files() {
    for (const int descriptor : descriptors_) ::close(descriptor);
    descriptors_.clear();
}

const WeightViews& WeightStore::views(int block) {
    if (is_mapped(block)) return views_[0][block];
    const std::uint64_t number = number_of(block);
    while (read_.load(std::memory_order_acquire) <= number) std::this_thread::sleep_for(LOOK_AGAIN);
    return views_[number % BUFFERS][block];
}

void WeightStore::release(int block) {
    if (before_[block] == 0) return;
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
        read_block(static_cast<int>(number % streamed_count()), buffers_[number % BUFFERS].data());
        read_.store(number + 1, std::memory_order_release);
    }
}

void WeightStore::read_block(int turn, std::uint8_t* to) {
    const WeightFile& file = files_[streamed_[turn]];
    const std::uint64_t size = file.size();
    const int descriptor = descriptors_[turn];
    for (std::uint64_t at = 0; at < size;) {
        // The last read asks for a whole block of the disk too; the file ends before it does
        const std::size_t wanted =
            std::min<std::uint64_t>(READ_AT_ONCE, rounded_up(size - at, DIRECT_ALIGNMENT));
        const ssize_t count = ::pread(descriptor, to + at, wanted, static_cast<off_t>(at));
        if (count < 0 && errno == EINTR) continue;
        // A file system that takes the flag but not the read, or a short read that ends within a block
        if (count < 0 && errno == EINVAL && is_direct(descriptor) && set_direct(descriptor, false)) continue;
        const std::lock_guard<std::mutex> guard(lock_);
        if (stopping_) return;
        if (count <= 0) {
            const char* problem = count < 0 ? std::strerror(errno) : "it ends early";
            failure_ = file.path() + ": cannot be read (" + problem + ")";
            return;
        }
        if (!is_direct(descriptor)) drop_cached(descriptor, at, count);
        at += count;
    }
}

}  // namespace pocketglm
