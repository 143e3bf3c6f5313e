// The arithmetic of the engine: one implementation for each instruction set, chosen at run time.
//
// Every function exists once per instruction set in a table of function pointers (`Kernels`); the
// scalar table is the reference that the others are tested against. Nothing here allocates, starts
// threads or throws; callers split work into ranges of rows.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pocketglm {

struct OutlierRow;

// A linear layer as it lies in a mapped weight file; see docs/package-format.md. Not owned.
struct LinearView {
    const std::uint8_t* codes = nullptr;  // int4/int8 codes, or float16/float32 weights, [rows, row_bytes]
    const std::uint16_t* alpha =
        nullptr;                  // float16 [rows, groups, 2] (zero, scale), [rows, groups, 1] if symmetric
    const float* bias = nullptr;  // [rows], may be unaligned, or null
    std::int32_t rows = 0;
    std::int32_t inputs = 0;         // of the model
    std::int32_t stored_inputs = 0;  // padded to whole groups (quantized formats); else = inputs
    std::int32_t group = 0;          // elements of one group as stored, a multiple of 32
    std::int32_t bits = 0;           // 4, 8, 16 or 32
    bool symmetric = false;

    std::size_t row_bytes() const { return static_cast<std::size_t>(stored_inputs) * bits / 8; }
    std::int32_t groups() const { return bits < 16 ? stored_inputs / group : 0; }
};

// Activation rows prepared for one LinearView's format: quantized to int8 per row and group, in the
// order that the instruction set's dot product wants, with each group's scale and scaled sum.
// `prepare` writes it, `matmul` reads it; its layout is private to the kernels.
struct Activations {
    void* data = nullptr;                  // activation_bytes(...) bytes, 64-byte aligned
    std::int32_t count = 0;                // rows
    const OutlierRow* outliers = nullptr;  // [count], taken out of quantized rows before; or null
};

struct Kernels {
    const char* name;  // "avx512vnni", "avx2vnni", "avx2", "neon_i8mm", "neon_dotprod", "neon", "scalar"

    // Bytes that `count` rows of activations for `linear` need.
    std::size_t (*activation_bytes)(const LinearView& linear, std::int32_t count);
    // Prepare rows [first, last) of x [count, inputs] (row stride in floats).
    void (*prepare)(const LinearView& linear, const float* x, std::size_t stride, std::int32_t first,
                    std::int32_t last, const Activations& out);
    // out[r * out_stride + c] = x[r] . W[c] + bias[c] for all prepared rows r and output channels c in
    // [first, last). `scratch` is scratch_bytes(...) bytes of one thread, which has called `begin` once
    // before. Where `adds_outliers`, the outliers' products are added as well: their weights are at hand,
    // unpacked.
    std::size_t (*scratch_bytes)(const LinearView& linear, std::int32_t count);
    void (*begin)(const LinearView& linear, const Activations& x, void* scratch);
    bool (*adds_outliers)(std::int32_t count);
    void (*matmul)(const LinearView& linear, const Activations& x, std::int32_t first, std::int32_t last,
                   float* out, std::size_t out_stride, void* scratch);
    // Channels a call of `matmul` should take at least, and a multiple of which ranges should be. Few long
    // ranges are best: with few rows the kernels read two streams, half a range apart; with many rows they
    // fetch the next panels of the same range.
    std::int32_t (*channel_step)(const LinearView& linear, std::int32_t count);

    // What the machine can do at most, for benchmarks and plans: read `bytes` of memory in order, and
    // multiply bytes that stay in registers (`rounds` rounds of dot_operations multiplications and
    // additions). The results depend on all of the work, so that no compiler drops it.
    std::uint64_t (*read)(const void* memory, std::size_t bytes);
    std::uint64_t (*dot_products)(std::size_t rounds);
    std::size_t dot_operations;
};

// The best table this machine can run, or the one POCKETGLM_ISA names (null if it cannot run here).
const Kernels* choose_kernels(const char* name_or_null);
// All names that this machine can run, best first; ends with a null pointer.
const char* const* runnable_kernels();

}  // namespace pocketglm
