// What the kernels for panels of output channels share: the part of a layer that is multiplied next, fetching
// it ahead of its turn, its alphas, and rows of sums.
#pragma once

#include <type_traits>

#include "matrix_layout.h"

namespace pocketglm::POCKETGLM_ISA {

// A range of inputs of the channels [first, first + channels).
struct Part {
    const LinearView* linear;
    std::int32_t first, channels;  // at most PANEL
    std::int32_t start, inputs;

    // The channel whose weights stand in column i; columns behind the last repeat it.
    std::int32_t channel(int i) const { return first + (i < channels ? i : channels - 1); }
};

// Lines of the cache that the rows of a part take in one array of the weight file.
class Lines {
  public:
    Lines() = default;
    Lines(const void* array, std::size_t row_bytes, const Part& part, std::size_t start, std::size_t bytes)
        : row_(static_cast<const std::uint8_t*>(array) + row_bytes * part.first + start),
          row_bytes_(row_bytes),
          in_row_(static_cast<int>((bytes + LINE - 1) / LINE)),
          left_(in_row_ * part.channels) {}

    int left() const { return left_; }
    inline void fetch_one() {
        __builtin_prefetch(row_ + line_ * LINE, 0, 2);
        --left_;
        if (++line_ == in_row_) {
            line_ = 0;
            row_ += row_bytes_;
        }
    }

  private:
    const std::uint8_t* row_ = nullptr;
    std::size_t row_bytes_ = 0;
    int in_row_ = 0, line_ = 0, left_ = 0;
};

// The weights to be unpacked next, fetched into the second-level cache little by little while the dot
// products run: a panel's rows lie too far apart for the hardware to foresee.
class Ahead {
  public:
    Ahead() = default;
    explicit Ahead(const Part& part) {
        const LinearView& linear = *part.linear;
        const auto bytes = [&](std::int32_t inputs) {
            return static_cast<std::size_t>(inputs) * linear.bits / 8;
        };
        codes_ = Lines(linear.codes, linear.row_bytes(), part, bytes(part.start), bytes(part.inputs));
        if (linear.bits >= 16) return;
        const std::size_t alpha_bytes = sizeof(std::uint16_t) * (linear.symmetric ? 1 : 2);
        const auto groups = [&](std::int32_t inputs) { return alpha_bytes * (inputs / linear.group); };
        alpha_ = Lines(linear.alpha, groups(linear.stored_inputs), part, groups(part.start),
                       groups(part.inputs + linear.group - 1));
    }

    int left() const { return codes_.left() + alpha_.left(); }
    inline void fetch(int count) {
        for (; count > 0 && codes_.left() > 0; --count) codes_.fetch_one();
        for (; count > 0 && alpha_.left() > 0; --count) alpha_.fetch_one();
    }

  private:
    Lines codes_, alpha_;
};

// One channel's alphas of WIDTH blocks from block `first`, of which `count` exist: pairs (zero, scale) of
// float16, or, if symmetric, scales in float32. Lanes behind the last block are anything.
inline Ints alphas_of_channel(const LinearView& linear, const Blocks& blocks, const std::uint16_t* alpha,
                              int first, int count) {
    std::uint16_t gathered[2 * WIDTH];
    const std::uint16_t* from = alpha + first * (linear.symmetric ? 1 : 2);
    if (__builtin_expect(blocks.per_group > 1, 0)) {
        gather_alpha(blocks, linear.symmetric, alpha, first, count, gathered);
        from = gathered;
    } else if (count < WIDTH && linear.symmetric) {
        std::memcpy(gathered, from, sizeof *from * count);
        from = gathered;
    } else if (count < WIDTH) {
        return (Ints)load_octets_part(from, 2 * sizeof *from * count);
    }
    return linear.symmetric ? (Ints)from_halves(from) : (Ints)load_octets(from);
}

// The codes of one input in a vector of channels, [channel][STEP_BYTES] at `from`.
template <int BITS>
inline Ints codes_of_input(const void* from, int byte) {
    constexpr bool SIGNED = BITS == 8 && SIGNED_CODES;
    Ints codes;
    if constexpr (STEP_BYTES == 4) {
        std::memcpy(&codes, from, sizeof codes);
        const Ints upper = codes << (24 - 8 * byte);
        codes = SIGNED ? upper >> 24 : (Ints)((Words)upper >> 24);
    } else {
        for (int c = 0; c < WIDTH; ++c) {
            const std::uint8_t code = static_cast<const std::uint8_t*>(from)[c * STEP_BYTES + byte];
            codes[c] = SIGNED ? static_cast<std::int8_t>(code) : code;
        }
    }
    return codes;
}

// Zeros and scales of what `alphas_of_channel` returned. The zeros are those of unsigned codes.
template <int BITS>
inline void convert_alphas(bool symmetric, Ints alphas, Floats& zeros, Floats& scales) {
    if (symmetric) {
        scales = (Floats)alphas;
        zeros = scales * all(-middle_code<BITS>());
    } else {
        split_alphas(alphas, zeros, scales);
        zeros = fused(scales, all(-middle_code<BITS>()), zeros);
    }
}

// Calls body with `rows` as a constant of the compiler.
template <int R = TILE_ROWS, typename Body>
inline void with_rows(int rows, const Body& body) {
    if constexpr (R > 0) {
        if (rows == R) {
            body(std::integral_constant<int, R>());
        } else {
            with_rows<R - 1>(rows, body);
        }
    }
}

// The bias of a part's channels for `rows` rows; columns behind the last channel stay as they are.
inline void begin_rows(const Part& part, int rows, float* tile) {
    if (part.linear->bias == nullptr) {
        for (int i = 0; i < PANEL * rows; i += WIDTH) store(tile + i, Floats{});
        return;
    }
    for (int i = 0; i < part.channels; ++i) tile[i] = bias_of(*part.linear, part.first + i);
    for (int r = 1; r < rows; ++r) std::memcpy(tile + r * PANEL, tile, sizeof(float) * PANEL);
}

inline void copy_rows(const float* from, std::size_t from_stride, int rows, int channels, float* to,
                      std::size_t to_stride) {
    for (int r = 0; r < rows; ++r, from += from_stride, to += to_stride) {
        if (channels == PANEL) {  // without a call of a function
            std::memcpy(to, from, sizeof(float) * PANEL);
        } else {
            std::memcpy(to, from, sizeof(float) * channels);
        }
    }
}

}  // namespace pocketglm::POCKETGLM_ISA
