// Scale and zero of one group: round-to-nearest, or the best of sixteen candidates refitted by least
// squares. The method is described in src/pocketglm/quantize/reference.py; the order of operations here
// is the same. A vector lane is one candidate.
#pragma once

#include "half.h"
#include "lanes.h"

namespace pocketglm::quantize::POCKETGLM_ISA {

constexpr int CANDIDATES = 16;
constexpr int PASSES = 3;
constexpr size_t BLOCK = 128;
constexpr float SMALLEST_SCALE = 0x1p-24f;
constexpr float INFINITY_FLOAT = __builtin_inff();

// STEPS of the reference: code steps cut off the range below and above it.
alignas(64) constexpr float BELOW[CANDIDATES] = {
    0.0f, 0.0f, -1.25f, 0.0f, -0.75f, 0.0f, -0.25f, 0.0f, 0.5f, 0.0f, 1.0f, 0.0f, 1.5f, 0.0f, 2.0f, 0.0f,
};
alignas(64) constexpr float ABOVE[CANDIDATES] = {
    0.0f, -1.5f, 0.0f, -1.0f, 0.0f, -0.5f, 0.0f, 0.25f, 0.0f, 0.75f, 0.0f, 1.25f, 0.0f, 1.75f, 0.0f, 2.25f,
};

struct CodeRange {
    float low, high;
};

inline CodeRange code_range(int bits, bool symmetric) {
    const float top = static_cast<float>((1 << (bits - 1)) - 1);
    return {symmetric ? -top : -top - 1.0f, top};
}

struct Extremes {
    float least, greatest;
};

inline Extremes extremes(const float* weights, size_t size) {
    Floats least = load(weights), greatest = least;
    for (size_t i = WIDTH; i < size; i += WIDTH) {
        const Floats value = load(weights + i);
        least = smaller(value, least);
        greatest = greater(value, greatest);
    }
    Extremes result{least[0], greatest[0]};
    for (int lane = 1; lane < WIDTH; ++lane) {
        result.least = least[lane] < result.least ? least[lane] : result.least;
        result.greatest = greatest[lane] > result.greatest ? greatest[lane] : result.greatest;
    }
    return {result.least + 0.0f, result.greatest + 0.0f};  // + 0: no negative zero
}

struct Parameters {
    Floats scale, zero;
};

inline Floats stored_scale(Floats scale) { return greater(round_half(scale), all(SMALLEST_SCALE)); }

inline Parameters starting_points(Extremes range, Floats below, Floats above, CodeRange codes,
                                  bool symmetric) {
    if (symmetric) {
        const float negative = 0.0f - range.least;
        const float reach = range.greatest > negative ? range.greatest : negative;
        const Floats scale = (reach - (reach / codes.high) * (below + above)) / codes.high;
        return {stored_scale(scale), Floats{}};
    }
    const float step = (range.greatest - range.least) / (codes.high - codes.low);
    const Floats bottom = range.least + step * below;
    const Floats top = range.greatest - step * above;
    const Floats zero = round_half(bottom - codes.low * ((top - bottom) / (codes.high - codes.low)));
    return {stored_scale(greater((top - zero) / codes.high, (bottom - zero) / codes.low)), zero};
}

// Sums over a group: p r^2, p r, p r q, p q, p q^2 (p importance, q code, r residual).
struct Sums {
    Floats error{}, r{}, rq{}, q{}, qq{};

    void add(const Sums& other) {
        error += other.error;
        r += other.r;
        rq += other.rq;
        q += other.q;
        qq += other.qq;
    }
};

// The last pass of a search needs the error only: LAST leaves the other sums at 0.
template <bool WEIGHTED, bool LAST>
inline Sums evaluate(const float* weights, const float* importance, size_t size, Parameters at,
                     CodeRange codes) {
    const Floats inverse = 1.0f / at.scale, low = all(codes.low), high = all(codes.high);
    Sums total;
    for (size_t start = 0; start < size; start += BLOCK) {
        const size_t end = start + BLOCK < size ? start + BLOCK : size;
        Sums block;
        for (size_t i = start; i < end; ++i) {
            const Floats offset = weights[i] - at.zero;
            const Floats code = round_codes(offset, inverse, low, high);
            const Floats residual = offset - code * at.scale;
            const Floats weighted = WEIGHTED ? importance[i] * residual : residual;
            block.error += weighted * residual;
            if (LAST) continue;
            const Floats weighted_code = WEIGHTED ? importance[i] * code : code;
            block.r += weighted;
            block.rq += weighted * code;
            block.q += weighted_code;
            block.qq += weighted_code * code;
        }
        total.add(block);
    }
    return total;
}

// The least-squares change of the parameters for the codes that gave the sums; 0 where undetermined.
inline Parameters refit(const Sums& sums, float mass, bool symmetric) {
    const Floats one = all(1.0f), none{};
    if (symmetric) {
        const auto known = sums.qq > none;
        return {known ? sums.rq / (known ? sums.qq : one) : none, none};
    }
    const Floats determinant = mass * sums.qq - sums.q * sums.q;
    const auto known = determinant > 1e-6f * (mass * sums.qq);
    const Floats safe = known ? determinant : one;
    return {known ? (mass * sums.rq - sums.q * sums.r) / safe : none,
            known ? (sums.qq * sums.r - sums.q * sums.rq) / safe : none};
}

struct Fit {
    float scale, zero;
};

// Best of the candidates, the first of equals.
template <bool WEIGHTED>
inline Fit search(const float* weights, const float* importance, size_t size, float mass, Extremes range,
                  CodeRange codes, bool symmetric) {
    float error = INFINITY_FLOAT;
    Fit chosen{};
    for (int first = 0; first < CANDIDATES; first += WIDTH) {
        Parameters at = starting_points(range, load(BELOW + first), load(ABOVE + first), codes, symmetric);
        Parameters best = at;
        Floats best_error = all(INFINITY_FLOAT);
        for (int pass = 0;; ++pass) {
            const bool last = pass + 1 == PASSES;
            const Sums sums = last ? evaluate<WEIGHTED, true>(weights, importance, size, at, codes)
                                   : evaluate<WEIGHTED, false>(weights, importance, size, at, codes);
            const auto better = sums.error < best_error;
            best_error = better ? sums.error : best_error;
            best.scale = better ? at.scale : best.scale;
            best.zero = better ? at.zero : best.zero;
            if (last) break;
            const Parameters change = refit(sums, mass, symmetric);
            at = {stored_scale(at.scale + change.scale), round_half(at.zero + change.zero)};
        }
        for (int lane = 0; lane < WIDTH; ++lane) {
            if (best_error[lane] < error || first + lane == 0) {
                error = best_error[lane];
                chosen = {best.scale[lane], best.zero[lane]};
            }
        }
    }
    return chosen;
}

inline Fit nearest(Extremes range, CodeRange codes, bool symmetric) {
    const Parameters at = starting_points(range, Floats{}, Floats{}, codes, symmetric);
    return {at.scale[0], at.zero[0]};
}

}  // namespace pocketglm::quantize::POCKETGLM_ISA
