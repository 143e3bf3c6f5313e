// The quantize kernels: one table of functions per instruction set, chosen at run time.
//
// src/pocketglm/quantize/reference.py has the same functions in NumPy and says what they compute.
// Every instruction set gives the same bytes: sums have a fixed order, nothing is contracted to
// fused multiply-adds, and only correctly rounded operations (+ - * /) are used.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pocketglm::quantize {

// How the rows of one matrix are stored. All sizes are in elements.
struct Layout {
    size_t rows;
    size_t inputs;      // of the matrix
    size_t groups;      // in one row
    size_t group_size;  // a multiple of 32; groups * group_size >= inputs
    int bits;           // 4 or 8
    bool symmetric;

    size_t stored_inputs() const { return groups * group_size; }
    size_t code_bytes() const { return stored_inputs() * bits / 8; }
    size_t alpha_values() const { return groups * (symmetric ? 1 : 2); }
};

// Scratch memory of one call, owned by the caller: the kernels allocate nothing.
struct Workspace {
    float* row;     // [stored_inputs]
    int8_t* codes;  // [stored_inputs]
};

struct Comparison {
    double squared_error, squared_norm, squared_stored, dot;
    float max_abs_error;
};

struct Kernels {
    // importance: [stored_inputs], 0 in the padding, or null where all count the same and nothing is
    // padded. mass: [groups], its sums, or null with it. codes: [rows, code_bytes].
    // alpha: [rows, alpha_values] float16 bit patterns.
    void (*quantize)(const Layout&, const float* weights, const float* importance, const float* mass,
                     bool search, Workspace, uint8_t* codes, uint16_t* alpha);
    // weights: [rows, inputs]. Uses workspace.row.
    void (*dequantize)(const Layout&, const uint8_t* codes, const uint16_t* alpha, Workspace, float* weights);
    Comparison (*compare)(const float* original, const float* stored, size_t rows, size_t inputs);
    // Index of the first value that float16 cannot hold (NaN included), or `count`.
    size_t (*first_unrepresentable)(const float* values, size_t count);
};

namespace baseline {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

}  // namespace pocketglm::quantize
