// The matrix kernels, written for reading: the reference that every instruction set is tested against,
// and what runs where there is no other.
//
// Activations lie as scales [count, blocks], scaled sums [count, blocks] and codes [count, stored_inputs]
// (int8), or as plain floats [count, inputs] for float weights.
#include <cmath>
#include <cstring>

#include "blocks.h"
#include "tables.h"

namespace pocketglm::POCKETGLM_ISA {

namespace {

constexpr std::size_t ALIGNMENT = 64;

// Value of a float16; infinity and NaN keep their meaning.
float half_value(std::uint16_t half) {
    const std::uint32_t exponent = half & 0x7c00u;
    std::uint32_t bits = (half & 0x7fffu) << 13;
    if (exponent == 0x7c00u) bits |= 0x7f800000u;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    // 2^112 moves the exponent's bias from 15 to 127, for subnormal numbers too.
    if (exponent != 0x7c00u) value *= 0x1p112f;
    return (half & 0x8000u) != 0 ? -value : value;
}

struct Layout {
    float* scales;
    float* sums;
    std::int8_t* codes;

    Layout(const Blocks& blocks, const Activations& x) {
        const std::size_t values = static_cast<std::size_t>(x.count) * blocks.count;
        scales = static_cast<float*>(x.data);
        sums = scales + values;
        codes = reinterpret_cast<std::int8_t*>(sums + values);
    }
};

std::size_t activation_bytes(const LinearView& linear, std::int32_t count) {
    const std::size_t rows = static_cast<std::size_t>(count);
    if (linear.bits >= 16) return round_up(rows * linear.inputs * sizeof(float), ALIGNMENT);
    return round_up(rows * (Blocks(linear).count * 2 * sizeof(float) + linear.stored_inputs), ALIGNMENT);
}

// Quantize one block to q with x = scale * q (absmax / 127). A block with an infinity or a NaN gets a
// scale that is NaN: what is computed from it is NaN, too.
void quantize_block(const float* x, int given, int size, std::int8_t* codes, float& scale, float& sum) {
    std::int32_t largest = 0;
    for (int i = 0; i < given; ++i) {
        std::int32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    std::memset(codes, 0, size);
    if (largest < SMALLEST_MAXIMUM || largest >= INFINITE) {
        scale = sum = largest < SMALLEST_MAXIMUM ? 0.0f : __builtin_nanf("");
        return;
    }
    float maximum;
    std::memcpy(&maximum, &largest, sizeof maximum);
    const float inverse = 127.0f / maximum;
    std::int32_t total = 0;
    for (int i = 0; i < given; ++i) {
        codes[i] = static_cast<std::int8_t>((x[i] * inverse + ROUND) - ROUND);
        total += codes[i];
    }
    scale = maximum / 127.0f;
    sum = scale * static_cast<float>(total);
}

void prepare(const LinearView& linear, const float* x, std::size_t stride, std::int32_t first,
             std::int32_t last, const Activations& out) {
    if (linear.bits >= 16) {
        float* rows = static_cast<float*>(out.data);
        for (std::int32_t row = first; row < last; ++row) {
            std::memcpy(rows + static_cast<std::size_t>(row) * linear.inputs, x + row * stride,
                        linear.inputs * sizeof(float));
        }
        return;
    }
    const Blocks blocks(linear);
    const Layout layout(blocks, out);
    for (std::int32_t row = first; row < last; ++row) {
        std::int8_t* codes = layout.codes + static_cast<std::size_t>(row) * linear.stored_inputs;
        for (int block = 0; block < blocks.count; ++block) {
            const int start = block * blocks.size, left = linear.inputs - start;
            const std::size_t at = static_cast<std::size_t>(row) * blocks.count + block;
            quantize_block(x + row * stride + start,
                           left < 0             ? 0
                           : left < blocks.size ? left
                                                : blocks.size,
                           blocks.size, codes + start, layout.scales[at], layout.sums[at]);
        }
    }
}

std::size_t scratch_bytes(const LinearView&, std::int32_t) { return ALIGNMENT; }

void begin(const LinearView&, const Activations&, void*) {}

bool adds_outliers(std::int32_t) { return false; }

std::int32_t channel_step(const LinearView&, std::int32_t) { return 8; }

// Sum of code * activation over one block; codes are unsigned, even inputs in the high nibbles.
std::int32_t dot(const std::uint8_t* codes, int bits, const std::int8_t* x, int size) {
    std::int32_t total = 0;
    for (int i = 0; i < size; ++i) {
        const int code = bits == 8 ? codes[i] : i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
        total += code * x[i];
    }
    return total;
}

float quantized_product(const LinearView& linear, const Blocks& blocks, const Layout& x, int row,
                        int channel) {
    const std::uint8_t* codes = linear.codes + channel * linear.row_bytes();
    const int values = linear.symmetric ? 1 : 2;
    const std::uint16_t* alpha = linear.alpha + static_cast<std::size_t>(channel) * linear.groups() * values;
    const std::int8_t* activations = x.codes + static_cast<std::size_t>(row) * linear.stored_inputs;
    const float middle = linear.bits == 4 ? 8.0f : 128.0f;
    double total = 0;
    for (int block = 0; block < blocks.count; ++block) {
        const std::uint16_t* pair = alpha + block / blocks.per_group * values;
        const float scale = half_value(pair[values - 1]);
        const float zero = (linear.symmetric ? 0.0f : half_value(pair[0])) - middle * scale;
        const std::size_t at = static_cast<std::size_t>(row) * blocks.count + block;
        const std::size_t start = static_cast<std::size_t>(block) * blocks.size;
        const std::int32_t product =
            dot(codes + start * linear.bits / 8, linear.bits, activations + start, blocks.size);
        total += static_cast<double>(scale) * x.scales[at] * product + static_cast<double>(zero) * x.sums[at];
    }
    return static_cast<float>(total);
}

float float_product(const LinearView& linear, const float* x, int channel) {
    const std::uint8_t* weights = linear.codes + channel * linear.row_bytes();
    double total = 0;
    for (int i = 0; i < linear.inputs; ++i) {
        float weight;
        if (linear.bits == 16) {
            std::uint16_t half;
            std::memcpy(&half, weights + 2 * static_cast<std::size_t>(i), sizeof half);
            weight = half_value(half);
        } else {
            std::memcpy(&weight, weights + 4 * static_cast<std::size_t>(i), sizeof weight);
        }
        total += static_cast<double>(weight) * x[i];
    }
    return static_cast<float>(total);
}

float bias_of(const LinearView& linear, int channel) {
    float bias = 0;
    if (linear.bias != nullptr) {
        std::memcpy(&bias, reinterpret_cast<const char*>(linear.bias) + sizeof bias * channel, sizeof bias);
    }
    return bias;
}

void matmul(const LinearView& linear, const Activations& x, std::int32_t first, std::int32_t last, float* out,
            std::size_t out_stride, void*) {
    const Blocks blocks(linear);
    for (std::int32_t row = 0; row < x.count; ++row) {
        const float* floats =
            static_cast<const float*>(x.data) + static_cast<std::size_t>(row) * linear.inputs;
        for (std::int32_t channel = first; channel < last; ++channel) {
            const float product = linear.bits >= 16
                                      ? float_product(linear, floats, channel)
                                      : quantized_product(linear, blocks, Layout(blocks, x), row, channel);
            out[row * out_stride + channel] = product + bias_of(linear, channel);
        }
    }
}

std::uint64_t read(const void* memory, std::size_t bytes) {
    const std::uint8_t* at = static_cast<const std::uint8_t*>(memory);
    std::uint64_t total = 0;
    for (std::size_t i = 0; i + sizeof total <= bytes; i += sizeof total) {
        std::uint64_t word;
        std::memcpy(&word, at + i, sizeof word);
        total += word;
    }
    return total;
}

std::uint64_t dot_products(std::size_t rounds) {
    constexpr int SIZE = 32;
    std::uint8_t codes[SIZE];
    std::int8_t x[SIZE];
    std::uint64_t total = 0;
    for (std::size_t round = 0; round < rounds; ++round) {
        for (int i = 0; i < SIZE; ++i) {
            codes[i] = static_cast<std::uint8_t>(round + i);
            x[i] = static_cast<std::int8_t>(round * i);
        }
        total += static_cast<std::uint64_t>(dot(codes, 8, x, SIZE));
    }
    return total;
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels = {"scalar", activation_bytes, prepare, scratch_bytes, begin, adds_outliers,
                         matmul,   channel_step,     read,    dot_products,  2 * 32};

}  // namespace pocketglm::POCKETGLM_ISA
