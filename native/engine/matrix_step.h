// One matrix product of a team: rows are prepared by whoever has them, channels are shared out.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels.h"
#include "team.h"

namespace pocketglm {

// Rows a thread takes at a time in steps that go row by row.
inline int row_piece(const Member& member, int rows) {
    return std::clamp(rows / (4 * member.count()), 1, 16);
}

// out[r * stride + c] for all prepared rows and the channels this member gets; the `share` of its step.
inline void multiply_shared(Member& member, const Kernels& kernels, const LinearView& linear,
                            const Activations& x, float* out, std::size_t stride, void* scratch) {
    // Enough pieces that a thread which starts late leaves its part to the others.
    constexpr int PIECES_PER_THREAD = 8;
    const std::int32_t step = kernels.channel_step(linear, x.count);
    const std::int32_t even = linear.rows / (PIECES_PER_THREAD * member.count());
    const std::int32_t piece = std::max(step, (even + step - 1) / step * step);
    member.share(linear.rows, member.count() == 1 ? linear.rows : piece,
                 [&](int first, int last) { kernels.matmul(linear, x, first, last, out, stride, scratch); });
}

}  // namespace pocketglm
