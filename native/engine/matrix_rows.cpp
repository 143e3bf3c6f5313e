// Up to ROWS_AT_ONCE rows of activations: each output channel's weights are read once, in the order of the
// file, at the speed of memory.
#include "matrix.h"
#include "matrix_layout.h"

namespace pocketglm::POCKETGLM_ISA {

namespace {

inline Ints lane_numbers() {
    Ints lanes{};
    for (int lane = 0; lane < WIDTH; ++lane) lanes[lane] = lane;
    return lanes;
}

// Two streams of the file a long way apart: each activation loaded serves two channels, and the hardware's
// prefetchers follow both (not so neighbouring rows, which share a page, nor more streams).
constexpr int STREAMS = 2;

// C channels at a time, `apart` channels from one another, times R rows of activations.
template <int BITS, int BLOCK, int R, int C>
struct RowProduct {
    static constexpr int INPUTS = VECTOR_BYTES * 8 / BITS;  // of one vector of codes
    static constexpr int LANE_INPUTS = INPUTS / WIDTH;
    static constexpr int VECTORS = WIDTH * BLOCK / INPUTS;  // of WIDTH blocks, one chunk
    static constexpr int SHIFT = __builtin_ctz(BLOCK / LANE_INPUTS);

    const LinearView& linear;
    const Blocks blocks;
    const Quantized x;
    Floats sums[C][R];

    RowProduct(const LinearView& layer, const Activations& activations)
        : linear(layer), blocks(layer), x(layer, activations.count, activations.data) {}

    // The scales of weights times activations of a chunk; adds what the zeros contribute.
    inline void begin_chunk(const std::uint16_t* const (&alpha)[C], int first, Floats (&scales)[C][R]) {
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) {
            Floats zeros, weight_scales;
            __builtin_prefetch(reinterpret_cast<const char*>(alpha[c] + first * 2) + ALPHA_AHEAD);
            load_alpha<BITS>(linear, blocks, alpha[c], first, blocks.count - first, zeros, weight_scales);
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
                sums[c][r] = fused(zeros, load(x.sums + x.row_scales * r + first), sums[c][r]);
                scales[c][r] = weight_scales * load(x.scales + x.row_scales * r + first);
            }
        }
    }

    // Vector number `vector` of a chunk: dot products within blocks, times their scales.
    inline void add_vector(const Octets (&codes)[C], const std::int8_t* at, int vector,
                           const Floats (&scales)[C][R]) {
        const Ints index = (lane_numbers() + vector * WIDTH) >> SHIFT;
        at += static_cast<std::size_t>(vector) * INPUTS;
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            const std::int8_t* row = at + r * x.row_codes;
            Octets first = load_octets(row), second{};
            if constexpr (BITS == 4) second = load_octets(row + VECTOR_BYTES);
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c) {
                Ints products;
                if constexpr (BITS == 4) {
                    products = dot<4>(Ints{}, high_nibbles(codes[c]), first);
                    products = dot<4>(products, low_nibbles(codes[c]), second);
                } else {
                    products = dot<8>(Ints{}, SIGNED_CODES ? codes[c] ^ 0x80 : codes[c], first);
                }
                sums[c][r] = fused(to_floats(products), pick(scales[c][r], index), sums[c][r]);
            }
        }
    }

    void run(std::int32_t channel, std::int32_t apart) {
        const std::uint8_t* codes = linear.codes + linear.row_bytes() * channel;
        const std::uint16_t* alpha[C];
        for (int c = 0; c < C; ++c) alpha[c] = channel_alpha(linear, channel + c * apart);
        const std::size_t distance = linear.row_bytes() * apart;
        const std::int8_t* activations = x.codes;
        for (int c = 0; c < C; ++c) {
            for (int r = 0; r < R; ++r) sums[c][r] = Floats{};
        }
        int block = 0;
        for (; block + WIDTH <= blocks.count; block += WIDTH) {
            Floats scales[C][R];
            begin_chunk(alpha, block, scales);
#pragma GCC unroll 8
            for (int vector = 0; vector < VECTORS; ++vector) {
                Octets chosen[C];
#pragma GCC unroll 4
                for (int c = 0; c < C; ++c) {
                    const std::uint8_t* from = codes + distance * c;
                    chosen[c] = load_octets(from);
                    // In this order: GCC would load it once for each half, and fetch a chunk's lines all at
                    // once, which makes the loads wait.
                    asm volatile("" : VECTOR_IN_OUT(chosen[c]), "+r"(from));
                    if (vector * VECTOR_BYTES % LINE == 0) __builtin_prefetch(from + READ_AHEAD);
                }
                add_vector(chosen, activations, vector, scales);
                codes += VECTOR_BYTES;
            }
            activations += WIDTH * BLOCK;
        }
        if (block < blocks.count) run_rest(codes, distance, alpha, activations, block);
    }

    // The blocks behind the last whole chunk; the last vector may end with the row.
    [[gnu::noinline]] void run_rest(const std::uint8_t* codes, std::size_t distance,
                                    const std::uint16_t* const (&alpha)[C], const std::int8_t* activations,
                                    int block) {
        Floats scales[C][R];
        begin_chunk(alpha, block, scales);
        const int bytes = (blocks.count - block) * BLOCK * BITS / 8;
        for (int vector = 0; vector * VECTOR_BYTES < bytes; ++vector, codes += VECTOR_BYTES) {
            const int left = bytes - vector * VECTOR_BYTES;
            Octets chosen[C];
            for (int c = 0; c < C; ++c) {
                const std::uint8_t* from = codes + distance * c;
                if (vector * VECTOR_BYTES % LINE == 0) __builtin_prefetch(from + READ_AHEAD);
                chosen[c] = left < VECTOR_BYTES ? load_octets_part(from, left) : load_octets(from);
            }
            add_vector(chosen, activations, vector, scales);
        }
    }
};

template <int BITS, int BLOCK, int R, int C>
void quantized_range(const LinearView& linear, const Activations& x, std::int32_t first, std::int32_t last,
                     float* out, std::size_t out_stride) {
    RowProduct<BITS, BLOCK, R, C> product(linear, x);
    const std::int32_t apart = (last - first) / C;
    for (std::int32_t channel = first; channel < first + apart; ++channel) {
        product.run(channel, apart);
        for (int c = 0; c < C; ++c) {
            const std::int32_t at = channel + c * apart;
            const float bias = bias_of(linear, at);
            for (int r = 0; r < R; ++r) out[r * out_stride + at] = total(product.sums[c][r]) + bias;
        }
    }
}

template <int BITS, int BLOCK, int R>
void quantized_rows(const LinearView& linear, const Activations& x, std::int32_t first, std::int32_t last,
                    float* out, std::size_t out_stride) {
    const std::int32_t whole = first + (last - first) / STREAMS * STREAMS;
    quantized_range<BITS, BLOCK, R, STREAMS>(linear, x, first, whole, out, out_stride);
    quantized_range<BITS, BLOCK, R, 1>(linear, x, whole, last, out, out_stride);
}

// C channels at a time, as above.
template <int BITS, int R, int C>
void float_range(const LinearView& linear, const Activations& activations, std::int32_t first,
                 std::int32_t last, float* out, std::size_t out_stride) {
    constexpr int CHAINS = 2;  // sums of each product, so that no addition waits for the last
    constexpr int RUN_BYTES = CHAINS * WIDTH * BITS / 8;
    const float* x = static_cast<const float*>(activations.data);
    const std::size_t width = float_row(linear);
    const std::int32_t apart = (last - first) / C;
    const std::size_t distance = linear.row_bytes() * apart;
    for (std::int32_t channel = first; channel < first + apart; ++channel) {
        const std::uint8_t* row = linear.codes + linear.row_bytes() * channel;
        Floats sums[C][R][CHAINS] = {};
        int i = 0;
        for (; i + CHAINS * WIDTH <= linear.inputs; i += CHAINS * WIDTH, row += RUN_BYTES) {
#pragma GCC unroll 2
            for (int c = 0; c < C; ++c) prefetch(row + distance * c, RUN_BYTES);
#pragma GCC unroll 2
            for (int chain = 0; chain < CHAINS; ++chain) {
                Floats weights[C];
#pragma GCC unroll 2
                for (int c = 0; c < C; ++c) {
                    weights[c] = load_weights<BITS>(row + distance * c + chain * WIDTH * BITS / 8, WIDTH);
                }
#pragma GCC unroll 4
                for (int r = 0; r < R; ++r) {
                    const Floats values = load(x + width * r + i + chain * WIDTH);
#pragma GCC unroll 2
                    for (int c = 0; c < C; ++c) {
                        sums[c][r][chain] = fused(weights[c], values, sums[c][r][chain]);
                    }
                }
            }
        }
        for (; i < linear.inputs; i += WIDTH, row += WIDTH * BITS / 8) {
            for (int c = 0; c < C; ++c) {
                const Floats weights = load_weights<BITS>(row + distance * c, linear.inputs - i);
                for (int r = 0; r < R; ++r) {
                    sums[c][r][0] = fused(weights, load(x + width * r + i), sums[c][r][0]);
                }
            }
        }
        for (int c = 0; c < C; ++c) {
            const std::int32_t at = channel + c * apart;
            const float bias = bias_of(linear, at);
            for (int r = 0; r < R; ++r)
                out[r * out_stride + at] = total(sums[c][r][0] + sums[c][r][1]) + bias;
        }
    }
}

template <int BITS, int R>
void float_rows(const LinearView& linear, const Activations& x, std::int32_t first, std::int32_t last,
                float* out, std::size_t out_stride) {
    const std::int32_t whole = first + (last - first) / STREAMS * STREAMS;
    float_range<BITS, R, STREAMS>(linear, x, first, whole, out, out_stride);
    float_range<BITS, R, 1>(linear, x, whole, last, out, out_stride);
}

template <int BITS, int R>
auto rows_of_block(int block) {
    return block == 32   ? quantized_rows<BITS, 32, R>
           : block == 64 ? quantized_rows<BITS, 64, R>
                         : quantized_rows<BITS, 128, R>;
}

template <int R>
void multiply(const LinearView& linear, const Activations& x, std::int32_t first, std::int32_t last,
              float* out, std::size_t out_stride) {
    const auto product = linear.bits == 4    ? rows_of_block<4, R>(Blocks(linear).size)
                         : linear.bits == 8  ? rows_of_block<8, R>(Blocks(linear).size)
                         : linear.bits == 16 ? float_rows<16, R>
                                             : float_rows<32, R>;
    product(linear, x, first, last, out, out_stride);
}

}  // namespace

void multiply_rows(const LinearView& linear, const Activations& x, std::int32_t first, std::int32_t last,
                   float* out, std::size_t out_stride) {
    static_assert(ROWS_AT_ONCE == 4, "one case for each number of rows");
    switch (x.count) {
        case 1:
            return multiply<1>(linear, x, first, last, out, out_stride);
        case 2:
            return multiply<2>(linear, x, first, last, out, out_stride);
        case 3:
            return multiply<3>(linear, x, first, last, out, out_stride);
        default:
            return multiply<4>(linear, x, first, last, out, out_stride);
    }
}

}  // namespace pocketglm::POCKETGLM_ISA
