#include "memory_plan.h"

#include <algorithm>

#include "pocketglm.h"

namespace pocketglm::executable {

namespace {

constexpr std::int64_t PAGE_POSITIONS = 64, VALUE_MULTIPLE = 16, PIECE_ROWS = 512, SLICE_ROWS = 256;

// Work memory of one thread at most.
constexpr std::int64_t SCRATCH_BYTES = 1 << 20;

// Unsigned: a manifest's largest numbers run over, and must not end the program.
std::uint64_t cache_bytes(const ModelSpec& spec, int kv_type, std::int64_t context) {
    const std::int64_t element = kv_type == PGLM_KV_FLOAT32 ? 4 : kv_type == PGLM_KV_INT8 ? 1 : 2;
    const std::int64_t value_stride = (spec.head_dim + VALUE_MULTIPLE - 1) / VALUE_MULTIPLE * VALUE_MULTIPLE;
    const std::int64_t scales = kv_type == PGLM_KV_INT8 ? 8 : 0;
    const std::int64_t tile = PAGE_POSITIONS * (element * (spec.head_dim + value_stride) + scales);
    const std::int64_t pages = (context + PAGE_POSITIONS - 1) / PAGE_POSITIONS + 1;
    return static_cast<std::uint64_t>(pages) * tile * spec.num_blocks * spec.num_kv_heads;
}

std::int64_t work_bytes(const ModelSpec& spec, std::int64_t context, int threads) {
    const std::int64_t rows = spec.has_prefix ? context : std::min(PIECE_ROWS, context);
    const std::int64_t inputs =
        std::max<std::int64_t>({spec.hidden_size, spec.intermediate_size, spec.q_size()});
    const std::int64_t projected = std::max(spec.q_size() + 2 * spec.kv_size(), inputs);
    const std::int64_t queries = rows > SLICE_ROWS ? spec.q_size() : 0;
    const std::int64_t floats =
        rows * (queries + 2 * spec.head_dim) + std::min(SLICE_ROWS, rows) * (projected + inputs);
    return 4 * floats + SCRATCH_BYTES * threads;
}

}  // namespace

std::uint64_t bytes_beside_weights(const ModelSpec& spec, int kv_type, std::int64_t context, int threads) {
    const std::uint64_t work = work_bytes(spec, context, threads);
    return cache_bytes(spec, kv_type, context) + work;
}

}  // namespace pocketglm::executable
