// Vectors of the compiled instruction set's own width, with the operations that the decoder's row
// functions and attention need.
//
// GCC's and Clang's vector extension: the arithmetic is written once and compiled per instruction set.
// Everything is in the instruction set's own namespace, so that the linker never swaps one build of a
// function for another's; for the same reason nothing here uses templates of the standard library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace pocketglm::decoder::POCKETGLM_ISA {

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t Words __attribute__((vector_size(4 * WIDTH)));
typedef uint16_t Halves __attribute__((vector_size(2 * WIDTH)));
typedef int8_t Bytes __attribute__((vector_size(WIDTH)));

// Not `Floats{} + value`: the compiler must keep that addition, since it turns -0 into 0.
inline Floats all(float value) {
#if defined(__AVX512F__)
    return (Floats)_mm512_set1_ps(value);
#elif defined(__AVX2__)
    return (Floats)_mm256_set1_ps(value);
#else
    return Floats{value, value, value, value};
#endif
}

inline Floats load(const float* from) {
    Floats value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

inline void store(float* to, Floats value) { std::memcpy(to, &value, sizeof value); }

// The first `count` lanes; the others are zero.
inline Floats load_part(const float* from, int count) {
    Floats value{};
    std::memcpy(&value, from, sizeof(float) * count);
    return value;
}

inline void store_part(float* to, Floats value, int count) { std::memcpy(to, &value, sizeof(float) * count); }

inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
inline Floats greater(Floats a, Floats b) { return a > b ? a : b; }
inline Floats absolute(Floats value) { return (Floats)((Ints)value & 0x7fffffff); }

inline float sum(Floats value) {
    float lanes[WIDTH];
    store(lanes, value);
    for (int half = WIDTH / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    }
    return lanes[0];
}

inline float largest(Floats value) {
    float lanes[WIDTH];
    store(lanes, value);
    float result = lanes[0];
    for (int i = 1; i < WIDTH; ++i) result = lanes[i] > result ? lanes[i] : result;
    return result;
}

inline bool any_above(Floats value, float limit) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)value, _mm512_set1_ps(limit), _CMP_GT_OQ) != 0;
#elif defined(__AVX2__)
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)value, _mm256_set1_ps(limit), _CMP_GT_OQ)) != 0;
#else
    return largest(value) > limit;
#endif
}

// e^x with a relative error below 2e-7; 0 below the smallest normal float32, and at most e^88.3.
// x = n ln 2 + r with |r| <= ln 2 / 2: the Taylor series of e^r to r^7 errs by less than 1e-8.
inline Floats exponential(Floats x) {
    constexpr float LOWEST = -87.33654f, HIGHEST = 88.37626f;
    constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: a sum with it rounds to the nearest integer
    constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;  // high part: 9 bits, n * it is exact
    const Floats bounded = smaller(greater(x, all(LOWEST)), all(HIGHEST));
    const Floats shifted = bounded * 1.44269504f + ROUND;
    const Floats n = shifted - ROUND;
    const Floats r = (bounded - n * LN2_HIGH) - n * LN2_LOW;
    Floats series = r * (1.0f / 5040) + (1.0f / 720);
    series = series * r + (1.0f / 120);
    series = series * r + (1.0f / 24);
    series = series * r + (1.0f / 6);
    series = series * r + 0.5f;
    series = series * r + 1.0f;
    series = series * r + 1.0f;
    // The integer n stands in the low bits of `shifted`; 2^n is its exponent field.
    const Ints power = ((Ints)shifted << 23) + (127 << 23);
    const Floats result = series * (Floats)power;
    return x < all(LOWEST) ? Floats{} : result;
}

// float16 values, as stored, to float32.
inline Floats from_halves(const uint16_t* from) {
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__AVX2__)
    return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#elif defined(__aarch64__)
    __fp16 halves __attribute__((vector_size(8)));
    std::memcpy(&halves, from, sizeof halves);
    return __builtin_convertvector(halves, Floats);
#else
    Halves raw;
    std::memcpy(&raw, from, sizeof raw);
    const Words bits = __builtin_convertvector(raw, Words);
    // The exponent and fraction moved into place, scaled by 2^112: right for normal and subnormal values.
    const Floats scaled = (Floats)((bits & 0x7fffu) << 13) * 5.192296858534828e33f;
    return (Floats)((Words)scaled | ((bits & 0x8000u) << 16));
#endif
}

inline float from_half(uint16_t half) {
#if defined(__AVX2__)
    return _cvtsh_ss(half);
#else
    uint16_t halves[WIDTH] = {half};
    return from_halves(halves)[0];
#endif
}

// float32 to float16, rounded to nearest even; values beyond its range become its largest, 65504.
inline void to_halves(uint16_t* to, Floats value) {
    const Floats bounded = smaller(greater(value, all(-65504.0f)), all(65504.0f));
#if defined(__AVX512F__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph((__m512)bounded, 0));
#elif defined(__AVX2__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph((__m256)bounded, 0));
#else
    const Words sign = ((Words)bounded >> 16) & 0x8000u;
    const Floats size = absolute(bounded);
    // Normal halves: round the 13 fraction bits away, then rebase the exponent.
    const Words bits = (Words)size;
    const Words normal = (bits + 0xfffu + ((bits >> 13) & 1u) - (112u << 23)) >> 13;
    // Subnormal halves: 0.5 has float32's last bit at 2^-24, so the sum with it rounds there.
    const Words subnormal = (Words)(size + 0.5f) - 0x3f000000u;
    const Words chosen = (Words)(size < all(6.103515625e-5f) ? (Floats)subnormal : (Floats)normal);
    const Halves result = __builtin_convertvector(chosen | sign, Halves);
    std::memcpy(to, &result, sizeof result);
#endif
}

inline Floats from_bytes(const int8_t* from) {
#if defined(__AVX512F__)
    const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(raw));
#elif defined(__AVX2__)
    const __m128i raw = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(raw));
#else
    Bytes raw;
    std::memcpy(&raw, from, sizeof raw);
    return __builtin_convertvector(__builtin_convertvector(raw, Ints), Floats);
#endif
}

}  // namespace pocketglm::decoder::POCKETGLM_ISA
