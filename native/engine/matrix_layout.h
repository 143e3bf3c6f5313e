// How prepared activations and unpacked weights lie in memory, for all vector instruction sets.
//
// Up to ROWS_AT_ONCE rows ("rows" layout): every output channel's codes are streamed once, straight from
// the file. Activations lie row by row, [row][stored inputs], in the order in which nibbles unpack.
//
// More rows ("tiles" layout): PANEL channels are unpacked into scratch, transposed to
// [step][channel][STEP_BYTES], and used for every tile of rows. Activations lie tile by tile, each
// [run of steps][row][STEPS_TOGETHER][STEP_BYTES]: rows at their natural stride of a power of two would share
// one set of the cache.
//
// int4 steps alternate: the even inputs of 2 * STEP_BYTES inputs (their high nibbles), then the odd ones.
#pragma once

#include "blocks.h"
#if defined(__AVX512F__)
#include "dot_avx512.h"
#elif defined(__AVX2__)
#include "dot_avx2.h"
#elif defined(__aarch64__)
#include "dot_neon.h"
#endif

// An operand of an empty assembly statement: the compiler must take the vector as unknown.
#if defined(__aarch64__)
#define VECTOR_IN_OUT(value) "+w"(value)
#elif defined(__AVX512F__)
#define VECTOR_IN_OUT(value) "+v"(value)
#else
#define VECTOR_IN_OUT(value) "+x"(value)
#endif

namespace pocketglm::POCKETGLM_ISA {

constexpr int VECTOR_BYTES = 4 * WIDTH;
constexpr int PANEL = PANEL_VECTORS * WIDTH;  // channels
constexpr int ROWS_AT_ONCE = 4;
constexpr int CHUNK_INPUTS = 4096;  // a panel of them fits the second-level cache beside some activations
constexpr int CHUNK_FLOATS = 1024;  // the same bytes of float weights
constexpr int RUN_BYTES = STEPS_TOGETHER * STEP_BYTES;  // of a row's activations in a tile
constexpr int BLOCK_RUN = 16;  // blocks of a row whose scales stand together, in a line of the cache
constexpr std::size_t ALIGNMENT = 64;

// Bytes ahead of the ones in use to fetch, in each of two streams: memory answers in about 100 ns, in which
// a core reads 1 to 2 KiB; the hardware's own prefetchers stop at every page of 4 KiB.
constexpr int READ_AHEAD = 2048;
constexpr int ALPHA_AHEAD = 512;
constexpr int LINE = 64;

inline void prefetch(const std::uint8_t* from, int bytes) {
    for (int i = 0; i < bytes; i += LINE) __builtin_prefetch(from + READ_AHEAD + i);
}

// What the stored code of a zero weight is in the dot products.
template <int BITS>
constexpr float middle_code() {
    return BITS == 4 ? 8.0f : SIGNED_CODES ? 0.0f : 128.0f;
}

inline std::int32_t tile_count(std::int32_t count) { return (count + TILE_ROWS - 1) / TILE_ROWS; }

// First row of a tile: rows are spread evenly, as a tile of one row costs nearly as much as one of four.
inline std::int32_t tile_start(std::int32_t count, std::int32_t tile) {
    return static_cast<std::int32_t>(static_cast<std::int64_t>(count) * tile / tile_count(count));
}

// Prepared activations of quantized formats.
struct Quantized {
    std::size_t row_codes;   // bytes of one row's codes
    std::size_t row_scales;  // floats of one row's scales, and of its sums
    float* scales;  // rows layout: [row][block]; tiles layout: tile by tile, [run of blocks][row][BLOCK_RUN]
    float* sums;    // alike
    std::int8_t* codes;

    Quantized(const LinearView& linear, std::int32_t count, void* data) {
        // Whole vectors for the rows layout; zeros stand behind the last block.
        row_codes = round_up(linear.stored_inputs, 2 * VECTOR_BYTES);
        row_scales = round_up(Blocks(linear).count, BLOCK_RUN);
        codes = static_cast<std::int8_t*>(data);
        scales = reinterpret_cast<float*>(codes + row_codes * count);
        sums = scales + row_scales * count;
    }
    // Where a block's scale and sum stand in a tile of `rows`, from the place of a row 0's block 0.
    static std::size_t in_tile(int block, int row, int rows) {
        return static_cast<std::size_t>(block / BLOCK_RUN * rows + row) * BLOCK_RUN + block % BLOCK_RUN;
    }
    static std::size_t bytes(const LinearView& linear, std::int32_t count) {
        const Quantized sizes(linear, count, nullptr);
        return (sizes.row_codes + 2 * sizeof(float) * sizes.row_scales) * count;
    }
};

// Of float formats: floats, [row][inputs] or tile by tile [input][row], rows padded to whole vectors.
inline std::size_t float_row(const LinearView& linear) { return round_up(linear.inputs, WIDTH); }

inline float bias_of(const LinearView& linear, int channel) {
    float bias = 0;
    if (linear.bias != nullptr) {
        std::memcpy(&bias, reinterpret_cast<const char*>(linear.bias) + sizeof bias * channel, sizeof bias);
    }
    return bias;
}

// The alphas of WIDTH blocks of one channel from block `first`, of which `count` exist (the others are 0),
// where groups are several blocks.
[[gnu::noinline]] inline void gather_alpha(const Blocks& blocks, bool symmetric, const std::uint16_t* alpha,
                                           int first, int count, std::uint16_t* to) {
    const int values = symmetric ? 1 : 2;
    std::memset(to, 0, 2 * WIDTH * sizeof *to);
    for (int i = 0; i < count && i < WIDTH; ++i) {
        const std::uint16_t* from = alpha + (first + i) / blocks.per_group * values;
        to[i * values] = from[0];
        if (!symmetric) to[2 * i + 1] = from[1];
    }
}

// Zeros and scales of the same WIDTH blocks. The zeros are those of unsigned codes: zero - middle * scale.
template <int BITS>
inline void load_alpha(const LinearView& linear, const Blocks& blocks, const std::uint16_t* alpha, int first,
                       int count, Floats& zeros, Floats& scales) {
    std::uint16_t gathered[2 * WIDTH];
    const std::uint16_t* from = alpha + first * (linear.symmetric ? 1 : 2);
    if (__builtin_expect(blocks.per_group > 1, 0)) {
        gather_alpha(blocks, linear.symmetric, alpha, first, count, gathered);
        from = gathered;
    } else if (count < WIDTH) {
        store_octets(gathered, load_octets_part(from, count * (linear.symmetric ? 2 : 4)));
        from = gathered;
    }
    if (linear.symmetric) {
        scales = from_halves(from);
        zeros = scales * all(-middle_code<BITS>());
    } else {
        load_pairs(from, zeros, scales);
        zeros = fused(scales, all(-middle_code<BITS>()), zeros);
    }
}

inline const std::uint16_t* channel_alpha(const LinearView& linear, std::int32_t channel) {
    return linear.alpha + static_cast<std::size_t>(channel) * (linear.stored_inputs / linear.group) *
                              (linear.symmetric ? 1 : 2);
}

// WIDTH weights of a float format, of which `count` exist (the others are 0).
template <int BITS>
inline Floats load_weights(const std::uint8_t* from, int count) {
    if constexpr (BITS == 16) {
        if (count >= WIDTH) return from_halves(reinterpret_cast<const std::uint16_t*>(from));
        std::uint16_t values[WIDTH] = {};
        std::memcpy(values, from, sizeof *values * count);
        return from_halves(values);
    } else {
        const float* values = reinterpret_cast<const float*>(from);
        return count >= WIDTH ? load(values) : load_part(values, count);
    }
}

#if defined(__AVX512F__)
// The transposition of vectors of STEP-byte units: vector i, unit j becomes vector j, unit i. Within 128 bits
// first: those shuffles are the cheap ones.
template <int STEP>
inline void transpose(Ints (&m)[VECTOR_BYTES / STEP]) {
    static_assert(STEP == 4, "as wide as a lane");
    Ints fours[4][4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
        Ints lanes[4] = {m[4 * k], m[4 * k + 1], m[4 * k + 2], m[4 * k + 3]};
        transpose_within(lanes);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) fours[i][k] = lanes[i];
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        transpose_across(fours[i]);
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) m[4 * k + i] = fours[i][k];
    }
}
#else
template <int BITS>
inline Ints add_dot(Ints sums, Octets codes, Octets x) {
    return dot<BITS>(sums, codes, x);
}

// The transposition of vectors of STEP-byte units: vector i, unit j becomes vector j, unit i.
template <int STEP, int H = WIDTH / 2>
inline void transpose(Ints (&m)[VECTOR_BYTES / STEP]) {
    constexpr int DISTANCE = H * 4 / STEP;
    if constexpr (DISTANCE > 0) {
#pragma GCC unroll 16
        for (int i = 0; i < VECTOR_BYTES / STEP; ++i) {
            if ((i & DISTANCE) == 0) exchange<H>(m[i], m[i + DISTANCE]);
        }
        transpose<STEP, H / 2>(m);
    }
}

// In every four lanes, vector i, lane j becomes vector j, lane i.
inline void transpose_within(Ints (&m)[4]) {
    exchange<2>(m[0], m[2]);
    exchange<2>(m[1], m[3]);
    exchange<1>(m[0], m[1]);
    exchange<1>(m[2], m[3]);
}

// Of fours of lanes: vector i, four j becomes vector j, four i.
template <int COUNT>
inline void transpose_across(Ints (&m)[COUNT]) {
    static_assert(COUNT == WIDTH / 4 && COUNT <= 2, "a square");
    if constexpr (COUNT == 2) exchange<4>(m[0], m[1]);
}
#endif

}  // namespace pocketglm::POCKETGLM_ISA
