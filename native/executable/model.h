// A loaded model and its one sequence; the Python classes Model and Session, in C++.
//
// Enters: token ids, call after call. Leaves: logits. A failed call leaves the sequence as it was.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "package.h"
#include "pocketglm.h"
#include "positions.h"

namespace pocketglm::executable {

struct LoadOptions {
    std::string package;
    std::int32_t threads = 0;
    std::int32_t kv_type = PGLM_KV_FLOAT16;
    std::string isa;           // empty: the best there is
    std::uint64_t memory = 0;  // bytes, 0: no limit
    std::int64_t context = 0;  // most tokens of the sequence; 0: the model's own limit
};

class Model {
  public:
    // Throws `Refusal`.
    explicit Model(const LoadOptions& options);

    const ModelSpec& spec() const { return package_.spec(); }
    // Most tokens of the sequence.
    int context() const { return context_; }
    int length() const { return static_cast<int>(tokens_.size()); }

    // Keeps what the cache shares with `prompt` and forgets the rest; the last token is left to compute.
    // Returns how many tokens are kept.
    int reuse(const std::vector<std::int32_t>& prompt);
    // Appends tokens, in pieces. Returns the logits [vocab_size] after the last one, valid until the next
    // call, or null where `stopped` became true on the way.
    const float* forward(const std::int32_t* tokens, int count, const std::atomic<bool>& stopped);

    pglm_usage usage() const;  // of the stage and the head together

  private:
    struct FreeStage {
        void operator()(pglm_stage* stage) const { pglm_stage_free(stage); }
    };
    struct FreeHead {
        void operator()(pglm_head* head) const { pglm_head_free(head); }
    };

    void load_stage(const LoadOptions& options);
    void load_head(const LoadOptions& options);
    std::uint64_t memory_for_blocks(const LoadOptions& options) const;
    std::uint64_t reserve(const LoadOptions& options) const;
    int piece_size(const std::int32_t* tokens, int count) const;
    void forward_piece(const std::int32_t* tokens, int count);
    bool same_context(const std::vector<std::int32_t>& prompt) const;
    void truncate(int length);

    Package package_;
    int context_;
    std::unique_ptr<pglm_stage, FreeStage> stage_;
    std::unique_ptr<pglm_head, FreeHead> head_;
    Positions positions_;
    std::vector<std::int32_t> tokens_;  // in the cache
    std::vector<float> hidden_, logits_;
};

}  // namespace pocketglm::executable
