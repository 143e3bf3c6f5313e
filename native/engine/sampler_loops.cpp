#include "sampler_loops.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace pocketglm {

namespace {

#define POCKETGLM_INLINE inline __attribute__((always_inline))

typedef float Floats __attribute__((vector_size(64)));
typedef std::int32_t Ints __attribute__((vector_size(64)));
constexpr std::int32_t LANES = 16;
constexpr float LOWEST = -std::numeric_limits<float>::infinity();

// By reference: how vectors are returned depends on the instruction set.
POCKETGLM_INLINE void load(Floats& loaded, const float* values) {
    std::memcpy(&loaded, values, sizeof loaded);
}

POCKETGLM_INLINE bool any(const Ints& lanes) {
    typedef std::int64_t Pair __attribute__((vector_size(16)));
    Pair parts[4];
    std::memcpy(parts, &lanes, sizeof parts);
    const Pair together = (parts[0] | parts[1]) | (parts[2] | parts[3]);
    return (together[0] | together[1]) != 0;
}

POCKETGLM_INLINE std::int64_t skip_below_inline(const float* values, std::int64_t start, std::int64_t count,
                                                float least) {
    for (; start + SKIPPED_TOGETHER <= count; start += SKIPPED_TOGETHER) {
        Ints reached = {};
        for (std::int64_t i = 0; i < SKIPPED_TOGETHER; i += LANES) {
            Floats value;
            load(value, values + start + i);
            reached |= value >= least;
        }
        if (any(reached)) return start;
    }
    return start;  // the last, incomplete piece, or the end
}

// In blocks: the first place is looked for in one. Two chains, because a maximum takes several cycles.
POCKETGLM_INLINE Largest find_largest_inline(const float* values, std::int32_t count) {
    constexpr std::int32_t BLOCK = 4096, CHAINS = 2, STEP = CHAINS * LANES;
    Largest found{LOWEST, 0};
    Ints nans[CHAINS] = {};
    bool is_nan = false;
    for (std::int32_t start = 0; start < count; start += BLOCK) {
        const std::int32_t end = std::min(count, start + BLOCK);
        Floats largest[CHAINS] = {Floats{} + LOWEST, Floats{} + LOWEST};
        std::int32_t i = start;
        for (; i + STEP <= end; i += STEP) {
            for (std::int32_t chain = 0; chain < CHAINS; ++chain) {
                Floats value;
                load(value, values + i + chain * LANES);
                largest[chain] = value > largest[chain] ? value : largest[chain];
                nans[chain] |= value != value;
            }
        }
        float value = LOWEST;
        for (std::int32_t lane = 0; lane < LANES; ++lane)
            value = std::max(value, std::max(largest[0][lane], largest[1][lane]));
        for (; i < end; ++i) {
            value = values[i] > value ? values[i] : value;
            is_nan |= values[i] != values[i];
        }
        if (value > found.value) found = {value, start};
    }
    if (is_nan || any(nans[0] | nans[1])) found.value = std::numeric_limits<float>::quiet_NaN();
    found.first = static_cast<std::int32_t>(skip_below_inline(values, found.first, count, found.value));
    found.first = std::min(found.first, count - 1);
    while (found.first < count - 1 && values[found.first] != found.value) ++found.first;
    return found;
}

constexpr int EXP_LANES = 8;
typedef double Doubles __attribute__((vector_size(8 * EXP_LANES)));
typedef std::int64_t Longs __attribute__((vector_size(8 * EXP_LANES)));

// e^x for x <= 0; 0 below the least normal number. A library's function, one number at a time, takes longer
// than everything else here. x = k ln 2 + r, and Taylor's series of r.
POCKETGLM_INLINE void exponential(Doubles& x) {
    constexpr double LOWEST_EXPONENT = -708, TO_INTEGER = 0x1.8p52, LOG2_E = 0x1.71547652b82fep0;
    constexpr double LN2_HIGH = 0x1.62e42fefa3800p-1, LN2_LOW = 0x1.ef35793c76730p-45;
    const Longs normal = x >= LOWEST_EXPONENT;
    x = (Doubles)((Longs)x & normal);
    const Doubles shifted = x * LOG2_E + TO_INTEGER;
    const Doubles k = shifted - TO_INTEGER;
    const Doubles r = (x - k * LN2_HIGH) - k * LN2_LOW;
    constexpr double INVERSE_FACTORIALS[] = {1. / 479001600, 1. / 39916800, 1. / 3628800, 1. / 362880,
                                             1. / 40320,     1. / 5040,     1. / 720,     1. / 120,
                                             1. / 24,        1. / 6,        1. / 2,       1.};
    Doubles series = r * (1. / 6227020800);
    for (const double coefficient : INVERSE_FACTORIALS) series = (series + coefficient) * r;
    const Longs power = ((Longs)shifted + 1023) << 52;
    x = (Doubles)((Longs)((series + 1.) * (Doubles)power) & normal);
}

POCKETGLM_INLINE void exponentials_inline(const float* scores, std::int64_t count, double largest,
                                          double temperature, double* weights) {
    typedef float Halves __attribute__((vector_size(4 * EXP_LANES)));
    for (std::int64_t i = 0; i < count; i += EXP_LANES) {
        const std::size_t lanes = static_cast<std::size_t>(std::min<std::int64_t>(EXP_LANES, count - i));
        Halves floats{};
        if (lanes == EXP_LANES) {
            std::memcpy(&floats, scores + i, sizeof floats);
        } else {
            std::memcpy(&floats, scores + i, lanes * sizeof(float));
        }
        Doubles x = (__builtin_convertvector(floats, Doubles) - largest) / temperature;
        exponential(x);
        if (lanes == EXP_LANES) {
            std::memcpy(weights + i, &x, sizeof x);
        } else {
            std::memcpy(weights + i, &x, lanes * sizeof(double));
        }
    }
}

// POCKETGLM_WIDEST(type, name, (parameters), (arguments)): `name`, which runs the widest version of
// name_inline.
#if defined(__x86_64__)
bool runs_avx2() {
    static const bool runs = __builtin_cpu_supports("avx2") != 0;
    return runs;
}
bool runs_avx512() {
    static const bool runs = __builtin_cpu_supports("avx512f") != 0;
    return runs;
}
#define POCKETGLM_WIDEST(type, name, parameters, arguments)                                              \
    __attribute__((target("avx512f"))) type name##_avx512 parameters { return name##_inline arguments; } \
    __attribute__((target("avx2"))) type name##_avx2 parameters { return name##_inline arguments; }      \
    type name##_widest parameters {                                                                      \
        if (runs_avx512()) return name##_avx512 arguments;                                               \
        return runs_avx2() ? name##_avx2 arguments : name##_inline arguments;                            \
    }
#else
#define POCKETGLM_WIDEST(type, name, parameters, arguments) \
    type name##_widest parameters { return name##_inline arguments; }
#endif

POCKETGLM_WIDEST(Largest, find_largest, (const float* values, std::int32_t count), (values, count))
POCKETGLM_WIDEST(std::int64_t, skip_below,
                 (const float* values, std::int64_t start, std::int64_t count, float least),
                 (values, start, count, least))
POCKETGLM_WIDEST(void, exponentials,
                 (const float* scores, std::int64_t count, double largest, double temperature,
                  double* weights),
                 (scores, count, largest, temperature, weights))

}  // namespace

Largest find_largest(const float* values, std::int32_t count) { return find_largest_widest(values, count); }

std::int64_t skip_below(const float* values, std::int64_t start, std::int64_t count, float least) {
    return skip_below_widest(values, start, count, least);
}

void exponentials(const float* scores, std::int64_t count, double largest, double temperature,
                  double* weights) {
    exponentials_widest(scores, count, largest, temperature, weights);
}

double sum(const double* values, std::int64_t count) {
    constexpr std::int64_t SUMS = 8, BLOCK = 128;
    double total = 0;
    for (std::int64_t start = 0; start < count; start += BLOCK) {
        const std::int64_t end = std::min(count, start + BLOCK);
        double lanes[SUMS] = {};
        std::int64_t i = start;
        for (; i + SUMS <= end; i += SUMS)
            for (std::int64_t lane = 0; lane < SUMS; ++lane) lanes[lane] += values[i + lane];
        for (std::int64_t lane = 0; lane < SUMS && i + lane < end; ++lane) lanes[lane] += values[i + lane];
        total +=
            ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
    }
    return total;
}

}  // namespace pocketglm
