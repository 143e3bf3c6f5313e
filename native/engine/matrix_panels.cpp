// Many rows of activations: panels of output channels are unpacked into scratch once and used for every
// tile of rows, accumulators in registers.
#include "matrix.h"
#include "matrix_panel.h"
#include "outliers.h"

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
    const LinearView& linear = *part.linear;
    const int first = part.start / blocks.size, count = part.inputs / blocks.size;
    for (int column = 0; column < PANEL; column += WIDTH) {
        for (int block = 0; block < count; block += WIDTH) {
            const int left = count - block < WIDTH ? count - block : WIDTH;
            Ints alphas[WIDTH];
            for (int i = 0; i < WIDTH; ++i) {
                alphas[i] = alphas_of_channel(linear, blocks, channel_alpha(linear, part.channel(column + i)),
                                              first + block, left);
            }
            transpose<4>(alphas);
            for (int i = 0; i < left; ++i) {
                Floats zeros, scales;
                convert_alphas<BITS>(linear.symmetric, alphas[i], zeros, scales);
                store(panel.scales + (block + i) * PANEL + column, scales);
                store(panel.zeros + (block + i) * PANEL + column, zeros);
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
        const std::size_t at_block = Quantized::in_tile(block, 0, R);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Floats row_sum = all(sums[at_block + BLOCK_RUN * r]);
            const Floats row_scale = all(scales[at_block + BLOCK_RUN * r]);
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

// tile[row][channel] += the products of the rows' outliers among a part's inputs.
template <int BITS>
void add_outliers(const Panel& panel, const Part& part, const Blocks& blocks, const OutlierRow* outliers,
                  int rows, float* tile) {
    constexpr int SPAN = STEP_BYTES * 8 / BITS;  // inputs of one step or, int4, of two
    for (int r = 0; r < rows; ++r) {
        for (int i = 0; i < outliers[r].count; ++i) {
            const int input = outliers[r].channels[i] - part.start, block = input / blocks.size;
            if (input < 0 || input >= part.inputs) continue;
            const int step = BITS == 4 ? input / SPAN * 2 + input % 2 : input / SPAN;
            const int byte = input % SPAN * BITS / 8;
            const Floats value = all(outliers[r].values[i]);
            for (int v = 0; v < PANEL_VECTORS; ++v) {
                const std::uint8_t* codes = panel.codes + step * PANEL * STEP_BYTES + v * WIDTH * STEP_BYTES;
                const float* scales = panel.scales + block * PANEL + v * WIDTH;
                const float* zeros = panel.zeros + block * PANEL + v * WIDTH;
                const Floats weights =
                    fused(to_floats(codes_of_input<BITS>(codes, byte)), load(scales), load(zeros));
                float* at = tile + r * PANEL + v * WIDTH;
                store(at, fused(weights, value, load(at)));
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
    static_assert(CHUNK_INPUTS / LONGEST_BLOCK % BLOCK_RUN == 0, "parts begin with a run of blocks");
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
        if (x.outliers != nullptr)
            add_outliers<BITS>(scratch.panel, part, blocks, x.outliers + start, rows, scratch.tile);
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
