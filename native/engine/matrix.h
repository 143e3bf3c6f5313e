// The parts of one instruction set's matrix kernels.
#pragma once

#include "kernels.h"

namespace pocketglm::POCKETGLM_ISA {

std::size_t activation_bytes(const LinearView& linear, std::int32_t count);
void prepare(const LinearView& linear, const float* x, std::size_t stride, std::int32_t first,
             std::int32_t last, const Activations& out);

// Few rows: channels are streamed, one after another.
void multiply_rows(const LinearView& linear, const Activations& x, std::int32_t first, std::int32_t last,
                   float* out, std::size_t out_stride);

// One tile of rows in a quantized format: panels of channels are transposed, piece by piece.
std::size_t few_scratch_bytes(std::int32_t count);
void begin_few(const Activations& x, void* scratch);
void multiply_few(const LinearView& linear, const Activations& x, std::int32_t first, std::int32_t last,
                  float* out, std::size_t out_stride, const void* scratch);

// Many rows: panels of channels are unpacked into scratch and used for every tile of rows.
std::size_t panel_scratch_bytes(const LinearView& linear);
void multiply_panels(const LinearView& linear, const Activations& x, std::int32_t first, std::int32_t last,
                     float* out, std::size_t out_stride, void* scratch);

}  // namespace pocketglm::POCKETGLM_ISA
