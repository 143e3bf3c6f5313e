// Vectors of the compiled instruction set's own width, with the operations that the kernels need.
//
// GCC's and Clang's vector extension: the arithmetic is written once and compiled per instruction set.
// Everything is in the instruction set's own namespace, so that the linker never swaps one build of
// a function for another's; for the same reason the kernels use no templates of the standard library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace pocketglm::quantize::POCKETGLM_ISA {

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH)));
typedef double Doubles __attribute__((vector_size(8 * WIDTH)));

inline Floats all(float value) { return Floats{} + value; }

inline Floats load(const float* from) {
    Floats value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

inline void store(float* to, Floats value) { std::memcpy(to, &value, sizeof value); }

inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }

inline Floats greater(Floats a, Floats b) { return a > b ? a : b; }

inline Floats absolute(Floats value) { return (Floats)((Ints)value & 0x7fffffff); }

// 1.5 * 2^23: the sum with it has no room for a fraction, so it rounds to the nearest even integer.
constexpr float ROUND = 12582912.0f;

inline Floats round_codes(Floats offset, Floats inverse, Floats low, Floats high) {
    const Floats code = (offset * inverse + ROUND) - ROUND;
    return smaller(greater(code, low), high);
}

}  // namespace pocketglm::quantize::POCKETGLM_ISA
