// The weight files of a stage: mapped and used in place.
#pragma once

#include <cstdint>
#include <vector>

#include "mapped_file.h"
#include "memory.h"
#include "weights.h"

namespace pocketglm {

class WeightStore {
  public:
    // Maps every file. Throws `Failure`.
    WeightStore(std::vector<WeightFile> files, MemoryAccount& account);
    ~WeightStore();
    WeightStore(const WeightStore&) = delete;
    WeightStore& operator=(const WeightStore&) = delete;

    int count() const { return static_cast<int>(files_.size()); }
    std::uint64_t bytes() const { return taken_; }  // in memory
    int window(int block) const { return files_[block].window(); }
    // The tensors of a block, for shapes and formats alone.
    const WeightViews& shape(int block) const { return views_[block]; }
    const WeightViews& views(int block) const { return views_[block]; }

  private:
    MemoryAccount& account_;
    std::vector<WeightFile> files_;
    std::vector<MappedFile> maps_;
    std::vector<WeightViews> views_;
    std::uint64_t taken_ = 0;
};

}  // namespace pocketglm
