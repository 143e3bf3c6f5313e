// A run of consecutive blocks and the KV caches of its sequences; behind pglm_stage.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "decoder_math.h"
#include "forward_pass.h"
#include "kernels.h"
#include "kv_cache.h"
#include "memory.h"
#include "pocketglm.h"
#include "team.h"
#include "weight_store.h"
#include "weights.h"

namespace pocketglm {

// What the options of a stage or head stand for on this machine.
struct Machine {
    explicit Machine(const pglm_options& options);  // throws `Failure`

    const Kernels* kernels;
    const DecoderMath* math;
    std::shared_ptr<Team> team;
};

class Stage {
  public:
    Stage(const pglm_spec& spec, const pglm_file* files, std::int32_t count, const pglm_options& options);

    void open(std::int64_t sequence);
    void close(std::int64_t sequence) { caches_.erase(sequence); }
    int length(std::int64_t sequence) const { return cache(sequence).length(); }
    void truncate(std::int64_t sequence, int length);
    void copy_prefix(std::int64_t source, std::int64_t target, int length);
    void save(std::int64_t sequence, float* keys, float* values) const;
    void restore(std::int64_t sequence, int length, const float* keys, const float* values);
    void forward(const pglm_segment* segments, int count, const std::int32_t* positions, const float* hidden,
                 float* output);
    std::uint64_t work_bytes(int start, int count, int prefix);
    pglm_usage usage() const;
    int block_count() const { return weights_.count(); }
    bool is_streamed(int block) const { return !weights_.is_mapped(block); }

  private:
    SequenceCache& cache(std::int64_t sequence);
    const SequenceCache& cache(std::int64_t sequence) const;
    SequenceCache& empty_cache(std::int64_t sequence);
    std::vector<PassSegment> checked_segments(const pglm_segment* segments, int count);
    void shrink_work(std::size_t bytes);
    void grow_work(std::size_t bytes);

    Spec spec_;
    Machine machine_;
    MemoryAccount account_;
    KvLayout layout_;
    WeightStore weights_;
    Buffer work_;
    std::unordered_map<std::int64_t, SequenceCache> caches_;
};

}  // namespace pocketglm
