// Integer dot products and data movement with AVX-512 VNNI: 16 lanes of 32 bits.
#pragma once

#include <immintrin.h>

#include "vectors.h"

namespace pocketglm::POCKETGLM_ISA {

using namespace decoder::POCKETGLM_ISA;

typedef std::uint8_t Octets __attribute__((vector_size(4 * WIDTH)));

constexpr int STEP_BYTES = 4;      // inputs of one channel that one lane of a dot product takes
constexpr int STEPS_TOGETHER = 8;  // of a row in a tile: no two threads write one line at a time
constexpr int PANEL_VECTORS = 2;   // 28 accumulators of the 32 registers in a tile of 14 rows
constexpr int TILE_ROWS = 14;
constexpr bool SIGNED_CODES = false;  // VPDPBUSD takes the stored, unsigned codes

inline Octets load_octets(const void* from) { return (Octets)_mm512_loadu_si512(from); }
inline Octets load_octets_part(const void* from, int count) {
    return (Octets)_mm512_maskz_loadu_epi8((1ull << count) - 1, from);
}
inline void store_octets(void* to, Octets value) { _mm512_storeu_si512(to, (__m512i)value); }
inline Octets repeat_word(const void* from) {
    std::int32_t word;
    std::memcpy(&word, from, sizeof word);
    return (Octets)_mm512_set1_epi32(word);
}

inline Octets low_nibbles(Octets value) {
    return (Octets)_mm512_and_si512((__m512i)value, _mm512_set1_epi8(0x0f));
}
inline Octets high_nibbles(Octets value) {
    return (Octets)_mm512_and_si512(_mm512_srli_epi16((__m512i)value, 4), _mm512_set1_epi8(0x0f));
}

template <int BITS>
inline Ints dot(Ints sums, Octets codes, Octets x) {
    return (Ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)codes, (__m512i)x);
}
// The same for sums that stay in registers through a loop: GCC 12 moves those of the intrinsic about.
template <int BITS>
inline Ints add_dot(Ints sums, Octets codes, Octets x) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(codes), "v"(x));
    return sums;
}

inline Floats to_floats(Ints value) { return (Floats)_mm512_cvtepi32_ps((__m512i)value); }
inline Floats fused(Floats a, Floats b, Floats c) {
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
inline float total(Floats value) { return _mm512_reduce_add_ps((__m512)value); }

inline std::int32_t largest_lane(Ints value) { return _mm512_reduce_max_epi32((__m512i)value); }
inline std::int32_t sum_lanes(Ints value) { return _mm512_reduce_add_epi32((__m512i)value); }

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
    return (Floats)_mm512_permutexvar_ps((__m512i)index, (__m512)table);
}

// WIDTH pairs (zero, scale) of float16.
inline void split_alphas(Ints pairs, Floats& zeros, Floats& scales) {
    const __m512i upper = _mm512_srli_epi32((__m512i)pairs, 16);
    zeros = (Floats)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)pairs));
    scales = (Floats)_mm512_cvtph_ps(_mm512_cvtepi32_epi16(upper));
}
inline void load_pairs(const std::uint16_t* from, Floats& zeros, Floats& scales) {
    split_alphas((Ints)_mm512_loadu_si512(from), zeros, scales);
}

// In every four lanes, vector i, lane j becomes vector j, lane i.
inline void transpose_within(Ints (&m)[4]) {
    const __m512i a = (__m512i)m[0], b = (__m512i)m[1], c = (__m512i)m[2], d = (__m512i)m[3];
    const __m512i ab0 = _mm512_unpacklo_epi32(a, b), ab2 = _mm512_unpackhi_epi32(a, b);
    const __m512i cd0 = _mm512_unpacklo_epi32(c, d), cd2 = _mm512_unpackhi_epi32(c, d);
    m[0] = (Ints)_mm512_unpacklo_epi64(ab0, cd0);
    m[1] = (Ints)_mm512_unpackhi_epi64(ab0, cd0);
    m[2] = (Ints)_mm512_unpacklo_epi64(ab2, cd2);
    m[3] = (Ints)_mm512_unpackhi_epi64(ab2, cd2);
}

// Of fours of lanes: vector i, four j becomes vector j, four i.
inline void transpose_across(Ints (&m)[4]) {
    constexpr int EVEN = 0x88, ODD = 0xdd;  // two of four lanes from each
    const __m512i a = (__m512i)m[0], b = (__m512i)m[1], c = (__m512i)m[2], d = (__m512i)m[3];
    const __m512i even0 = _mm512_shuffle_i32x4(a, b, EVEN), odd0 = _mm512_shuffle_i32x4(a, b, ODD);
    const __m512i even1 = _mm512_shuffle_i32x4(c, d, EVEN), odd1 = _mm512_shuffle_i32x4(c, d, ODD);
    m[0] = (Ints)_mm512_shuffle_i32x4(even0, even1, EVEN);
    m[1] = (Ints)_mm512_shuffle_i32x4(odd0, odd1, EVEN);
    m[2] = (Ints)_mm512_shuffle_i32x4(even0, even1, ODD);
    m[3] = (Ints)_mm512_shuffle_i32x4(odd0, odd1, ODD);
}

// sums[r][v] += the products of `steps` steps of a panel, [step][channel][4], and a tile.
template <int BITS, int R>
inline void dot_steps(const std::uint8_t* panel, const std::int8_t* x, int steps,
                      Ints (&sums)[R][PANEL_VECTORS]) {
    constexpr int RUN = 4 * STEPS_TOGETHER;
    for (int start = 0; start < steps; start += STEPS_TOGETHER, x += RUN * (R - 1)) {
        for (int step = 0; step < STEPS_TOGETHER; ++step, panel += 128, x += 4) {
            const Octets codes0 = load_octets(panel), codes1 = load_octets(panel + 64);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                const Octets word = repeat_word(x + RUN * r);
                sums[r][0] = add_dot<BITS>(sums[r][0], codes0, word);
                sums[r][1] = add_dot<BITS>(sums[r][1], codes1, word);
            }
        }
    }
}

}  // namespace pocketglm::POCKETGLM_ISA
