// The sampler's long loops, over all logits. x86 machines run them in the widest vectors they have. No
// version fuses products and sums, and sums have a fixed order, so that a seed gives the same tokens
// everywhere.
#pragma once

#include <cstdint>

namespace pocketglm {

struct Largest {
    float value;  // NaN where any is
    std::int32_t first;
};

Largest find_largest(const float* values, std::int32_t count);

constexpr std::int64_t SKIPPED_TOGETHER = 64;

// From `start`, in steps of SKIPPED_TOGETHER, to the first piece with a value of `least` or more; `count` or
// more where there is none.
std::int64_t skip_below(const float* values, std::int64_t start, std::int64_t count, float least);

// weights = exp((scores - largest) / temperature), to 2 units in the last place.
void exponentials(const float* scores, std::int64_t count, double largest, double temperature,
                  double* weights);

// In lanes and blocks: fast, and the error stays small however many there are.
double sum(const double* values, std::int64_t count);

}  // namespace pocketglm
