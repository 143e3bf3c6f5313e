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
    Panel panels[PANELS_AT_ONCE];
    float* tile;  // [row][channel] sums

    explicit Scratch(void* memory) {
        std::uint8_t* at = static_cast<std::uint8_t*>(memory);
        for (Panel& panel : panels) {
            panel.codes = at;
            panel.scales = reinterpret_cast<float*>(at + PANEL_BYTES);
            panel.zeros = panel.scales + PANEL_ALPHAS;
            at += PANEL_BYTES + 2 * sizeof(float) * PANEL_ALPHAS;
        }
        tile = reinterpret_cast<float*>(at);
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

// The weights to be unpacked next, fetched into the second-level cache little by little while the dot
// products run: a panel's rows lie too far apart for the hardware to foresee.
class Ahead {
  public:
    Ahead(const LinearView& linear, std::int32_t first, std::int32_t channels, std::int32_t start,
          std::int32_t inputs)
        : row_bytes_(linear.row_bytes()),
          row_(linear.codes + row_bytes_ * first + static_cast<std::size_t>(start) * linear.bits / 8),
          lines_((inputs * linear.bits / 8 + LINE - 1) / LINE),
          left_(lines_ * channels) {}

    int left() const { return left_; }

    inline void fetch(int count) {
        count = count < left_ ? count : left_;
        left_ -= count;
        for (; count > 0; --count) {
            __builtin_prefetch(row_ + line_ * LINE, 0, 2);
            if (++line_ == lines_) {
                line_ = 0;
                row_ += row_bytes_;
            }
        }
    }

  private:
    std::size_t row_bytes_;
    const std::uint8_t* row_;
    int lines_, line_ = 0, left_;
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
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; ++v) {
            const Floats weight_scales = load(panel.scales + block * PANEL + v * WIDTH);
            const Floats weight_zeros = load(panel.zeros + block * PANEL + v * WIDTH);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                float* at = tile + r * PANEL + v * WIDTH;
                const Floats zeros = fused(weight_zeros, all(sums[block * R + r]), load(at));
                const Floats scaled = to_floats(products[r][v]) * weight_scales;
                store(at, fused(scaled, all(scales[block * R + r]), zeros));
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

// A tile's sums before a chunk: the bias, then what the chunks before it left in `out`.
void load_tile(const Part& part, int rows, const float* out, std::size_t out_stride, float* tile) {
    for (int r = 0; r < rows; ++r) {
        if (part.start > 0) {
            std::memcpy(tile + r * PANEL, out + r * out_stride + part.first, sizeof(float) * part.channels);
        } else if (r == 0) {
            for (int i = 0; i < part.channels; ++i) tile[i] = bias_of(*part.linear, part.first + i);
        } else {
            std::memcpy(tile + r * PANEL, tile, sizeof(float) * PANEL);
        }
    }
}

void store_tile(const Part& part, int rows, float* out, std::size_t out_stride, const float* tile) {
    for (int r = 0; r < rows; ++r) {
        std::memcpy(out + r * out_stride + part.first, tile + r * PANEL, sizeof(float) * part.channels);
    }
}

// The chunk of inputs that the panels of `parts` hold, for all rows.
template <typename MultiplyTile>
void multiply_chunk(const Part* parts, int count, const Scratch& scratch, std::int32_t rows, float* out,
                    std::size_t out_stride, const MultiplyTile& multiply_one) {
    for (std::int32_t tile = 0; tile < tile_count(rows); ++tile) {
        const std::int32_t start = tile_start(rows, tile), in_tile = tile_start(rows, tile + 1) - start;
        float* to = out + start * out_stride;
        for (int i = 0; i < count; ++i) {
            load_tile(parts[i], in_tile, to, out_stride, scratch.tile);
            multiply_one(scratch.panels[i], start, in_tile);
            store_tile(parts[i], in_tile, to, out_stride, scratch.tile);
        }
    }
}

template <int BITS>
void quantized_chunk(const Part* parts, int count, const Activations& x, const Scratch& scratch, Ahead& ahead,
                     float* out, std::size_t out_stride) {
    const Part& part = parts[0];
    const Blocks blocks(*part.linear);
    const Quantized prepared(*part.linear, x.count, x.data);
    for (int i = 0; i < count; ++i) {
        unpack_codes<BITS>(parts[i], scratch.panels[i].codes);
        unpack_alpha<BITS>(parts[i], blocks, scratch.panels[i]);
    }
    const int first_block = part.start / blocks.size, block_count = part.inputs / blocks.size;
    const int turns = tile_count(x.count) * count * block_count;
    const int fetches = (ahead.left() + turns - 1) / turns;
    multiply_chunk(parts, count, scratch, x.count, out, out_stride,
                   [&](const Panel& panel, std::int32_t start, std::int32_t rows) {
                       const std::int8_t* codes = prepared.codes + prepared.row_codes * start +
                                                  static_cast<std::size_t>(part.start) * rows;
                       const std::size_t at =
                           prepared.row_scales * start + static_cast<std::size_t>(first_block) * rows;
                       with_rows(rows, [&](auto r) {
                           multiply_tile<BITS, r()>(panel, blocks, block_count, codes, prepared.scales + at,
                                                    prepared.sums + at, scratch.tile, ahead, fetches);
                       });
                   });
}

template <int BITS>
void float_chunk(const Part* parts, int count, const Activations& x, const Scratch& scratch, Ahead& ahead,
                 float* out, std::size_t out_stride) {
    const Part& part = parts[0];
    const std::size_t width = float_row(*part.linear);
    for (int i = 0; i < count; ++i) {
        unpack_floats<BITS>(parts[i], reinterpret_cast<float*>(scratch.panels[i].codes));
    }
    const int turns = tile_count(x.count) * count;
    const int fetches = (ahead.left() + turns - 1) / turns;
    multiply_chunk(parts, count, scratch, x.count, out, out_stride,
                   [&](const Panel& panel, std::int32_t start, std::int32_t rows) {
                       ahead.fetch(fetches);
                       const float* values = static_cast<const float*>(x.data) + width * start +
                                             static_cast<std::size_t>(part.start) * rows;
                       with_rows(rows, [&](auto r) {
                           multiply_float_tile<r()>(panel, part.inputs, values, scratch.tile);
                       });
                   });
}

}  // namespace

std::size_t panel_scratch_bytes(const LinearView&) {
    return round_up(
        PANELS_AT_ONCE * (PANEL_BYTES + 2 * sizeof(float) * PANEL_ALPHAS) + sizeof(float) * TILE_ROWS * PANEL,
        ALIGNMENT);
}

void multiply_panels(const LinearView& linear, const Activations& x, std::int32_t first, std::int32_t last,
                     float* out, std::size_t out_stride, void* memory) {
    const Scratch scratch(memory);
    const auto chunk = linear.bits == 4    ? quantized_chunk<4>
                       : linear.bits == 8  ? quantized_chunk<8>
                       : linear.bits == 16 ? float_chunk<16>
                                           : float_chunk<32>;
    const std::int32_t step = linear.bits < 16 ? CHUNK_INPUTS : CHUNK_FLOATS;
    constexpr std::int32_t CHANNELS = PANELS_AT_ONCE * PANEL;
    const auto least = [](std::int32_t a, std::int32_t b) { return a < b ? a : b; };
    const auto positive = [](std::int32_t a) { return a > 0 ? a : 0; };
    for (std::int32_t channel = first; channel < last; channel += CHANNELS) {
        for (std::int32_t start = 0; start < linear.stored_inputs; start += step) {
            const std::int32_t left = linear.stored_inputs - start, inputs = left < step ? left : step;
            Part parts[PANELS_AT_ONCE];
            int count = 0;
            for (std::int32_t at = channel; at < last && count < PANELS_AT_ONCE; at += PANEL, ++count) {
                parts[count] = {&linear, at, last - at < PANEL ? last - at : PANEL, start, inputs};
            }
            Ahead ahead =
                start + step < linear.stored_inputs
                    ? Ahead(linear, channel, least(last - channel, CHANNELS), start + step,
                            least(left - step, step))
                    : Ahead(linear, channel + CHANNELS, positive(least(last - channel - CHANNELS, CHANNELS)),
                            0, least(linear.stored_inputs, step));
            chunk(parts, count, x, scratch, ahead, out, out_stride);
        }
    }
}

}  // namespace pocketglm::POCKETGLM_ISA
