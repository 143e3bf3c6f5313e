// The table of matrix kernels of one vector instruction set.
#include "matrix.h"
#include "matrix_layout.h"
#include "tables.h"

namespace pocketglm::POCKETGLM_ISA {

namespace {

std::size_t scratch_bytes(const LinearView& linear, std::int32_t count) {
    return count <= ROWS_AT_ONCE ? ALIGNMENT : panel_scratch_bytes(linear);
}

std::int32_t channel_step(const LinearView&, std::int32_t count) {
    constexpr int LEAST_CHANNELS = 16;  // a cache line of a row of the output
    return count <= ROWS_AT_ONCE ? LEAST_CHANNELS : PANELS_AT_ONCE * PANEL;
}

void matmul(const LinearView& linear, const Activations& x, std::int32_t first, std::int32_t last, float* out,
            std::size_t out_stride, void* scratch) {
    if (x.count <= ROWS_AT_ONCE) {
        multiply_rows(linear, x, first, last, out, out_stride);
    } else {
        multiply_panels(linear, x, first, last, out, out_stride, scratch);
    }
}

}  // namespace

const Kernels kernels = {KERNELS_NAME, activation_bytes, prepare, scratch_bytes, matmul, channel_step};

}  // namespace pocketglm::POCKETGLM_ISA
