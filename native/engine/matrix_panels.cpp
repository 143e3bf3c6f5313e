// Many rows of activations: panels of output channels are unpacked into scratch once and used for every
// tile of rows, accumulators in registers.
#include <type_traits>

#include "matrix.h"
#include "matrix_layout.h"

namespace pocketglm::POCKETGLM_ISA {

namespace {

constexpr std::size_t PANEL_BYTES = static_cast<std::size_t>(CHUNK_INPUTS) * PANEL + 2 * VECTOR_BYTES * PANEL;
constexpr std::size_t PANEL_ALPHAS = (CHUNK_INPUTS / 32 + WIDTH) * PANEL;  // floats

// One panel of a chunk of inputs, unpacked.
struct Panel {
    std::uint8_t* codes;  // [step][channel][STEP_BYTES], or floats [input][channel]
    float* scales;        // [block][channel]
    float* zeros;         // [block][channel]
};

struct Scratch {
    Panel panel;
    float* tile;  // [row][channel] sums of a panel that is not whole

    explicit Scratch(void* memory) {
        panel.codes = static_cast<std::uint8_t*>(memory);
        panel.scales = reinterpret_cast<float*>(panel.codes + PANEL_BYTES);
        panel.zeros = panel.scales + PANEL_ALPHAS;
        tile = panel.zeros + PANEL_ALPHAS;
    }
};

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

template <int BITS>
void unpack_codes(const Part& part, std::uint8_t* panel) {
    constexpr int UNITS = VECTOR_BYTES / STEP_BYTES;
    const int bytes = part.inputs * BITS / 8;
    for (int column = 0; column < PANEL; column += UNITS) {
        const std::uint8_t* rows[UNITS];
        for (int i = 0; i < UNITS; ++i) {
            rows[i] = part.linear->codes + part.linear->row_bytes() * part.channel(column + i) +
                      static_cast<std::size_t>(part.start) * BITS / 8;
        }
        std::uint8_t* to = panel + column * STEP_BYTES;
        for (int at = 0; at < bytes; at += VECTOR_BYTES) {
            Ints units[UNITS];
            if (bytes - at >= VECTOR_BYTES) {
#pragma GCC unroll 16
                for (int i = 0; i < UNITS; ++i) units[i] = (Ints)load_octets(rows[i] + at);
            } else {
                for (int i = 0; i < UNITS; ++i) units[i] = (Ints)load_octets_part(rows[i] + at, bytes - at);
            }
            transpose<STEP_BYTES>(units);
#pragma GCC unroll 16
            for (int i = 0; i < UNITS; ++i) {
                const Octets codes = (Octets)units[i];
                if constexpr (BITS == 4) {
                    store_octets(to, high_nibbles(codes));
                    store_octets(to + PANEL * STEP_BYTES, low_nibbles(codes));
                    to += 2 * PANEL * STEP_BYTES;
                } else {
                    store_octets(to, SIGNED_CODES ? codes ^ 0x80 : codes);
                    to += PANEL * STEP_BYTES;
                }
            }
        }
    }
}

template <int BITS>
void unpack_alpha(const Part& part, const Blocks& blocks, const Panel& panel) {
    const int first = part.start / blocks.size, count = part.inputs / blocks.size;
    for (int column = 0; column < PANEL; column += WIDTH) {
        for (int block = 0; block < count; block += WIDTH) {
            Ints scales[WIDTH], zeros[WIDTH];
            for (int i = 0; i < WIDTH; ++i) {
                Floats zero, scale;
                load_alpha<BITS>(*part.linear, blocks, channel_alpha(*part.linear, part.channel(column + i)),
                                 first + block, count - block, zero, scale);
                scales[i] = (Ints)scale;
                zeros[i] = (Ints)zero;
            }
            transpose<4>(scales);
            transpose<4>(zeros);
            for (int i = 0; i < WIDTH; ++i) {
                store(panel.scales + (block + i) * PANEL + column, (Floats)scales[i]);
                store(panel.zeros + (block + i) * PANEL + column, (Floats)zeros[i]);
            }
        }
    }
}

// sums[row][channel] += the products of a panel with a tile of R rows.
template <int BITS, int R>
void multiply_tile(const Panel& panel, const Blocks& blocks, int count, const std::int8_t* x,
                   const float* scales, const float* sums, float* tile, Ahead& ahead, int fetches) {
    const int steps = blocks.size / STEP_BYTES;
    for (int block = 0; block < count; ++block) {
        ahead.fetch(fetches);
        Ints products[R][PANEL_VECTORS] = {};
        dot_steps<BITS, R>(panel.codes + static_cast<std::size_t>(block) * blocks.size * PANEL,
                           x + static_cast<std::size_t>(block) * blocks.size * R, steps, products);
        Floats weight_scales[PANEL_VECTORS], weight_zeros[PANEL_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; ++v) {
            weight_scales[v] = load(panel.scales + block * PANEL + v * WIDTH);
            weight_zeros[v] = load(panel.zeros + block * PANEL + v * WIDTH);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Floats row_sum = all(sums[block * R + r]), row_scale = all(scales[block * R + r]);
#pragma GCC unroll 4
            for (int v = 0; v < PANEL_VECTORS; ++v) {
                float* at = tile + r * PANEL + v * WIDTH;
                const Floats zeros = fused(weight_zeros[v], row_sum, load(at));
                const Floats scaled = to_floats(products[r][v]) * weight_scales[v];
                store(at, fused(scaled, row_scale, zeros));
            }
        }
    }
}

template <int BITS>
void unpack_floats(const Part& part, float* panel) {
    for (int column = 0; column < PANEL; column += WIDTH) {
        for (int i = 0; i < part.inputs; i += WIDTH) {
            const int count = part.inputs - i;
            Ints units[WIDTH];
            for (int lane = 0; lane < WIDTH; ++lane) {
                const std::uint8_t* from = part.linear->codes +
                                           part.linear->row_bytes() * part.channel(column + lane) +
                                           static_cast<std::size_t>(part.start + i) * BITS / 8;
                units[lane] = (Ints)load_weights<BITS>(from, count);
            }
            transpose<4>(units);
            for (int lane = 0; lane < WIDTH; ++lane)
                store(panel + (i + lane) * PANEL + column, (Floats)units[lane]);
        }
    }
}

template <int R>
void multiply_float_tile(const Panel& panel, int inputs, const float* x, float* tile) {
    const float* weights = reinterpret_cast<const float*>(panel.codes);
    Floats sums[R][PANEL_VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; ++v) sums[r][v] = load(tile + r * PANEL + v * WIDTH);
    }
    for (int i = 0; i < inputs; ++i, weights += PANEL, x += R) {
        Floats row[PANEL_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; ++v) row[v] = load(weights + v * WIDTH);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
            for (int v = 0; v < PANEL_VECTORS; ++v) sums[r][v] = fused(row[v], all(x[r]), sums[r][v]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; ++v) store(tile + r * PANEL + v * WIDTH, sums[r][v]);
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
void begin_rows(const Part& part, int rows, float* tile) {
    for (int i = 0; i < part.channels; ++i) tile[i] = bias_of(*part.linear, part.first + i);
    for (int r = 1; r < rows; ++r) std::memcpy(tile + r * PANEL, tile, sizeof(float) * PANEL);
}

void copy_rows(const float* from, std::size_t from_stride, int rows, int channels, float* to,
               std::size_t to_stride) {
    for (int r = 0; r < rows; ++r)
        std::memcpy(to + r * to_stride, from + r * from_stride, sizeof(float) * channels);
}

// A part's chunk of inputs for all rows: multiply_one(first row, rows, sums, their stride) for every tile.
template <typename MultiplyTile>
void multiply_part(const Part& part, std::int32_t rows, float* tile, float* out, std::size_t out_stride,
                   const MultiplyTile& multiply_one) {
    for (std::int32_t i = 0; i < tile_count(rows); ++i) {
        const std::int32_t start = tile_start(rows, i), in_tile = tile_start(rows, i + 1) - start;
        float* to = out + start * out_stride + part.first;
        if (part.start == 0) {
            begin_rows(part, in_tile, tile);
        } else {
            copy_rows(to, out_stride, in_tile, part.channels, tile, PANEL);
        }
        multiply_one(start, in_tile);
        copy_rows(tile, PANEL, in_tile, part.channels, to, out_stride);
    }
}

template <int BITS>
void quantized_part(const Part& part, const Activations& x, const Scratch& scratch, Ahead& ahead, float* out,
                    std::size_t out_stride) {
    const Blocks blocks(*part.linear);
    const Quantized prepared(*part.linear, x.count, x.data);
    unpack_codes<BITS>(part, scratch.panel.codes);
    unpack_alpha<BITS>(part, blocks, scratch.panel);
    const int first_block = part.start / blocks.size, block_count = part.inputs / blocks.size;
    const int turns = tile_count(x.count) * block_count;
    const int fetches = (ahead.left() + turns - 1) / turns;
    multiply_part(part, x.count, scratch.tile, out, out_stride, [&](std::int32_t start, std::int32_t rows) {
        const std::int8_t* codes =
            prepared.codes + prepared.row_codes * start + static_cast<std::size_t>(part.start) * rows;
        const std::size_t at = prepared.row_scales * start + static_cast<std::size_t>(first_block) * rows;
        with_rows(rows, [&](auto r) {
            multiply_tile<BITS, r()>(scratch.panel, blocks, block_count, codes, prepared.scales + at,
                                     prepared.sums + at, scratch.tile, ahead, fetches);
        });
    });
}

template <int BITS>
void float_part(const Part& part, const Activations& x, const Scratch& scratch, Ahead& ahead, float* out,
                std::size_t out_stride) {
    const std::size_t width = float_row(*part.linear);
    unpack_floats<BITS>(part, reinterpret_cast<float*>(scratch.panel.codes));
    const int turns = tile_count(x.count);
    const int fetches = (ahead.left() + turns - 1) / turns;
    multiply_part(part, x.count, scratch.tile, out, out_stride, [&](std::int32_t start, std::int32_t rows) {
        ahead.fetch(fetches);
        const float* values =
            static_cast<const float*>(x.data) + width * start + static_cast<std::size_t>(part.start) * rows;
        with_rows(rows, [&](auto r) {
            multiply_float_tile<r()>(scratch.panel, part.inputs, values, scratch.tile);
        });
    });
}

// The parts of channels [first, last), in the order in which they are multiplied: a panel's chunks of inputs
// one after the other.
class Parts {
  public:
    Parts(const LinearView& linear, std::int32_t first, std::int32_t last)
        : linear_(linear),
          step_(linear.bits < 16 ? CHUNK_INPUTS : CHUNK_FLOATS),
          last_(last),
          channel_(first) {}

    bool done() const { return channel_ >= last_; }
    Part part() const {
        const std::int32_t inputs = linear_.stored_inputs - start_, channels = last_ - channel_;
        return {&linear_, channel_, channels < PANEL ? channels : PANEL, start_,
                inputs < step_ ? inputs : step_};
    }
    void next() {
        start_ += step_;
        if (start_ < linear_.stored_inputs) return;
        start_ = 0;
        channel_ += PANEL;
    }

  private:
    const LinearView& linear_;
    std::int32_t step_, last_, channel_, start_ = 0;
};

}  // namespace

std::size_t panel_scratch_bytes(const LinearView&) {
    return round_up(PANEL_BYTES + sizeof(float) * (2 * PANEL_ALPHAS + TILE_ROWS * PANEL), ALIGNMENT);
}

void multiply_panels(const LinearView& linear, const Activations& x, std::int32_t first, std::int32_t last,
                     float* out, std::size_t out_stride, void* memory) {
    const Scratch scratch(memory);
    const auto multiply = linear.bits == 4    ? quantized_part<4>
                          : linear.bits == 8  ? quantized_part<8>
                          : linear.bits == 16 ? float_part<16>
                                              : float_part<32>;
    Parts parts(linear, first, last);
    while (!parts.done()) {
        const Part part = parts.part();
        parts.next();
        Ahead ahead = parts.done() ? Ahead() : Ahead(parts.part());
        multiply(part, x, scratch, ahead, out, out_stride);
    }
}

}  // namespace pocketglm::POCKETGLM_ISA
