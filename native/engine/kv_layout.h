// How the keys and values of one sequence lie in memory.
//
// A cache grows by pages of PAGE positions, each for all blocks of a stage: nothing is copied as it
// grows. Within a page every block and KV head has one tile: the keys transposed, [head_dim, PAGE], so
// that the scores of neighbouring positions are neighbouring lanes, then the values [PAGE, value_stride]
// and, for int8, the scales of the keys and of the values [PAGE] each.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pocketglm {

enum class KvType : std::int32_t { Float32 = 0, Float16 = 1, Int8 = 2 };

struct KvLayout {
    static constexpr int PAGE = 64;            // positions: four vectors of the widest registers
    static constexpr int VALUE_MULTIPLE = 16;  // values are padded to whole vectors
    static constexpr std::size_t ALIGNMENT = 64;

    KvType type = KvType::Float16;
    int blocks = 0;
    int kv_heads = 0;
    int head_dim = 0;

    int value_stride() const { return (head_dim + VALUE_MULTIPLE - 1) / VALUE_MULTIPLE * VALUE_MULTIPLE; }
    std::size_t element_bytes() const {
        return type == KvType::Float32 ? 4 : type == KvType::Float16 ? 2 : 1;
    }
    std::size_t values_offset() const { return element_bytes() * PAGE * head_dim; }
    std::size_t scales_offset() const { return values_offset() + element_bytes() * PAGE * value_stride(); }
    std::size_t tile_bytes() const {
        return scales_offset() + (type == KvType::Int8 ? 2 * sizeof(float) * PAGE : 0);
    }
    std::size_t tile_offset(int block, int kv_head) const {
        return tile_bytes() * (static_cast<std::size_t>(block) * kv_heads + kv_head);
    }
    std::size_t page_bytes() const { return tile_bytes() * blocks * kv_heads; }
    static int pages_for(int positions) { return (positions + PAGE - 1) / PAGE; }
};

}  // namespace pocketglm
