// The table of matrix kernels of one vector instruction set.
#include "matrix.h"
#include "matrix_layout.h"
#include "tables.h"

namespace pocketglm::POCKETGLM_ISA {

namespace {

bool few_rows(const LinearView& linear, std::int32_t count) {
    return linear.bits < 16 && count > ROWS_AT_ONCE && count <= TILE_ROWS;
}

std::size_t scratch_bytes(const LinearView& linear, std::int32_t count) {
    return count <= ROWS_AT_ONCE     ? ALIGNMENT
           : few_rows(linear, count) ? few_scratch_bytes(count)
                                     : panel_scratch_bytes(linear);
}

void begin(const LinearView& linear, const Activations& x, void* scratch) {
    if (few_rows(linear, x.count)) begin_few(x, scratch);
}

bool adds_outliers(std::int32_t count) { return count > ROWS_AT_ONCE; }

std::int32_t channel_step(const LinearView&, std::int32_t count) {
    constexpr int LEAST_CHANNELS = 16;  // a cache line of a row of the output
    return count <= ROWS_AT_ONCE ? LEAST_CHANNELS : PANEL;
}

void matmul(const LinearView& linear, const Activations& x, std::int32_t first, std::int32_t last, float* out,
            std::size_t out_stride, void* scratch) {
    if (x.count <= ROWS_AT_ONCE) {
        multiply_rows(linear, x, first, last, out, out_stride);
    } else if (few_rows(linear, x.count)) {
        multiply_few(linear, x, first, last, out, out_stride, scratch);
    } else {
        multiply_panels(linear, x, first, last, out, out_stride, scratch);
    }
}

// Two streams, as the decode kernels read them: alone, one is slower where pages are small.
std::uint64_t read(const void* memory, std::size_t bytes) {
    constexpr int STREAMS = 2, VECTORS = 4;
    constexpr std::size_t RUN = VECTORS * VECTOR_BYTES;
    const std::uint8_t* at = static_cast<const std::uint8_t*>(memory);
    const std::size_t apart = bytes / STREAMS / RUN * RUN;
    Ints totals[STREAMS][VECTORS] = {};
    for (std::size_t i = 0; i < apart; i += RUN) {
        for (int stream = 0; stream < STREAMS; ++stream) {
            const std::uint8_t* from = at + stream * apart + i;
            prefetch(from, RUN);
            for (int v = 0; v < VECTORS; ++v) totals[stream][v] ^= (Ints)load_octets(from + v * VECTOR_BYTES);
        }
    }
    std::uint64_t result = 0;
    for (const auto& stream : totals) {
        for (const Ints& each : stream) {
            for (int lane = 0; lane < WIDTH; ++lane) result += static_cast<std::uint32_t>(each[lane]);
        }
    }
    return result;
}

constexpr int PEAK_CHAINS = 12;  // more than any dot product's latency times its rate

std::uint64_t dot_products(std::size_t rounds) {
    Ints sums[PEAK_CHAINS];
    for (int chain = 0; chain < PEAK_CHAINS; ++chain)
        sums[chain] = Ints{} + chain;  // or they would be one sum
    Octets codes = Octets{} + 3, x = Octets{} + 5;
    for (std::size_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int chain = 0; chain < PEAK_CHAINS; ++chain) {
            asm volatile("" : VECTOR_IN_OUT(codes), VECTOR_IN_OUT(x));  // or one product would do for all
            sums[chain] = dot<4>(sums[chain], codes, x);
        }
    }
    std::uint64_t total_sum = 0;
    for (const Ints& each : sums) {
        for (int lane = 0; lane < WIDTH; ++lane) total_sum += static_cast<std::uint32_t>(each[lane]);
    }
    return total_sum;
}

}  // namespace

const Kernels kernels = {KERNELS_NAME,
                         activation_bytes,
                         prepare,
                         scratch_bytes,
                         begin,
                         adds_outliers,
                         matmul,
                         channel_step,
                         read,
                         dot_products,
                         2 * PEAK_CHAINS * VECTOR_BYTES};

}  // namespace pocketglm::POCKETGLM_ISA
