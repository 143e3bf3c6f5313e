// Final norm and output projection; behind pglm_head.
#pragma once

#include <cstdint>
#include <vector>

#include "memory.h"
#include "pocketglm.h"
#include "sampler.h"
#include "stage.h"
#include "weight_store.h"

namespace pocketglm {

class Head {
  public:
    Head(const pglm_spec& spec, const pglm_file& file, const pglm_options& options);

    void logits(const float* hidden, int rows, float* out);
    // A token from each row of logits, -1 where its sampler finds none. Each has a sampler of its own.
    void choose(const std::vector<Sampler*>& samplers, const float* logits, const double* uniforms,
                std::int32_t* tokens) const;
    std::uint64_t work_bytes(int rows) const { return sizes(rows).all; }
    pglm_usage usage() const;

  private:
    struct Slice;
    // Rows at a time, and bytes of work memory: of its parts, scratch that of one thread, and of all of it.
    struct Sizes {
        int rows;
        std::size_t activations, outliers, scratch, all;
    };

    // For `rows` rows, fewer at a time where the memory allowed has no room for them.
    Sizes sizes(int rows) const;
    Sizes slice_sizes(int rows) const;

    void run(Member& member, const Slice& slice) const;

    Spec spec_;
    Machine machine_;
    MemoryAccount account_;
    WeightStore weights_;
    Buffer work_;
};

}  // namespace pocketglm
