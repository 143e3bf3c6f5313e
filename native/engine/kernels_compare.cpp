// A program that compares every table of matrix kernels that this machine can run with the scalar one:
// for cross builds, where there is no Python (tests/engine/native/test_arm64.py runs it under emulation).
// Arguments: the names of the tables expected; prints one line for each, exits with 1 where one differs.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "kernels.h"
#include "outliers.h"

using namespace pocketglm;

namespace {

// xorshift32 (Marsaglia 2003): the same numbers everywhere.
std::uint32_t next_random() {
    static std::uint32_t state = 2463534242u;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

float random_float() { return static_cast<float>(next_random() >> 8) * 0x1p-23f - 1.0f; }

// A float16 of magnitude 2^-8 to 2^-4, either sign.
std::uint16_t random_half() {
    return static_cast<std::uint16_t>((next_random() & 0x83ffu) | (7u + next_random() % 4) << 10);
}

struct Layer {
    LinearView view;
    std::vector<std::uint8_t> codes;
    std::vector<std::uint16_t> alpha;
    std::vector<float> bias;

    Layer(int bits, int group, bool symmetric, int rows, int inputs) {
        view.bits = bits;
        view.symmetric = symmetric;
        view.rows = rows;
        view.inputs = view.stored_inputs = inputs;
        if (bits < 16) {
            const int multiple = group == 0 ? 32 : group;
            view.stored_inputs = (inputs + multiple - 1) / multiple * multiple;
            view.group = group == 0 ? view.stored_inputs : group;
        }
        codes.resize(view.row_bytes() * rows);
        if (bits == 16) {
            for (std::size_t i = 0; i < codes.size(); i += 2) {
                const std::uint16_t half = random_half();
                std::memcpy(&codes[i], &half, sizeof half);
            }
        } else if (bits == 32) {
            for (std::size_t i = 0; i < codes.size(); i += 4) {
                const float value = random_float();
                std::memcpy(&codes[i], &value, sizeof value);
            }
        } else {
            for (std::uint8_t& each : codes) each = static_cast<std::uint8_t>(next_random());
        }
        alpha.resize(static_cast<std::size_t>(rows) * view.groups() * (symmetric ? 1 : 2));
        for (std::uint16_t& each : alpha) each = random_half();
        for (int i = 0; i < rows; ++i) bias.push_back(random_float());
        view.codes = codes.data();
        view.alpha = alpha.data();
        view.bias = bias.data();
    }
};

std::vector<float> multiply(const Kernels& kernels, const LinearView& view, const std::vector<float>& x,
                            int count, const OutlierRow* outliers = nullptr) {
    constexpr std::size_t ALIGNMENT = 64;
    void* data = std::aligned_alloc(ALIGNMENT, kernels.activation_bytes(view, count) + ALIGNMENT);
    void* scratch = std::aligned_alloc(ALIGNMENT, kernels.scratch_bytes(view, count) + ALIGNMENT);
    std::vector<float> out(static_cast<std::size_t>(count) * view.rows);
    const Activations activations{data, count, outliers};
    kernels.prepare(view, x.data(), view.inputs, 0, count, activations);
    kernels.begin(view, activations, scratch);
    kernels.matmul(view, activations, 0, view.rows, out.data(), view.rows, scratch);
    std::free(data);
    std::free(scratch);
    return out;
}

// Two outliers in every row; their values.
std::vector<OutlierRow> make_outliers(const LinearView& view, int count) {
    std::vector<OutlierRow> rows(count);
    for (OutlierRow& row : rows) row = {2, {view.inputs - 2, 3}, {random_float(), random_float()}};
    return rows;
}

// out += the outliers' products, by the products of rows that are 1 in one input and 0 elsewhere.
void add_outliers(const Kernels& kernels, const Layer& layer, const std::vector<OutlierRow>& rows,
                  std::vector<float>& out) {
    const LinearView& view = layer.view;
    for (int i = 0; i < rows[0].count; ++i) {
        std::vector<float> x(view.inputs);
        x[rows[0].channels[i]] = 1;
        const std::vector<float> weights = multiply(kernels, view, x, 1);
        for (std::size_t row = 0; row < rows.size(); ++row) {
            for (int channel = 0; channel < view.rows; ++channel)
                out[row * view.rows + channel] +=
                    rows[row].values[i] * (weights[channel] - layer.bias[channel]);
        }
    }
}

// Greatest difference over the root of the sum of squares, of one product.
double difference(const Kernels& kernels, const Kernels& scalar, const Layer& layer, int count) {
    std::vector<float> x(static_cast<std::size_t>(count) * layer.view.inputs);
    for (float& each : x) each = random_float();
    const std::vector<OutlierRow> outliers = make_outliers(layer.view, count);
    const bool quantized = layer.view.bits < 16;
    std::vector<float> expected = multiply(scalar, layer.view, x, count);
    const std::vector<float> found =
        multiply(kernels, layer.view, x, count, quantized ? outliers.data() : nullptr);
    if (quantized && kernels.adds_outliers(count)) add_outliers(scalar, layer, outliers, expected);
    double largest = 0, squares = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const double error = std::fabs(static_cast<double>(found[i]) - expected[i]);
        if (!(error <= largest)) largest = error;
        squares += static_cast<double>(expected[i]) * expected[i];
    }
    return largest / std::sqrt(squares / static_cast<double>(expected.size()));
}

// The worst case of all formats and counts of rows.
double worst_difference(const Kernels& kernels, const Kernels& scalar) {
    double worst = 0;
    for (int bits : {4, 8, 16, 32}) {
        for (int group : {32, 64, 128, 0}) {
            for (bool symmetric : {false, true}) {
                if (bits >= 16 && (group != 0 || symmetric)) continue;
                for (int inputs : {172, 512, 1300}) {
                    const Layer layer(bits, group, symmetric, 37, inputs);
                    for (int count : {1, 2, 3, 4, 5, 7, 13, 14, 33}) {
                        const double found = difference(kernels, scalar, layer, count);
                        if (!(found <= worst)) worst = found;
                    }
                }
            }
        }
    }
    return worst;
}

}  // namespace

int main(int count, char** names) {
    constexpr double CEILING = 1e-5;  // both add the same integers, in float32, in another order
    const Kernels* scalar = choose_kernels("scalar");
    bool good = true;
    for (int i = 1; i < count; ++i) {
        const Kernels* kernels = choose_kernels(names[i]);
        if (kernels == nullptr) {
            std::printf("%s: cannot run here\n", names[i]);
            good = false;
            continue;
        }
        const double worst = worst_difference(*kernels, *scalar);
        std::printf("%s: greatest difference %.2g\n", names[i], worst);
        good = good && worst <= CEILING;
    }
    return good ? 0 : 1;
}
