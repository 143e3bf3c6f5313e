#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include "failure.h"
#include "sampler_loops.h"

namespace pocketglm {

namespace {

constexpr float LOWEST = -std::numeric_limits<float>::infinity();

// Classes of weights for top-p: 16 for each power of two from 1 down to 2^-64, the last one for all below.
constexpr int CLASSES = 1024, CLASS_SHIFT = 52 - 4;

void require_between(double value, double low, double high, const char* name) {
    require(value >= low && value <= high,  // false for NaN
            std::string(name) + " is " + std::to_string(value) + ", expected " + std::to_string(low) +
                " to " + std::to_string(high));
}

// The size-th largest of `count` values, 0 < size <= count. One pass keeps what may belong to the top.
float nth_largest(const float* values, std::int64_t count, std::int64_t size) {
    std::vector<float> top;
    top.reserve(4 * size);
    float least = LOWEST;
    bool full = false;
    const auto cut = [&] {
        std::nth_element(top.begin(), top.begin() + (size - 1), top.end(), std::greater<float>());
        top.resize(size);
        least = top[size - 1];
        full = true;
    };
    for (std::int64_t start = 0; (start = skip_below(values, start, count, least)) < count;
         start += SKIPPED_TOGETHER) {
        const std::int64_t end = std::min(count, start + SKIPPED_TOGETHER);
        for (std::int64_t i = start; i < end; ++i) {
            if (full && !(values[i] > least)) continue;
            top.push_back(values[i]);
            if (static_cast<std::int64_t>(top.size()) == 4 * size) cut();
        }
    }
    cut();
    return least;
}

// A weight's class; the largest weight is 1, and lighter ones have higher classes.
int class_of(double weight) {
    std::int64_t one, bits;
    constexpr double ONE = 1;
    std::memcpy(&one, &ONE, sizeof one);
    std::memcpy(&bits, &weight, sizeof bits);
    return static_cast<int>(std::min<std::int64_t>(CLASSES - 1, (one - bits) >> CLASS_SHIFT));
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
    if (sampling_.temperature == 0 && only_bans()) {  // which seldom matter, and cost a copy of all logits
        const Largest largest = find_largest(logits, vocab_size_);
        if (std::isfinite(largest.value) &&
            std::find(banned_.begin(), banned_.end(), largest.first) == banned_.end()) {
            accept(largest.first);
            return largest.first;
        }
    }
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

bool Sampler::changes_scores() const { return !banned_.empty() || !only_bans(); }

// Whether bias and penalties leave the logits as they are.
bool Sampler::only_bans() const {
    const bool counts = sampling_.presence_penalty != 0 || sampling_.frequency_penalty != 0;
    return bias_ids_.empty() && !(counts && !generated_.empty()) &&
           (sampling_.repetition_penalty == 1 || seen_.empty());
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
    for (std::int64_t start = 0; (start = skip_below(scores, start, vocab_size_, least)) < vocab_size_;
         start += SKIPPED_TOGETHER) {
        const std::int64_t end = std::min<std::int64_t>(vocab_size_, start + SKIPPED_TOGETHER);
        for (std::int64_t id = start; id < end; ++id) {
            if (scores[id] < least) continue;  // ties at the edge stay
            ids_.push_back(static_cast<std::int32_t>(id));
            kept.push_back(scores[id]);
        }
    }
    weights_.resize(kept.size());
    exponentials(kept.data(), kept.size(), largest, sampling_.temperature, weights_.data());
}

// Keeps the smallest set of most probable entries whose sum reaches top_p; of equal ones the first. Only the
// class of weights in which the sum reaches it is sorted.
void Sampler::keep_top_p() {
    if (sampling_.top_p >= 1) return;
    const double enough = sampling_.top_p * sum(weights_.data(), weights_.size());
    std::vector<double> of_class(CLASSES);
    for (const double weight : weights_) of_class[class_of(weight)] += weight;
    int last = 0;
    double above = 0;
    for (; last < CLASSES - 1 && above + of_class[last] < enough; ++last) above += of_class[last];
    keep_down_to(lightest_kept(last, above, enough));
}

// Of the weights of class `last`, the lightest that stays. An entry stays where those above it sum to less
// than `enough`; `above` is the sum of the lower classes. The largest entry always stays.
Sampler::Entry Sampler::lightest_kept(int last, double above, double enough) const {
    std::vector<Entry> entries;
    for (std::size_t i = 0; i < weights_.size(); ++i)
        if (class_of(weights_[i]) == last) entries.push_back({weights_[i], i});
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
        return a.weight > b.weight || (a.weight == b.weight && a.place < b.place);
    });
    if (entries.empty()) return {0, weights_.size()};  // rounding: all that weigh anything stay
    std::size_t kept = 1;
    for (double through = above + entries[0].weight; kept < entries.size() && through < enough; ++kept)
        through += entries[kept].weight;
    return entries[kept - 1];
}

// Keeps what is heavier than `edge`, or as heavy and not behind it.
void Sampler::keep_down_to(const Entry& edge) {
    const std::size_t count = weights_.size();
    std::vector<std::int32_t> ids(count);
    std::size_t kept = 0;
    for (std::size_t i = 0; i < count; ++i) {  // without branches: which entry stays cannot be foreseen
        const double weight = weights_[i];
        ids[kept] = ids_.empty() ? static_cast<std::int32_t>(i) : ids_[i];
        weights_[kept] = weight;
        kept += static_cast<std::size_t>(weight > edge.weight) |
                static_cast<std::size_t>(weight == edge.weight && i <= edge.place);
    }
    weights_.resize(kept);
    ids.resize(kept);
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
