// The weight files of a stage: mapped and used in place, or read ahead of their turn into two buffers, past
// the system's page cache: it would hold a second copy of what is used once, and a hard limit would be
// charged for it. Which ones are read is said, or follows from the memory allowed: then they are spread over
// the stage. The reader goes on between passes: the first blocks of the next pass are read while other
// stages compute.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "mapped_file.h"
#include "memory.h"
#include "weights.h"

namespace pocketglm {

class WeightStore {
  public:
    // Maps files, or starts to read them; `reserve` bytes of the account's limit are left to others, 0
    // stands for a quarter. `streamed` says for each file whether it is read (1) or mapped (0); empty: as
    // the limit allows. Throws `Failure`.
    WeightStore(std::vector<WeightFile> files, MemoryAccount& account, std::uint64_t reserve,
                const std::vector<std::uint8_t>& streamed = {});
    ~WeightStore();
    WeightStore(const WeightStore&) = delete;
    WeightStore& operator=(const WeightStore&) = delete;

    int count() const { return static_cast<int>(files_.size()); }
    bool is_mapped(int block) const { return before_[block] == before_[block + 1]; }
    int streamed_count() const { return static_cast<int>(streamed_.size()); }
    std::uint64_t bytes() const { return taken_ + buffers_[0].size() + buffers_[1].size(); }  // in memory
    std::uint64_t streamed_bytes() const;  // read at every pass
    int window(int block) const { return files_[block].window(); }
    // The tensors of a block, for shapes and formats; the data is there only between `views` and `release`.
    const WeightViews& shape(int block) const { return views_[0][block]; }

    // A pass takes the blocks in order: `views` waits until a block is in memory, `release` says that no
    // block before `block` is used any more. Any thread of the pass may call them, late or repeatedly.
    const WeightViews& views(int block);
    void release(int block);
    // After a pass. Throws `Failure` where a file could not be read: what was computed is void.
    void end_pass();

  private:
    static constexpr int BUFFERS = 2;

    // The number of a block that is read, or of the next such one.
    std::uint64_t number_of(int block) const { return pass_first_ + before_[block]; }
    std::vector<std::uint8_t> plan_streamed(std::uint64_t share) const;
    std::uint64_t needed(const std::vector<std::uint8_t>& streamed) const;
    void check_share(std::uint64_t share, const std::vector<std::uint8_t>& streamed) const;
    std::uint64_t buffer_size(const std::vector<std::uint8_t>& streamed) const;
    void map_block(int block);
    void start_reading(std::uint64_t largest);
    void read_blocks();
    void read_block(int turn, std::uint8_t* to);
    void close_files();

    MemoryAccount& account_;
    std::vector<WeightFile> files_;
    std::vector<MappedFile> maps_;
    std::vector<int> streamed_;                // the blocks that are read, in order
    std::vector<int> before_;                  // how many of them come before each block, and before the end
    std::vector<WeightViews> views_[BUFFERS];  // of blocks that are read: as they are in either buffer
    std::uint64_t taken_ = 0;                  // by mapped files

    // Blocks that are read are numbered on and on, pass after pass; number n is in buffer n % BUFFERS.
    std::vector<int> descriptors_;  // as `streamed_`
    Buffer buffers_[BUFFERS];
    std::thread reader_;
    std::mutex lock_;
    std::condition_variable changed_;
    std::atomic<std::uint64_t> read_{0};
    std::uint64_t released_ = 0, pass_first_ = 0;
    bool stopping_ = false;
    std::string failure_;
};

}  // namespace pocketglm
