// Integer dot products and data movement with NEON: 4 lanes of 32 bits. SDOT (Armv8.2 dot product) and
// SMMLA (Armv8.6 i8mm) where the CPU has them, widening multiplications elsewhere. Codes are signed.
#pragma once

#include <arm_neon.h>

#include "vectors.h"

namespace pocketglm::POCKETGLM_ISA {

using namespace decoder::POCKETGLM_ISA;

typedef std::uint8_t Octets __attribute__((vector_size(4 * WIDTH)));

#if defined(__ARM_FEATURE_MATMUL_INT8)
constexpr int STEP_BYTES = 8;  // inputs of one channel that one SMMLA takes
#else
constexpr int STEP_BYTES = 4;  // inputs of one channel that one lane of a dot product takes
#endif
constexpr int STEPS_TOGETHER = 1;  // of a row in a tile: SMMLA reads one of two rows at once
constexpr int PANEL_VECTORS = 4;
constexpr int TILE_ROWS = 4;  // 16 accumulators of the 32 registers
constexpr bool SIGNED_CODES = true;

inline Octets load_octets(const void* from) {
    return (Octets)vld1q_u8(static_cast<const std::uint8_t*>(from));
}
inline Octets load_octets_part(const void* from, int count) {
    Octets value{};
    std::memcpy(&value, from, count);
    return value;
}
inline void store_octets(void* to, Octets value) {
    vst1q_u8(static_cast<std::uint8_t*>(to), (uint8x16_t)value);
}
inline Octets repeat_word(const void* from) {
    std::int32_t word;
    std::memcpy(&word, from, sizeof word);
    return (Octets)vdupq_n_s32(word);
}

inline Octets low_nibbles(Octets value) { return value & 0x0f; }
inline Octets high_nibbles(Octets value) { return value >> 4; }

// The four lanes' sums of products. Without SDOT, pairs of products are added in 16 bits first:
// 2 * 128 * 127 = 32512 fits.
template <int BITS>
inline Ints dot(Ints sums, Octets codes, Octets x) {
    const int8x16_t a = (int8x16_t)codes, b = (int8x16_t)x;
#if defined(__ARM_FEATURE_DOTPROD)
    return (Ints)vdotq_s32((int32x4_t)sums, a, b);
#else
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    const int16x8_t high = vmull_high_s8(a, b);
    return (Ints)vpadalq_s16((int32x4_t)sums, vpaddq_s16(low, high));
#endif
}

inline Floats to_floats(Ints value) { return (Floats)vcvtq_f32_s32((int32x4_t)value); }
inline Floats fused(Floats a, Floats b, Floats c) {
    return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
inline float total(Floats value) { return vaddvq_f32((float32x4_t)value); }

inline std::int32_t largest_lane(Ints value) { return vmaxvq_s32((int32x4_t)value); }
inline std::int32_t sum_lanes(Ints value) { return vaddvq_s32((int32x4_t)value); }

// 32 bytes into the 16 of even and the 16 of odd index.
inline void split_pairs(const void* from, void* even, void* odd) {
    const uint8x16x2_t pairs = vld2q_u8(static_cast<const std::uint8_t*>(from));
    vst1q_u8(static_cast<std::uint8_t*>(even), pairs.val[0]);
    vst1q_u8(static_cast<std::uint8_t*>(odd), pairs.val[1]);
}

// table[index] in every lane.
inline Floats pick(Floats table, Ints index) {
    const Ints bytes = index * 0x04040404 + 0x03020100;
    return (Floats)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)bytes);
}

// WIDTH pairs (zero, scale) of float16.
inline void split_alphas(Ints pairs, Floats& zeros, Floats& scales) {
    zeros = (Floats)vcvt_f32_f16((float16x4_t)vmovn_u32((uint32x4_t)pairs));
    scales = (Floats)vcvt_f32_f16((float16x4_t)vshrn_n_u32((uint32x4_t)pairs, 16));
}
inline void load_pairs(const std::uint16_t* from, Floats& zeros, Floats& scales) {
    const uint16x4x2_t pairs = vld2_u16(from);
    zeros = (Floats)vcvt_f32_f16((float16x4_t)pairs.val[0]);
    scales = (Floats)vcvt_f32_f16((float16x4_t)pairs.val[1]);
}

// One stage of a transposition: the upper H lanes of every 2H lanes of `a` change places with the lower
// H of `b`.
template <int H>
inline void exchange(Ints& a, Ints& b) {
    if constexpr (H == 2) {
        const int64x2_t first = (int64x2_t)a, second = (int64x2_t)b;
        a = (Ints)vtrn1q_s64(first, second);
        b = (Ints)vtrn2q_s64(first, second);
    } else {
        const int32x4_t first = (int32x4_t)a, second = (int32x4_t)b;
        a = (Ints)vtrn1q_s32(first, second);
        b = (Ints)vtrn2q_s32(first, second);
    }
}

#if defined(__ARM_FEATURE_MATMUL_INT8)

// sums[r][v] += the products of `steps` steps of a panel, [step][channel][8], and a tile, [step][row][8].
// One SMMLA multiplies two channels by two rows: (c0 r0, c0 r1, c1 r0, c1 r1).
template <int BITS, int R>
inline void dot_steps(const std::uint8_t* panel, const std::int8_t* x, int steps,
                      Ints (&sums)[R][PANEL_VECTORS]) {
    constexpr int PAIRS = (R + 1) / 2, HALVES = 2 * PANEL_VECTORS;
    int32x4_t squares[PAIRS][HALVES];
#pragma GCC unroll 16
    for (int p = 0; p < PAIRS; ++p) {
#pragma GCC unroll 16
        for (int h = 0; h < HALVES; ++h) squares[p][h] = vdupq_n_s32(0);
    }
    for (int step = 0; step < steps; ++step, panel += HALVES * 16, x += 8 * R) {
        int8x16_t rows[PAIRS];
#pragma GCC unroll 16
        for (int p = 0; p < PAIRS; ++p) {
            // The last row of an odd number stands alone, twice.
            rows[p] =
                2 * p + 1 < R ? vld1q_s8(x + 16 * p) : vcombine_s8(vld1_s8(x + 16 * p), vld1_s8(x + 16 * p));
        }
#pragma GCC unroll 16
        for (int h = 0; h < HALVES; ++h) {
            const int8x16_t codes = (int8x16_t)load_octets(panel + 16 * h);
#pragma GCC unroll 16
            for (int p = 0; p < PAIRS; ++p) squares[p][h] = vmmlaq_s32(squares[p][h], codes, rows[p]);
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < PAIRS; ++p) {
#pragma GCC unroll 16
        for (int v = 0; v < PANEL_VECTORS; ++v) {
            const int32x4_t first = squares[p][2 * v], second = squares[p][2 * v + 1];
            sums[2 * p][v] += (Ints)vuzp1q_s32(first, second);
            if (2 * p + 1 < R) sums[2 * p + 1][v] += (Ints)vuzp2q_s32(first, second);
        }
    }
}

#else

// sums[r][v] += the products of `steps` steps of a panel, [step][channel][4], and a tile, [step][row][4].
template <int BITS, int R>
inline void dot_steps(const std::uint8_t* panel, const std::int8_t* x, int steps,
                      Ints (&sums)[R][PANEL_VECTORS]) {
    for (int step = 0; step < steps; ++step, panel += PANEL_VECTORS * 16, x += 4 * R) {
        Octets words[R];
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) words[r] = repeat_word(x + 4 * r);
#pragma GCC unroll 16
        for (int v = 0; v < PANEL_VECTORS; ++v) {
            const Octets codes = load_octets(panel + 16 * v);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) sums[r][v] = dot<BITS>(sums[r][v], codes, words[r]);
        }
    }
}

#endif

}  // namespace pocketglm::POCKETGLM_ISA
