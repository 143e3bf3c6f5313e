// Integer dot products and data movement with AVX2: 8 lanes of 32 bits; VPDPBUSD where the CPU has it.
#pragma once

#include <immintrin.h>

#include "vectors.h"

namespace pocketglm::POCKETGLM_ISA {

using namespace decoder::POCKETGLM_ISA;

typedef std::uint8_t Octets __attribute__((vector_size(4 * WIDTH)));

#if defined(POCKETGLM_VNNI_VEX) || defined(POCKETGLM_VNNI_EVEX)
#define POCKETGLM_VNNI
#endif

constexpr int STEP_BYTES = 4;      // inputs of one channel that one lane of a dot product takes
constexpr int STEPS_TOGETHER = 8;  // of a row in a tile: no two threads write one line at a time
constexpr int PANEL_VECTORS = 2;
#if defined(POCKETGLM_VNNI)
constexpr int TILE_ROWS = 6;  // 12 accumulators of the 16 registers
constexpr bool SIGNED_CODES = false;
#else
constexpr int TILE_ROWS = 4;  // 8 accumulators: the products need registers, too
constexpr bool SIGNED_CODES = true;
#endif

inline Octets load_octets(const void* from) {
    return (Octets)_mm256_loadu_si256(static_cast<const __m256i*>(from));
}
inline Octets load_octets_part(const void* from, int count) {
    Octets value{};
    std::memcpy(&value, from, count);
    return value;
}
inline void store_octets(void* to, Octets value) {
    _mm256_storeu_si256(static_cast<__m256i*>(to), (__m256i)value);
}
inline Octets repeat_word(const void* from) {
    std::int32_t word;
    std::memcpy(&word, from, sizeof word);
    return (Octets)_mm256_set1_epi32(word);
}

inline Octets low_nibbles(Octets value) {
    return (Octets)_mm256_and_si256((__m256i)value, _mm256_set1_epi8(0x0f));
}
inline Octets high_nibbles(Octets value) {
    return (Octets)_mm256_and_si256(_mm256_srli_epi16((__m256i)value, 4), _mm256_set1_epi8(0x0f));
}

// Pairs of products in 16 bits. VPMADDUBSW saturates: nibbles stay far below, 2 * 15 * 127 = 3810; signed
// codes of 8 bits are multiplied as |code| * (x with the code's sign), at most 2 * 128 * 127 = 32512.
template <int BITS>
inline __m256i pair_products(Octets codes, Octets x) {
    if constexpr (BITS == 4) return _mm256_maddubs_epi16((__m256i)codes, (__m256i)x);
    return _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)codes),
                                _mm256_sign_epi8((__m256i)x, (__m256i)codes));
}

inline Ints add_pairs(Ints sums, __m256i pairs) {
    return (Ints)_mm256_add_epi32((__m256i)sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

template <int BITS>
inline Ints dot(Ints sums, Octets codes, Octets x) {
#if defined(POCKETGLM_VNNI_VEX)
    return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)codes, (__m256i)x);
#elif defined(POCKETGLM_VNNI_EVEX)
    asm("%{evex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(codes), "xm"(x));
    return sums;
#else
    return add_pairs(sums, pair_products<BITS>(codes, x));
#endif
}

inline Floats to_floats(Ints value) { return (Floats)_mm256_cvtepi32_ps((__m256i)value); }
inline Floats fused(Floats a, Floats b, Floats c) {
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
inline float total(Floats value) {
    const __m128 four =
        _mm_add_ps(_mm256_castps256_ps128((__m256)value), _mm256_extractf128_ps((__m256)value, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

inline std::int32_t largest_lane(Ints value) {
    const __m128i upper = _mm256_extracti128_si256((__m256i)value, 1);
    const __m128i four = _mm_max_epi32(_mm256_castsi256_si128((__m256i)value), upper);
    const __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}
inline std::int32_t sum_lanes(Ints value) {
    const __m128i upper = _mm256_extracti128_si256((__m256i)value, 1);
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128((__m256i)value), upper);
    const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

// 32 bytes into the 16 of even and the 16 of odd index.
inline void split_pairs(const void* from, void* even, void* odd) {
    const __m128i* at = static_cast<const __m128i*>(from);
    const __m128i first = _mm_loadu_si128(at), second = _mm_loadu_si128(at + 1), low = _mm_set1_epi16(0xff);
    _mm_storeu_si128(static_cast<__m128i*>(even),
                     _mm_packus_epi16(_mm_and_si128(first, low), _mm_and_si128(second, low)));
    _mm_storeu_si128(static_cast<__m128i*>(odd),
                     _mm_packus_epi16(_mm_srli_epi16(first, 8), _mm_srli_epi16(second, 8)));
}

// table[index] in every lane.
inline Floats pick(Floats table, Ints index) {
    return (Floats)_mm256_permutevar8x32_ps((__m256)table, (__m256i)index);
}

// WIDTH pairs (zero, scale) of float16.
inline void split_alphas(Ints pairs, Floats& zeros, Floats& scales) {
    const __m256i lower = _mm256_and_si256((__m256i)pairs, _mm256_set1_epi32(0xffff));
    const __m256i mixed = _mm256_packus_epi32(lower, _mm256_srli_epi32((__m256i)pairs, 16));
    const __m256i sorted = _mm256_permute4x64_epi64(mixed, 0xd8);
    zeros = (Floats)_mm256_cvtph_ps(_mm256_castsi256_si128(sorted));
    scales = (Floats)_mm256_cvtph_ps(_mm256_extracti128_si256(sorted, 1));
}
inline void load_pairs(const std::uint16_t* from, Floats& zeros, Floats& scales) {
    split_alphas((Ints)load_octets(from), zeros, scales);
}

// One stage of a transposition: the upper H lanes of every 2H lanes of `a` change places with the lower
// H of `b`.
template <int H>
inline void exchange(Ints& a, Ints& b) {
    const __m256i first = (__m256i)a, second = (__m256i)b;
    if constexpr (H == 4) {
        a = (Ints)_mm256_permute2x128_si256(first, second, 0x20);
        b = (Ints)_mm256_permute2x128_si256(first, second, 0x31);
    } else if constexpr (H == 2) {
        a = (Ints)_mm256_unpacklo_epi64(first, second);
        b = (Ints)_mm256_unpackhi_epi64(first, second);
    } else {
        a = (Ints)_mm256_blend_epi32(first, _mm256_slli_epi64(second, 32), 0xaa);
        b = (Ints)_mm256_blend_epi32(_mm256_srli_epi64(first, 32), second, 0xaa);
    }
}

// sums[r][v] += the products of `steps` steps of a panel, [step][channel][4], and a tile.
template <int BITS, int R>
inline void dot_steps(const std::uint8_t* panel, const std::int8_t* x, int steps,
                      Ints (&sums)[R][PANEL_VECTORS]) {
    constexpr int RUN = 4 * STEPS_TOGETHER;
#if !defined(POCKETGLM_VNNI)
    if constexpr (BITS == 4) {
        // 8 pairs of nibbles' products fit 16 bits (8 * 3810 < 32768): widen once for 8 steps.
        static_assert(STEPS_TOGETHER <= 8, "or the pairs' sums saturate");
        for (int start = 0; start < steps; start += STEPS_TOGETHER, x += RUN * (R - 1)) {
            __m256i pairs[R][PANEL_VECTORS] = {};
            for (int step = 0; step < STEPS_TOGETHER; ++step, panel += 64, x += 4) {
                const Octets codes0 = load_octets(panel), codes1 = load_octets(panel + 32);
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) {
                    const Octets word = repeat_word(x + RUN * r);
                    pairs[r][0] = _mm256_add_epi16(pairs[r][0], pair_products<4>(codes0, word));
                    pairs[r][1] = _mm256_add_epi16(pairs[r][1], pair_products<4>(codes1, word));
                }
            }
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                sums[r][0] = add_pairs(sums[r][0], pairs[r][0]);
                sums[r][1] = add_pairs(sums[r][1], pairs[r][1]);
            }
        }
        return;
    }
#endif
    for (int start = 0; start < steps; start += STEPS_TOGETHER, x += RUN * (R - 1)) {
        for (int step = 0; step < STEPS_TOGETHER; ++step, panel += 64, x += 4) {
            const Octets codes0 = load_octets(panel), codes1 = load_octets(panel + 32);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                const Octets word = repeat_word(x + RUN * r);
                sums[r][0] = dot<BITS>(sums[r][0], codes0, word);
                sums[r][1] = dot<BITS>(sums[r][1], codes1, word);
            }
        }
    }
}

}  // namespace pocketglm::POCKETGLM_ISA
