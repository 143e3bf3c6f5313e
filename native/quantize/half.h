// float16, in integer and float32 arithmetic that is the same on every machine.
#pragma once

#include "lanes.h"

namespace pocketglm::quantize::POCKETGLM_ISA {

constexpr int32_t SIGN = INT32_MIN;
constexpr int32_t LEAST_NORMAL = 0x38800000;   // 2^-14 as float32
constexpr int32_t PAST_GREATEST = 0x47800000;  // 65536, what values beyond 65504 round to
constexpr int32_t INFINITE = 0x7f800000;

// Each value rounded to the nearest float16, ties to even; infinity past the greatest, and for NaN.
inline Floats round_half(Floats value) {
    const Ints bits = (Ints)value;
    const Ints sign = bits & SIGN;
    const Ints magnitude = bits & ~SIGN;
    // Drop 13 bits of the mantissa.
    const Ints normal = (magnitude + 0xfff + ((magnitude >> 13) & 1)) & ~0x1fff;
    // Subnormal float16 are the multiples of 2^-24, which is the last bit of numbers around 0.75.
    const Ints subnormal = (Ints)(((Floats)magnitude + 0.75f) - 0.75f);
    Ints rounded = magnitude < LEAST_NORMAL ? subnormal : normal;
    rounded = rounded >= PAST_GREATEST ? Ints{} + INFINITE : rounded;
    return (Floats)(rounded | sign);
}

// Bit pattern of a float that is a float16 value already.
inline uint16_t half_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = (bits >> 16) & 0x8000;
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude >= static_cast<uint32_t>(LEAST_NORMAL)) {
        return static_cast<uint16_t>(sign | ((magnitude - 0x38000000) >> 13));  // rebias by 112
    }
    float positive;
    std::memcpy(&positive, &magnitude, sizeof positive);
    return static_cast<uint16_t>(sign | static_cast<uint32_t>(positive * 16777216.0f));
}

// Value of a finite float16; infinity and NaN keep their meaning.
inline float half_value(uint16_t half) {
    const uint32_t exponent = half & 0x7c00;
    uint32_t bits = static_cast<uint32_t>(half & 0x7fff) << 13;
    float value;
    if (exponent == 0x7c00) {
        bits |= 0x7f800000;
        std::memcpy(&value, &bits, sizeof value);
    } else {
        std::memcpy(&value, &bits, sizeof value);
        value = exponent == 0 ? static_cast<float>(half & 0x3ff) * 0x1p-24f : value * 0x1p112f;
    }
    return (half & 0x8000) != 0 ? -value : value;
}

}  // namespace pocketglm::quantize::POCKETGLM_ISA
