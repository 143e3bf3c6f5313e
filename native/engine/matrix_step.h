// One matrix product of a team: rows are prepared by whoever has them, channels are shared out.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "decoder_math.h"
#include "kernels.h"
#include "team.h"

namespace pocketglm {

// Rows a thread takes at a time in steps that go row by row. Rows of tiles in pairs, which share lines of the
// cache.
inline int row_piece(const Member& member, int rows) {
    const int pair = rows > member.count() && rows > 4 ? 2 : 1;
    return std::clamp(rows / (4 * member.count()), pair, 16);
}

// Channels of a piece, of `channels`, for `count` rows: enough pieces that a thread which starts late leaves
// its part to the others, and, where outliers are added afterwards, so few bytes that the weights which they
// need are still in the second-level cache.
inline std::int32_t most_channels(const Kernels& kernels, const LinearView& linear, std::int32_t channels,
                                  std::int32_t count, int threads) {
    constexpr std::int32_t PIECES_PER_THREAD = 8;
    constexpr std::size_t PIECE_BYTES = 512 << 10;
    const std::int32_t even = channels / (PIECES_PER_THREAD * threads);
    if (kernels.adds_outliers(count)) return even;
    return static_cast<std::int32_t>(std::min<std::size_t>(even, PIECE_BYTES / linear.row_bytes()));
}

// The products x W^T of rows, in two steps with a barrier between them.
struct MatrixStep {
    const Kernels& kernels;
    const DecoderMath& math;
    Activations activations;
    OutlierRow* outliers;  // [activations.count]

    // Makes rows [first, last) of x ready, and takes their outliers out of x.
    void prepare(const LinearView& linear, float* x, std::size_t stride, int first, int last,
                 float ratio) const {
        if (linear.bits < 16) {
            for (int row = first; row < last; ++row) {
                math.take_outliers(x + row * stride, linear.inputs, ratio, outliers + row);
            }
        }
        kernels.prepare(linear, x, stride, first, last, activations);
    }

    // out[r * stride + c] for all rows and the channels this member gets.
    void multiply(Member& member, const LinearView& linear, float* out, std::size_t stride,
                  void* scratch) const;

    Pieces channel_pieces(const Member& member, const LinearView& linear) const {
        const std::int32_t step = kernels.channel_step(linear, activations.count);
        const std::int32_t most =
            most_channels(kernels, linear, linear.rows, activations.count, member.count());
        return {std::max(step, (most + step - 1) / step * step), step};
    }
};

// A thread's part in a step.
class MatrixProduct {
  public:
    MatrixProduct(const MatrixStep& step, const LinearView& linear, void* scratch)
        : step_(step), x_(step.activations), scratch_(scratch) {
        if (linear.bits < 16) x_.outliers = step.outliers;
        step.kernels.begin(linear, x_, scratch);
    }

    // out[r * stride + c] for all rows and the channels [first, last) of the layer, or of a part of it.
    void multiply(const LinearView& linear, int first, int last, float* out, std::size_t stride) const {
        step_.kernels.matmul(linear, x_, first, last, out, stride, scratch_);
        if (x_.outliers == nullptr || step_.kernels.adds_outliers(x_.count)) return;
        step_.math.add_outliers(linear, x_.outliers, x_.count, first, last, out, stride, scratch_);
    }

  private:
    const MatrixStep& step_;
    Activations x_;
    void* scratch_;
};

inline void MatrixStep::multiply(Member& member, const LinearView& linear, float* out, std::size_t stride,
                                 void* scratch) const {
    const MatrixProduct product(*this, linear, scratch);
    member.share(linear.rows, channel_pieces(member, linear),
                 [&](int first, int last) { product.multiply(linear, first, last, out, stride); });
}

// Bytes of a thread's scratch memory that a step with `rows` rows needs.
inline std::size_t step_scratch_bytes(const Kernels& kernels, const LinearView& linear, std::int32_t rows) {
    const std::size_t outliers = linear.bits < 16 ? outlier_scratch_bytes(linear.inputs, rows) : 0;
    return std::max(kernels.scratch_bytes(linear, rows), outliers);
}

}  // namespace pocketglm
