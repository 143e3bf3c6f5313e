// Activations for the matrix kernels: quantized to 8 bits per row and block, and laid out as
// matrix_layout.h says.
#include "matrix.h"
#include "matrix_layout.h"

namespace pocketglm::POCKETGLM_ISA {

namespace {

typedef std::int8_t Narrow __attribute__((vector_size(WIDTH)));

// A block's codes, x = scale * code, and scale * (their sum). A block with an infinity or a NaN gets a scale
// that is NaN: what is computed from it is NaN, too.
struct Block {
    alignas(ALIGNMENT) std::int8_t codes[LONGEST_BLOCK];  // in their natural order
    std::int8_t even[LONGEST_BLOCK / 2];                  // those of even inputs
    std::int8_t odd[LONGEST_BLOCK / 2];
    float scale;
    float sum;

    void quantize(const float* x, int size) {
        Ints largest{};
        for (int i = 0; i < size; i += WIDTH) {
            const Ints bits = (Ints)load(x + i) & 0x7fffffff;
            largest = bits > largest ? bits : largest;
        }
        const std::int32_t maximum_bits = largest_lane(largest);
        if (maximum_bits < SMALLEST_MAXIMUM || maximum_bits >= INFINITE) {
            std::memset(codes, 0, sizeof codes);
            scale = sum = maximum_bits < SMALLEST_MAXIMUM ? 0.0f : __builtin_nanf("");
            return;
        }
        float maximum;
        std::memcpy(&maximum, &maximum_bits, sizeof maximum);
        const float inverse = 127.0f / maximum;
        Ints totals{};
        for (int i = 0; i < size; i += WIDTH) {
            const Floats shifted = load(x + i) * inverse + ROUND;
            const Ints values = (Ints)shifted - (Ints)all(ROUND);
            totals += values;
            const Narrow narrow = __builtin_convertvector(values, Narrow);
            std::memcpy(codes + i, &narrow, sizeof narrow);
        }
        scale = maximum / 127.0f;
        sum = scale * static_cast<float>(sum_lanes(totals));
    }

    void split(int size) {
        for (int i = 0; i < size / 2; i += 16) split_pairs(codes + 2 * i, even + i, odd + i);
    }
};

// Rows layout: spans of 2 * VECTOR_BYTES inputs, their even inputs first, so that one vector of packed
// codes meets one vector of each.
void place_row_int4(const Block& block, int size, int start, std::int8_t* row) {
    constexpr int SPAN = 2 * VECTOR_BYTES, PIECE = 16;  // half the smallest block
    for (int i = 0; i < size / 2; i += PIECE) {
        const int input = start + 2 * i;
        std::int8_t* to = row + input / SPAN * SPAN + input % SPAN / 2;
        std::memcpy(to, block.even + i, PIECE);
        std::memcpy(to + VECTOR_BYTES, block.odd + i, PIECE);
    }
}

// Tiles layout: runs of steps, `stride` bytes apart.
template <int BITS>
void place_steps(const Block& block, int size, std::int8_t* tile, std::size_t stride) {
    const std::int8_t* kinds[2] = {BITS == 4 ? block.even : block.codes, block.odd};
    constexpr int KINDS = BITS == 4 ? 2 : 1;
    for (int first = 0; first < size / STEP_BYTES; first += STEPS_TOGETHER, tile += stride) {
#pragma GCC unroll 8
        for (int i = 0; i < STEPS_TOGETHER; ++i) {
            const int step = first + i;
            std::memcpy(tile + STEP_BYTES * i, kinds[step % KINDS] + step / KINDS * STEP_BYTES, STEP_BYTES);
        }
    }
}

// The tile that holds a row.
struct Place {
    std::int32_t start, rows;

    Place(std::int32_t count, std::int32_t row) {
        std::int32_t tile = row / TILE_ROWS;  // at or before it
        while (tile_start(count, tile + 1) <= row) ++tile;
        start = tile_start(count, tile);
        rows = tile_start(count, tile + 1) - start;
    }
};

void quantize_row(const LinearView& linear, const Blocks& blocks, const float* x, std::int32_t row,
                  std::int32_t count, const Quantized& out) {
    const bool by_rows = count <= ROWS_AT_ONCE;
    const Place place = by_rows ? Place(1, 0) : Place(count, row);
    std::int8_t* row_codes = out.codes + out.row_codes * row;
    std::int8_t* tile_codes = out.codes + out.row_codes * place.start + RUN_BYTES * (row - place.start);
    const std::size_t stride = static_cast<std::size_t>(RUN_BYTES) * place.rows;
    if (by_rows) {
        std::memset(row_codes, 0, out.row_codes);
        std::memset(out.scales + out.row_scales * row, 0, sizeof(float) * out.row_scales);
        std::memset(out.sums + out.row_scales * row, 0, sizeof(float) * out.row_scales);
    }
    Block block;
    for (int i = 0; i < blocks.count; ++i) {
        const int start = i * blocks.size, left = linear.inputs - start;
        if (left >= blocks.size) {
            block.quantize(x + start, blocks.size);
        } else {
            float padded[LONGEST_BLOCK] = {};
            if (left > 0) std::memcpy(padded, x + start, sizeof(float) * left);
            block.quantize(padded, blocks.size);
        }
        if (linear.bits == 4) block.split(blocks.size);
        const std::size_t at =
            by_rows ? out.row_scales * row + i
                    : out.row_scales * place.start + Quantized::in_tile(i, row - place.start, place.rows);
        out.scales[at] = block.scale;
        out.sums[at] = block.sum;
        if (by_rows && linear.bits == 4) {
            place_row_int4(block, blocks.size, start, row_codes);
        } else if (by_rows) {
            std::memcpy(row_codes + start, block.codes, blocks.size);
        } else if (linear.bits == 4) {
            place_steps<4>(block, blocks.size, tile_codes + start / RUN_BYTES * stride, stride);
        } else {
            place_steps<8>(block, blocks.size, tile_codes + start / RUN_BYTES * stride, stride);
        }
    }
}

void place_float_row(const LinearView& linear, const float* x, std::int32_t row, std::int32_t count,
                     float* out) {
    const std::size_t width = float_row(linear);
    if (count <= ROWS_AT_ONCE) {
        std::memcpy(out + width * row, x, sizeof(float) * linear.inputs);
        std::memset(out + width * row + linear.inputs, 0, sizeof(float) * (width - linear.inputs));
        return;
    }
    const Place place(count, row);
    float* tile = out + width * place.start + (row - place.start);
    for (std::int32_t i = 0; i < linear.inputs; ++i) tile[static_cast<std::size_t>(i) * place.rows] = x[i];
}

}  // namespace

std::size_t activation_bytes(const LinearView& linear, std::int32_t count) {
    const std::size_t bytes =
        linear.bits < 16 ? Quantized::bytes(linear, count) : sizeof(float) * float_row(linear) * count;
    return round_up(bytes, ALIGNMENT);
}

void prepare(const LinearView& linear, const float* x, std::size_t stride, std::int32_t first,
             std::int32_t last, const Activations& out) {
    if (linear.bits >= 16) {
        for (std::int32_t row = first; row < last; ++row) {
            place_float_row(linear, x + row * stride, row, out.count, static_cast<float*>(out.data));
        }
        return;
    }
    const Blocks blocks(linear);
    const Quantized quantized(linear, out.count, out.data);
    for (std::int32_t row = first; row < last; ++row) {
        quantize_row(linear, blocks, x + row * stride, row, out.count, quantized);
    }
}

}  // namespace pocketglm::POCKETGLM_ISA
