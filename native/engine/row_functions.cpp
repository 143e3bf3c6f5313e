// Norms, activation functions, residual sums and rotary embedding of single rows; compiled once per
// instruction set. The definitions are those of engine/reference/block.py and rotary.py.
#include <cmath>

#include "attention.h"
#include "decoder_math.h"
#include "vectors.h"

namespace pocketglm::decoder::POCKETGLM_ISA {

namespace {

// Calls body(start, lanes) for whole vectors, then for what is left.
template <typename Body>
inline void each_vector(int count, Body body) {
    int i = 0;
    for (; i + WIDTH <= count; i += WIDTH) body(i, WIDTH);
    if (i < count) body(i, count - i);
}

inline Floats load_lanes(const float* from, int lanes) {
    return lanes == WIDTH ? load(from) : load_part(from, lanes);
}

inline void store_lanes(float* to, Floats value, int lanes) {
    if (lanes == WIDTH) {
        store(to, value);
    } else {
        store_part(to, value, lanes);
    }
}

void rms_norm(const float* x, const float* weight, float eps, int count, float* out) {
    Floats squares{};
    each_vector(count, [&](int i, int lanes) {
        const Floats value = load_lanes(x + i, lanes);
        squares += value * value;
    });
    const float factor = 1.0f / std::sqrt(sum(squares) / static_cast<float>(count) + eps);
    each_vector(count, [&](int i, int lanes) {
        store_lanes(out + i, load_lanes(x + i, lanes) * factor * load_lanes(weight + i, lanes), lanes);
    });
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int count, float* out) {
    Floats total{};
    each_vector(count, [&](int i, int lanes) { total += load_lanes(x + i, lanes); });
    const float mean = sum(total) / static_cast<float>(count);
    float squares = 0;
    Floats whole{};
    int i = 0;
    for (; i + WIDTH <= count; i += WIDTH) {
        const Floats centered = load(x + i) - mean;
        whole += centered * centered;
    }
    for (; i < count; ++i) squares += (x[i] - mean) * (x[i] - mean);
    const float factor = 1.0f / std::sqrt((sum(whole) + squares) / static_cast<float>(count) + eps);
    each_vector(count, [&](int at, int lanes) {
        const Floats normed = (load_lanes(x + at, lanes) - mean) * factor;
        store_lanes(out + at, normed * load_lanes(weight + at, lanes) + load_lanes(bias + at, lanes), lanes);
    });
}

void add(float* x, const float* y, int count) {
    each_vector(count, [&](int i, int lanes) {
        store_lanes(x + i, load_lanes(x + i, lanes) + load_lanes(y + i, lanes), lanes);
    });
}

void scale(const float* x, float factor, int count, float* out) {
    each_vector(count,
                [&](int i, int lanes) { store_lanes(out + i, load_lanes(x + i, lanes) * factor, lanes); });
}

// x / (1 + e^-x)
inline Floats silu(Floats x) { return x / (exponential(-x) + 1.0f); }

void gated_silu(const float* gate, const float* up, int count, float* out) {
    each_vector(count, [&](int i, int lanes) {
        store_lanes(out + i, silu(load_lanes(gate + i, lanes)) * load_lanes(up + i, lanes), lanes);
    });
}

// x/2 (1 + tanh(z)) = x / (1 + e^-2z) with z = sqrt(2/pi) (x + 0.044715 x^3) (arXiv:1606.08415).
void gelu_tanh(const float* x, int count, float* out) {
    constexpr float TWO_SLOPES = 1.5957691216f;  // 2 sqrt(2/pi)
    each_vector(count, [&](int i, int lanes) {
        const Floats value = load_lanes(x + i, lanes);
        const Floats inner = value * (value * value * 0.044715f + 1.0f) * TWO_SLOPES;
        store_lanes(out + i, value / (exponential(-inner) + 1.0f), lanes);
    });
}

void rotate(const RowRotation& rotation, float* head) {
    const int pairs = rotation.pairs;
    for (int axis = 0; axis < rotation.axes; ++axis, head += 2 * pairs) {
        const float* cosine = rotation.cosine + axis * pairs;
        const float* sine = rotation.sine + axis * pairs;
        if (rotation.interleaved) {
            for (int i = 0; i < pairs; ++i) {
                const float first = head[2 * i], second = head[2 * i + 1];
                head[2 * i] = first * cosine[i] - second * sine[i];
                head[2 * i + 1] = second * cosine[i] + first * sine[i];
            }
            continue;
        }
        each_vector(pairs, [&](int i, int lanes) {
            const Floats first = load_lanes(head + i, lanes), second = load_lanes(head + pairs + i, lanes);
            const Floats c = load_lanes(cosine + i, lanes), s = load_lanes(sine + i, lanes);
            store_lanes(head + i, first * c - second * s, lanes);
            store_lanes(head + pairs + i, second * c + first * s, lanes);
        });
    }
}

void exponentials(const float* x, int count, float* out) {
    each_vector(
        count, [&](int i, int lanes) { store_lanes(out + i, exponential(load_lanes(x + i, lanes)), lanes); });
}

}  // namespace

extern const DecoderMath decoder_math;
const DecoderMath decoder_math = {
#define POCKETGLM_TEXT_OF(name) #name
#define POCKETGLM_NAME_OF(name) POCKETGLM_TEXT_OF(name)
    POCKETGLM_NAME_OF(POCKETGLM_ISA),
    rms_norm,
    layer_norm,
    add,
    scale,
    gated_silu,
    gelu_tanh,
    rotate,
    exponentials,
    store_rows,
    load_rows,
    attend,
    merge_attention,
    take_outliers,
    add_outliers,
};

}  // namespace pocketglm::decoder::POCKETGLM_ISA
