// How a quantized row divides into blocks: the runs of inputs that share one activation scale.
//
// A block is a whole group of the weights, or an equal part of one where groups are long (one group
// per row): 8-bit activations need a scale for every 128 inputs at most to stay accurate.
#pragma once

#include "kernels.h"

namespace pocketglm::POCKETGLM_ISA {

constexpr int LONGEST_BLOCK = 128;

// Blocks whose largest value is below 2^-120 count as zero: 127 / it would overflow.
constexpr std::int32_t SMALLEST_MAXIMUM = (127 - 120) << 23;  // float32 bits
constexpr std::int32_t INFINITE = 0x7f800000;
constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: a sum with it rounds to the nearest even integer

struct Blocks {
    int size;       // 32, 64 or 128 inputs
    int count;      // in one row
    int per_group;  // blocks that share one alpha

    explicit Blocks(const LinearView& linear)
        : size(linear.group % 128 == 0  ? 128
               : linear.group % 64 == 0 ? 64
                                        : 32),
          count(linear.stored_inputs / size),
          per_group(linear.group / size) {}
};

inline std::size_t round_up(std::size_t value, std::size_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

}  // namespace pocketglm::POCKETGLM_ISA
