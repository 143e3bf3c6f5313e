// The kernels of one instruction set. CMake compiles this file once for each, with POCKETGLM_ISA as the
// namespace; the compiler's flags decide the vector width.
#include "kernels.h"

#include "fit.h"
#include "half.h"
#include "lanes.h"

namespace pocketglm::quantize::POCKETGLM_ISA {
namespace {

// The row as whole groups: padding repeats the last group's first weight, which no extreme notices.
const float* padded_row(const Layout& layout, const float* row, float* scratch) {
    if (layout.inputs == layout.stored_inputs()) return row;
    std::memcpy(scratch, row, layout.inputs * sizeof(float));
    const float filler = row[(layout.groups - 1) * layout.group_size];
    for (size_t i = layout.inputs; i < layout.stored_inputs(); ++i) scratch[i] = filler;
    return scratch;
}

void round_group(const float* weights, size_t size, Fit fit, CodeRange range, int8_t* codes) {
    const float inverse = 1.0f / fit.scale;
    for (size_t i = 0; i < size; ++i) {
        float code = ((weights[i] - fit.zero) * inverse + ROUND) - ROUND;
        code = code > range.low ? code : range.low;
        code = code < range.high ? code : range.high;
        codes[i] = static_cast<int8_t>(static_cast<int32_t>(code));
    }
}

void pack(const int8_t* codes, size_t size, int bits, uint8_t* packed) {
    if (bits == 8) {
        for (size_t i = 0; i < size; ++i) packed[i] = static_cast<uint8_t>(codes[i] + 128);
        return;
    }
    for (size_t i = 0; i < size / 2; ++i) {
        packed[i] = static_cast<uint8_t>((codes[2 * i] + 8) << 4 | (codes[2 * i + 1] + 8));
    }
}

void quantize(const Layout& layout, const float* weights, const float* importance, const float* mass,
              bool searched, Workspace workspace, uint8_t* codes, uint16_t* alpha) {
    const size_t size = layout.group_size;
    const CodeRange range = code_range(layout.bits, layout.symmetric);
    for (size_t row = 0; row < layout.rows; ++row) {
        const float* padded = padded_row(layout, weights + row * layout.inputs, workspace.row);
        for (size_t group = 0; group < layout.groups; ++group) {
            const float* values = padded + group * size;
            const Extremes extent = extremes(values, size);
            Fit fit;
            if (!searched) {
                fit = nearest(extent, range, layout.symmetric);
            } else if (importance != nullptr) {
                fit = search<true>(values, importance + group * size, size, mass[group], extent, range,
                                   layout.symmetric);
            } else {
                fit = search<false>(values, nullptr, size, static_cast<float>(size), extent, range,
                                    layout.symmetric);
            }
            round_group(values, size, fit, range, workspace.codes + group * size);
            if (!layout.symmetric) *alpha++ = half_bits(fit.zero);
            *alpha++ = half_bits(fit.scale);
        }
        std::memset(workspace.codes + layout.inputs, 0, layout.stored_inputs() - layout.inputs);
        pack(workspace.codes, layout.stored_inputs(), layout.bits, codes);
        codes += layout.code_bytes();
    }
}

void expand_bytes(const uint8_t* __restrict codes, size_t size, Fit fit, float* __restrict weights) {
    for (size_t i = 0; i < size; ++i) {
        weights[i] = static_cast<float>(static_cast<int32_t>(codes[i]) - 128) * fit.scale + fit.zero;
    }
}

void expand_nibbles(const uint8_t* __restrict codes, size_t size, Fit fit, float* __restrict weights) {
    for (size_t i = 0; i < size / 2; ++i) {
        const int32_t even = (codes[i] >> 4) - 8, odd = (codes[i] & 15) - 8;
        weights[2 * i] = static_cast<float>(even) * fit.scale + fit.zero;
        weights[2 * i + 1] = static_cast<float>(odd) * fit.scale + fit.zero;
    }
}

void dequantize(const Layout& layout, const uint8_t* codes, const uint16_t* alpha, Workspace workspace,
                float* weights) {
    const size_t size = layout.group_size, bytes = size * layout.bits / 8;
    for (size_t row = 0; row < layout.rows; ++row) {
        for (size_t start = 0; start < layout.inputs; start += size) {
            Fit fit{0.0f, 0.0f};
            if (!layout.symmetric) fit.zero = half_value(*alpha++);
            fit.scale = half_value(*alpha++);
            const size_t count = layout.inputs - start < size ? layout.inputs - start : size;
            float* target = count < size ? workspace.row : weights;
            (layout.bits == 4 ? expand_nibbles : expand_bytes)(codes, size, fit, target);
            if (count < size) std::memcpy(weights, target, count * sizeof(float));
            weights += count;
            codes += bytes;
        }
    }
}

constexpr int LANES = 16;
constexpr size_t STRIP = 256;  // elements that float32 lanes sum before they move to float64

struct LaneSums {
    double error[LANES], norm[LANES], stored[LANES], dot[LANES];
    float largest[LANES];
};

void add_to(double* lanes, Floats value) {
    for (int lane = 0; lane < WIDTH; ++lane) lanes[lane] += static_cast<double>(value[lane]);
}

void add_strip(const float* original, const float* stored, LaneSums& sums) {
    for (int first = 0; first < LANES; first += WIDTH) {
        Floats error{}, norm{}, norm_stored{}, dot{}, largest = load(sums.largest + first);
        for (size_t i = first; i < STRIP; i += LANES) {
            const Floats a = load(original + i), b = load(stored + i), difference = a - b;
            error += difference * difference;
            norm += a * a;
            norm_stored += b * b;
            dot += a * b;
            largest = greater(absolute(difference), largest);
        }
        add_to(sums.error + first, error);
        add_to(sums.norm + first, norm);
        add_to(sums.stored + first, norm_stored);
        add_to(sums.dot + first, dot);
        store(sums.largest + first, largest);
    }
}

double tree(double* lanes) {
    for (int width = LANES / 2; width > 0; width /= 2) {
        for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
    }
    return lanes[0];
}

Comparison compare(const float* original, const float* stored, size_t rows, size_t inputs) {
    Comparison total{};
    const size_t whole = inputs / STRIP * STRIP, rest = inputs - whole;
    for (size_t row = 0; row < rows; ++row, original += inputs, stored += inputs) {
        LaneSums sums{};
        for (size_t i = 0; i < whole; i += STRIP) add_strip(original + i, stored + i, sums);
        if (rest > 0) {
            float a[STRIP] = {}, b[STRIP] = {};
            std::memcpy(a, original + whole, rest * sizeof(float));
            std::memcpy(b, stored + whole, rest * sizeof(float));
            add_strip(a, b, sums);
        }
        total.squared_error += tree(sums.error);
        total.squared_norm += tree(sums.norm);
        total.squared_stored += tree(sums.stored);
        total.dot += tree(sums.dot);
        for (float value : sums.largest) {
            total.max_abs_error = value > total.max_abs_error ? value : total.max_abs_error;
        }
    }
    return total;
}

// Greatest float16, 65504, as float32 bits. The magnitudes of infinity and NaN lie above.
constexpr int32_t GREATEST_HALF = 0x477fe000;

Ints unrepresentable(Floats values) { return (Ints)absolute(values) > GREATEST_HALF; }

size_t first_unrepresentable(const float* values, size_t count) {
    size_t start = 0;
    for (; start + STRIP <= count; start += STRIP) {
        Ints any{};
        for (size_t i = 0; i < STRIP; i += WIDTH) any |= unrepresentable(load(values + start + i));
        bool found = false;
        for (int lane = 0; lane < WIDTH; ++lane) found |= any[lane] != 0;
        if (found) break;
    }
    for (; start < count; ++start) {
        if (unrepresentable(all(values[start]))[0] != 0) break;
    }
    return start;
}

}  // namespace

extern const Kernels kernels{quantize, dequantize, compare, first_unrepresentable};

}  // namespace pocketglm::quantize::POCKETGLM_ISA
