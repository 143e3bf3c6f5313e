// From one row of logits to the next token; behind pglm_sampler.
//
// The steps and their order are those of the Python class Sampler, which is the reference: bias, bans,
// penalties in float32; temperature, top-k, top-p and min-p in double.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "pocketglm.h"

namespace pocketglm {

class Sampler {
  public:
    // Throws `Failure` where a setting or a token id is wrong.
    Sampler(const pglm_sampling& sampling, std::int32_t vocab_size);

    std::int32_t vocab_size() const { return vocab_size_; }

    // Tokens of the prompt, for the repetition penalty.
    void see(const std::int32_t* tokens, std::int64_t count);
    // Tokens that are never chosen.
    void ban(const std::int32_t* tokens, std::int64_t count);
    void add_bias(const std::int32_t* tokens, const float* values, std::int64_t count);
    // Counts a token of the answer.
    void accept(std::int32_t token);

    // Chooses a token from logits [vocab] and counts it. `uniform` from [0, 1) decides unless greedy.
    std::int32_t next(const float* logits, double uniform);
    // Writes the ids that may be drawn, ascending, and their probabilities; returns how many there are.
    std::int32_t distribution(const float* logits, std::int32_t* ids, double* probabilities);

  private:
    struct Entry {
        double weight;
        std::size_t place;
    };

    bool changes_scores() const;
    bool only_bans() const;
    const float* penalized(const float* logits);
    std::int32_t draw(const float* scores, float largest, double uniform);
    void keep_top_k(const float* scores, double largest);
    void keep_top_p();
    Entry lightest_kept(int last, double above, double enough) const;
    void keep_down_to(const Entry& edge);
    void keep_min_p();
    void filter(const float* scores, float largest);
    void check_token(std::int64_t token) const;

    const pglm_sampling sampling_;
    const std::int32_t vocab_size_;
    std::vector<std::int32_t> banned_, bias_ids_;
    std::vector<float> bias_;
    std::vector<std::int32_t> seen_;  // each token once
    std::vector<bool> is_seen_;
    std::unordered_map<std::int32_t, std::int32_t> generated_;  // token -> how often

    // Kept between calls: the vocabulary is large, and its memory need not be asked for each token.
    std::vector<float> scores_;
    std::vector<std::int32_t> ids_;  // that may be drawn, ascending; empty stands for all
    std::vector<double> weights_;    // of the ids: their probabilities times a constant
};

}  // namespace pocketglm
