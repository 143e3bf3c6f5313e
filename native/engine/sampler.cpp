#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include "failure.h"

namespace pocketglm {

namespace {

// The two long loops are compiled for 256-bit vectors too. Neither version fuses products and sums, so that
// a seed gives the same tokens on every machine.
#if defined(__x86_64__)
#define POCKETGLM_WIDE __attribute__((target("avx2")))
bool runs_wide() {
    static const bool runs = __builtin_cpu_supports("avx2") != 0;
    return runs;
}
#else
#define POCKETGLM_WIDE
bool runs_wide() { return false; }
#endif
#define POCKETGLM_INLINE inline __attribute__((always_inline))

constexpr float LOWEST = -std::numeric_limits<float>::infinity();
// How many of the most probable tokens top-p looks at first; most distributions need fewer.
constexpr std::size_t TOP_P_FIRST_GUESS = 256;

void require_between(double value, double low, double high, const char* name) {
    require(value >= low && value <= high,  // false for NaN
            std::string(name) + " is " + std::to_string(value) + ", expected " + std::to_string(low) +
                " to " + std::to_string(high));
}

// In lanes and blocks: fast, and the error stays small however many there are.
double sum(const double* values, std::int64_t count) {
    constexpr std::int64_t LANES = 8, BLOCK = 128;
    double total = 0;
    for (std::int64_t start = 0; start < count; start += BLOCK) {
        const std::int64_t end = std::min(count, start + BLOCK);
        double lanes[LANES] = {};
        std::int64_t i = start;
        for (; i + LANES <= end; i += LANES)
            for (std::int64_t lane = 0; lane < LANES; ++lane) lanes[lane] += values[i + lane];
        for (std::int64_t lane = 0; lane < LANES && i + lane < end; ++lane) lanes[lane] += values[i + lane];
        total +=
            ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
    }
    return total;
}

// The size-th largest of `count` values, 0 < size <= count. One pass keeps what may belong to the top.
template <typename Value>
Value nth_largest(const Value* values, std::size_t count, std::size_t size) {
    std::vector<Value> top;
    top.reserve(4 * size);
    Value least = values[0];
    bool full = false;
    const auto cut = [&] {
        std::nth_element(top.begin(), top.begin() + (size - 1), top.end(), std::greater<Value>());
        top.resize(size);
        least = top[size - 1];
        full = true;
    };
    for (std::size_t i = 0; i < count; ++i) {
        if (full && !(values[i] > least)) continue;
        top.push_back(values[i]);
        if (top.size() == 4 * size) cut();
    }
    cut();
    return least;
}

struct Largest {
    float value;  // NaN where any is
    std::int32_t first;
};

// In lanes, which compilers turn into vectors, and in blocks: the first place is looked for in one.
POCKETGLM_INLINE Largest find_largest_inline(const float* values, std::int32_t count) {
    constexpr std::int32_t LANES = 16, BLOCK = 4096;
    Largest found{LOWEST, 0};
    int nans[LANES] = {};
    for (std::int32_t start = 0; start < count; start += BLOCK) {
        const std::int32_t end = std::min(count, start + BLOCK);
        float largest[LANES];
        std::fill_n(largest, LANES, LOWEST);
        std::int32_t i = start;
        for (; i + LANES <= end; i += LANES) {
            for (std::int32_t lane = 0; lane < LANES; ++lane) {
                const float value = values[i + lane];
                largest[lane] = value > largest[lane] ? value : largest[lane];
                nans[lane] |= value != value;
            }
        }
        for (; i < end; ++i) {
            largest[0] = values[i] > largest[0] ? values[i] : largest[0];
            nans[0] |= values[i] != values[i];
        }
        const float value = *std::max_element(largest, largest + LANES);
        if (value > found.value) found = {value, start};
    }
    if (std::any_of(nans, nans + LANES, [](int nan) { return nan != 0; }))
        found.value = std::numeric_limits<float>::quiet_NaN();
    while (found.first < count - 1 && values[found.first] != found.value) ++found.first;
    return found;
}

POCKETGLM_WIDE Largest find_largest_wide(const float* values, std::int32_t count) {
    return find_largest_inline(values, count);
}

Largest find_largest(const float* values, std::int32_t count) {
    return runs_wide() ? find_largest_wide(values, count) : find_largest_inline(values, count);
}

constexpr int EXP_LANES = 8;
typedef double Doubles __attribute__((vector_size(8 * EXP_LANES)));
typedef std::int64_t Longs __attribute__((vector_size(8 * EXP_LANES)));

// e^x for x <= 0, to 2 units in the last place; 0 below the least normal number. A library's function,
// one number at a time, takes longer than everything else here. x = k ln 2 + r, and Taylor's series of r.
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

POCKETGLM_INLINE void exponentials_inline(const float* scores, std::size_t count, double largest,
                                          double temperature, double* weights) {
    typedef float Floats __attribute__((vector_size(4 * EXP_LANES)));
    for (std::size_t i = 0; i < count; i += EXP_LANES) {
        const std::size_t lanes = std::min<std::size_t>(EXP_LANES, count - i);
        Floats floats{};
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

POCKETGLM_WIDE void exponentials_wide(const float* scores, std::size_t count, double largest,
                                      double temperature, double* weights) {
    exponentials_inline(scores, count, largest, temperature, weights);
}

// weights = exp((scores - largest) / temperature)
void exponentials(const float* scores, std::size_t count, double largest, double temperature,
                  double* weights) {
    if (runs_wide()) return exponentials_wide(scores, count, largest, temperature, weights);
    exponentials_inline(scores, count, largest, temperature, weights);
}

}  // namespace

Sampler::Sampler(const pglm_sampling& sampling, std::int32_t vocab_size)
    : sampling_(sampling), vocab_size_(vocab_size) {
    require(vocab_size > 0, "the vocabulary is empty");
    require_between(sampling.temperature, 0, 100, "temperature");
    require_between(sampling.top_p, 0, 1, "top_p");
    require_between(sampling.min_p, 0, 1, "min_p");
    require_between(sampling.repetition_penalty, 0.01, 100, "repetition_penalty");
    require_between(sampling.presence_penalty, -100, 100, "presence_penalty");
    require_between(sampling.frequency_penalty, -100, 100, "frequency_penalty");
    require(sampling.top_k >= 0, "top_k is negative");
    is_seen_.resize(vocab_size);
}

void Sampler::check_token(std::int64_t token) const {
    require(
        token >= 0 && token < vocab_size_,
        "token id " + std::to_string(token) + " is outside the vocabulary of " + std::to_string(vocab_size_));
}

void Sampler::see(const std::int32_t* tokens, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) check_token(tokens[i]);
    for (std::int64_t i = 0; i < count; ++i) {
        if (is_seen_[tokens[i]]) continue;
        is_seen_[tokens[i]] = true;
        seen_.push_back(tokens[i]);
    }
}

void Sampler::ban(const std::int32_t* tokens, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) check_token(tokens[i]);
    banned_.insert(banned_.end(), tokens, tokens + count);
}

void Sampler::add_bias(const std::int32_t* tokens, const float* values, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
        check_token(tokens[i]);
        require(!std::isnan(values[i]) && values[i] < std::numeric_limits<float>::infinity(),
                "the bias of token " + std::to_string(tokens[i]) + " is not a number below infinity");
    }
    bias_ids_.insert(bias_ids_.end(), tokens, tokens + count);
    bias_.insert(bias_.end(), values, values + count);
}

void Sampler::accept(std::int32_t token) {
    see(&token, 1);
    ++generated_[token];
}

std::int32_t Sampler::next(const float* logits, double uniform) {
    require(uniform >= 0 && uniform < 1, "the uniform number is not in [0, 1)");
    const float* scores = penalized(logits);
    const Largest largest = find_largest(scores, vocab_size_);
    if (!std::isfinite(largest.value)) {
        throw Failure(PGLM_INTERNAL,
                      "the model's logits have no finite maximum: it is " + std::to_string(largest.value));
    }
    const bool greedy = sampling_.temperature == 0;
    const std::int32_t token = greedy ? largest.first : draw(scores, largest.value, uniform);
    accept(token);
    return token;
}

// The inverse of the cumulative distribution, in the order of ids.
std::int32_t Sampler::draw(const float* scores, float largest, double uniform) {
    filter(scores, largest);
    constexpr std::size_t BLOCK = 128;  // a chain of additions, one for each weight, takes long
    const std::size_t last = weights_.size() - 1;
    const double wanted = uniform * sum(weights_.data(), weights_.size());
    double reached = 0;
    std::size_t place = 0;
    for (; place + BLOCK < last; place += BLOCK) {
        const double through = reached + sum(weights_.data() + place, BLOCK);
        if (through > wanted) break;
        reached = through;
    }
    while (place < last && (reached += weights_[place]) <= wanted) ++place;
    return ids_.empty() ? static_cast<std::int32_t>(place) : ids_[place];
}

std::int32_t Sampler::distribution(const float* logits, std::int32_t* ids, double* probabilities) {
    require(sampling_.temperature > 0, "a greedy choice has no distribution");
    const float* scores = penalized(logits);
    filter(scores, find_largest(scores, vocab_size_).value);
    const double total = sum(weights_.data(), weights_.size());
    for (std::size_t i = 0; i < weights_.size(); ++i) {
        ids[i] = ids_.empty() ? static_cast<std::int32_t>(i) : ids_[i];
        probabilities[i] = weights_[i] / total;
    }
    return static_cast<std::int32_t>(weights_.size());
}

bool Sampler::changes_scores() const {
    const bool counts = sampling_.presence_penalty != 0 || sampling_.frequency_penalty != 0;
    return !bias_ids_.empty() || !banned_.empty() || (counts && !generated_.empty()) ||
           (sampling_.repetition_penalty != 1 && !seen_.empty());
}

// The logits after bias and penalties: the caller's own where nothing applies.
const float* Sampler::penalized(const float* logits) {
    if (!changes_scores()) return logits;
    scores_.assign(logits, logits + vocab_size_);
    for (std::size_t i = 0; i < bias_ids_.size(); ++i) scores_[bias_ids_[i]] += bias_[i];
    for (const std::int32_t id : banned_) scores_[id] = LOWEST;
    if (sampling_.repetition_penalty != 1) {
        const float penalty = static_cast<float>(sampling_.repetition_penalty);
        for (const std::int32_t id : seen_) {
            scores_[id] = scores_[id] < 0 ? scores_[id] * penalty : scores_[id] / penalty;
        }
    }
    const float presence = static_cast<float>(sampling_.presence_penalty);
    const float frequency = static_cast<float>(sampling_.frequency_penalty);
    if (presence != 0 || frequency != 0) {
        for (const auto& [id, count] : generated_)
            scores_[id] -= presence + frequency * static_cast<float>(count);
    }
    return scores_.data();
}

// Temperature, top-k, top-p, min-p: what may be drawn, in ids_ and weights_.
void Sampler::filter(const float* scores, float largest) {
    ids_.clear();
    keep_top_k(scores, largest);
    keep_top_p();
    keep_min_p();
}

void Sampler::keep_top_k(const float* scores, double largest) {
    if (sampling_.top_k == 0 || sampling_.top_k >= vocab_size_) {
        weights_.resize(vocab_size_);
        exponentials(scores, vocab_size_, largest, sampling_.temperature, weights_.data());
        return;
    }
    const float least = nth_largest(scores, vocab_size_, sampling_.top_k);
    std::vector<float> kept;
    for (std::int32_t id = 0; id < vocab_size_; ++id) {
        if (scores[id] < least) continue;  // ties at the edge stay
        ids_.push_back(id);
        kept.push_back(scores[id]);
    }
    weights_.resize(kept.size());
    exponentials(kept.data(), kept.size(), largest, sampling_.temperature, weights_.data());
}

// Keeps the smallest set of most probable entries whose sum reaches top_p; of equal ones the first.
void Sampler::keep_top_p() {
    if (sampling_.top_p >= 1) return;
    const double total = sum(weights_.data(), weights_.size());
    const std::size_t count = weights_.size();
    struct Entry {
        double weight;
        std::size_t place;
    };
    std::vector<Entry> top;
    for (std::size_t size = TOP_P_FIRST_GUESS;; size *= 8) {
        const double least = size < count ? nth_largest(weights_.data(), count, size) : 0;
        top.clear();
        for (std::size_t i = 0; i < count; ++i)
            if (weights_[i] >= least) top.push_back({weights_[i], i});
        std::sort(top.begin(), top.end(), [](const Entry& a, const Entry& b) {
            return a.weight > b.weight || (a.weight == b.weight && a.place < b.place);
        });
        // An entry stays where those above it sum to less than top_p; the largest always stays.
        double through = 0;
        std::size_t kept = 0;
        for (; kept < top.size(); ++kept) {
            const double own = top[kept].weight / total;
            through += own;
            if (through - own >= sampling_.top_p) break;
        }
        if (kept == top.size() && kept < count) continue;
        top.resize(std::max<std::size_t>(1, kept));
        break;
    }
    std::sort(top.begin(), top.end(), [](const Entry& a, const Entry& b) { return a.place < b.place; });
    std::vector<std::int32_t> ids;
    weights_.clear();
    for (const Entry& entry : top) {
        ids.push_back(ids_.empty() ? static_cast<std::int32_t>(entry.place) : ids_[entry.place]);
        weights_.push_back(entry.weight);
    }
    ids_ = std::move(ids);
}

// Keeps what is at least min_p times as probable as the most probable.
void Sampler::keep_min_p() {
    if (sampling_.min_p <= 0) return;
    const double least = sampling_.min_p * *std::max_element(weights_.begin(), weights_.end());
    std::vector<std::int32_t> ids;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < weights_.size(); ++i) {
        if (weights_[i] < least) continue;
        ids.push_back(ids_.empty() ? static_cast<std::int32_t>(i) : ids_[i]);
        weights_[kept++] = weights_[i];
    }
    weights_.resize(kept);
    ids_ = std::move(ids);
}

}  // namespace pocketglm
