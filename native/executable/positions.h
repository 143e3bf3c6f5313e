// Which positions the next rows of the sequence have; the Python class PositionTracker, in C++.
#pragma once

#include <cstdint>
#include <vector>

#include "model_spec.h"

namespace pocketglm::executable {

class Positions {
  public:
    explicit Positions(const ModelSpec& spec) : spec_(&spec) {}

    int length() const { return length_; }
    // Columns that every row sees: ChatGLM-6B's context; 0 for causal models.
    int prefix() const { return context_; }
    // Counts tokens in. Returns their positions, [axes, count]. Throws `Refusal` where ChatGLM-6B's first
    // tokens lack <sop>, and changes nothing then.
    std::vector<std::int32_t> advance(const std::int32_t* tokens, int count);
    // Forgets the tokens from `length` on. A prefix can be forgotten as a whole only.
    void truncate(int length);

  private:
    void find_context(const std::int32_t* tokens, int count);

    const ModelSpec* spec_;
    int length_ = 0, context_ = 0, mask_index_ = 0;
};

}  // namespace pocketglm::executable
