// What the engine takes beside weights, before it takes it: src/pocketglm/plan/native_memory.py in C++.
#pragma once

#include <cstdint>

#include "package.h"

namespace pocketglm::executable {

// KV pages of a sequence of `context` tokens, one page of room, and the work memory of the largest pass.
std::uint64_t bytes_beside_weights(const Package& package, int kv_type, std::int64_t context, int threads);

}  // namespace pocketglm::executable
