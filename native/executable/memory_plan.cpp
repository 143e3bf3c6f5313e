#include "memory_plan.h"

#include <algorithm>

#include "pocketglm.h"

namespace pocketglm::executable {

namespace {

constexpr std::int64_t PAGE_POSITIONS = 64, VALUE_MULTIPLE = 16, PIECE_ROWS = 512, SLICE_ROWS = 256;

// Work memory of one thread at most.
constexpr std::int64_t SCRATCH_BYTES = 1 << 20;

// Bytes at most that fill up groups and vectors in a row of quantized inputs.
constexpr std::int64_t ROW_PADDING = 1 << 10;

// Unsigned: a manifest's largest numbers run over, and must not end the program.
std::uint64_t cache_bytes(const ModelSpec& spec, int kv_type, std::int64_t context) {
    const std::int64_t element = kv_type == PGLM_KV_FLOAT32 ? 4 : kv_type == PGLM_KV_INT8 ? 1 : 2;
    const std::int64_t value_stride = (spec.head_dim + VALUE_MULTIPLE - 1) / VALUE_MULTIPLE * VALUE_MULTIPLE;
    const std::int64_t scales = kv_type == PGLM_KV_INT8 ? 8 : 0;
    const std::int64_t tile = PAGE_POSITIONS * (element * (spec.head_dim + value_stride) + scales);
    const std::int64_t pages = (context + PAGE_POSITIONS - 1) / PAGE_POSITIONS + 1;
    return static_cast<std::uint64_t>(pages) * tile * spec.num_blocks * spec.num_kv_heads;
}

// Whether every matrix of the blocks is, so that what enters it is quantized, too.
bool all_quantized(const std::vector<WeightFileEntry>& blocks) {
    const auto quantized = [](const pglm_tensor& tensor) {
        const bool is_vector = tensor.inputs == 1;
        return is_vector || tensor.bits < 16;
    };
    return std::all_of(blocks.begin(), blocks.end(), [&](const WeightFileEntry& block) {
        return std::all_of(block.tensors.begin(), block.tensors.end(), quantized);
    });
}

std::int64_t work_bytes(const ModelSpec& spec, std::int64_t context, int threads, bool quantized) {
    const std::int64_t rows = spec.has_prefix ? context : std::min(PIECE_ROWS, context);
    const std::int64_t inputs =
        std::max<std::int64_t>({spec.hidden_size, spec.intermediate_size, spec.q_size()});
    const std::int64_t projected = std::max(spec.q_size() + 2 * spec.kv_size(), inputs);
    const std::int64_t queries = rows > SLICE_ROWS ? spec.q_size() : 0;
    // A group of 32 or more inputs has two floats beside its codes: a quarter.
    const std::int64_t prepared = quantized ? inputs * 5 / 4 + ROW_PADDING : inputs * 4;
    const std::int64_t in_slice = std::min(SLICE_ROWS, rows) * (4 * projected + prepared);
    return 4 * rows * (queries + 2 * spec.head_dim) + in_slice + SCRATCH_BYTES * threads;
}

}  // namespace

std::uint64_t bytes_beside_weights(const Package& package, int kv_type, std::int64_t context, int threads) {
    const std::uint64_t work = work_bytes(package.spec(), context, threads, all_quantized(package.blocks()));
    return cache_bytes(package.spec(), kv_type, context) + work;
}

}  // namespace pocketglm::executable
