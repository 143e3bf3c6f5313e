// One tensor of a weight file: what a manifest's entry says, and where its bytes lie.
#pragma once

#include <cstdint>
#include <string>

#include "json.h"
#include "model_spec.h"
#include "pocketglm.h"

namespace pocketglm::executable {

// Sizes and offsets of a manifest are below this.
constexpr std::int64_t SIZE_LIMIT = std::int64_t{1} << 48;

struct StoredTensor {
    // Reads an entry of `file`. Throws `Refusal` where it is malformed or has an unknown format.
    StoredTensor(const Json& entry, const std::string& file);

    bool is_vector() const { return !is_linear; }
    bool quantized() const { return bits < 16; }
    // Of a tensor with the expected shape, whose sizes are bounded. `stored`: inputs in whole groups.
    std::int64_t stored_inputs() const;
    std::int64_t group_size() const { return group == 0 ? stored_inputs() : group; }
    std::int64_t codes_offset() const;
    std::int64_t alpha_offset() const;
    std::int64_t bias_offset() const;
    std::int64_t end() const;
    pglm_tensor description(std::int32_t role) const;

    std::string name;
    std::int64_t rows = 0, inputs = 0;  // a vector has inputs 0
    bool is_linear = false;
    std::int64_t offset = 0;
    std::int64_t bits = 32, group = 0;
    bool symmetric = false, bias = false;
};

}  // namespace pocketglm::executable
