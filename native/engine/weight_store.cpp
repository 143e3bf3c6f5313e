#include "weight_store.h"

#include <utility>

namespace pocketglm {

WeightStore::WeightStore(std::vector<WeightFile> files, MemoryAccount& account)
    : account_(account), files_(std::move(files)) {
    std::uint64_t total = 0;
    for (const WeightFile& file : files_) {
        maps_.emplace_back(file.path(), file.size());
        views_.push_back(file.views(maps_.back().data()));
        total += file.size();
    }
    account_.take(total, "weights");
    taken_ = total;
}

WeightStore::~WeightStore() { account_.give_back(taken_); }

}  // namespace pocketglm
