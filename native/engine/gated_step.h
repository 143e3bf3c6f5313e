// The widening product of a gated MLP: a thread multiplies some channels of the gate, then those of the up
// projection that go with them, and keeps silu(gate) * up alone. Half as much is written as by one product
// for both, and half the memory holds it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "matrix_step.h"
#include "memory.h"

namespace pocketglm {

// The channels [first, first + count) of a linear layer, as a layer of their own.
inline LinearView channels_of(const LinearView& linear, std::int32_t first, std::int32_t count) {
    LinearView part = linear;
    part.codes += linear.row_bytes() * first;
    if (linear.bits < 16) {
        part.alpha += static_cast<std::size_t>(first) * linear.groups() * (linear.symmetric ? 1 : 2);
    }
    if (linear.bias != nullptr) part.bias += first;
    part.rows = count;
    return part;
}

// `linear` has the gate's channels, then as many of the up projection.
class GatedStep {
  public:
    GatedStep(const Kernels& kernels, const LinearView& linear, std::int32_t rows, int threads)
        : linear_(linear),
          size_(linear.rows / 2),
          rows_(rows),
          step_(kernels.channel_step(linear, rows)),
          own_scratch_(round_up(step_scratch_bytes(kernels, linear, rows))),
          most_(most_channels(kernels, linear, size_, rows, threads)) {}

    // Bytes of a thread's scratch memory. Fewer rows never need more.
    std::size_t scratch_bytes() const {
        const std::size_t values = std::max(cached_values(), static_cast<std::size_t>(rows_) * step_);
        return own_scratch_ + sizeof(float) * (values + static_cast<std::size_t>(rows_) * PADDING);
    }

    // out[r * size + c] = silu(gate) * up for all rows and the channels this member gets.
    void multiply(Member& member, const MatrixStep& step, float* out, std::uint8_t* scratch) const {
        float* up = reinterpret_cast<float*>(scratch + own_scratch_);
        const std::int32_t piece = channel_piece();
        const std::size_t stride = piece + PADDING;
        const MatrixProduct product(step, linear_, scratch);
        member.share(size_, Pieces(piece, step_), [&](int first, int last) {
            const std::int32_t count = last - first;
            product.multiply(channels_of(linear_, first, count), 0, count, out + first, size_);
            product.multiply(channels_of(linear_, size_ + first, count), 0, count, up, stride);
            for (std::int32_t row = 0; row < rows_; ++row) {
                float* gate = out + static_cast<std::size_t>(row) * size_ + first;
                step.math.gated_silu(gate, up + row * stride, last - first, gate);
            }
        });
    }

  private:
    static constexpr std::int32_t PADDING = 16;  // rows a power of two apart would share sets of the cache
    // What a piece makes of the up projection is read at once, out of the second-level cache.
    static constexpr std::size_t CACHED_VALUES = 64 << 10;

    static std::size_t round_up(std::size_t bytes) {
        return (bytes + Buffer::ALIGNMENT - 1) / Buffer::ALIGNMENT * Buffer::ALIGNMENT;
    }

    std::size_t cached_values() const {
        return std::min(CACHED_VALUES, static_cast<std::size_t>(rows_) * most_);
    }
    std::int32_t channel_piece() const {
        const auto channels = static_cast<std::int32_t>(cached_values() / rows_);
        return std::max(step_, channels / step_ * step_);
    }

    const LinearView& linear_;
    std::int32_t size_, rows_, step_;
    std::size_t own_scratch_;
    std::int32_t most_;
};

}  // namespace pocketglm
