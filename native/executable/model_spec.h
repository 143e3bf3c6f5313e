// A model's settings as a manifest states them, checked; the Python class ModelSpec, in C++.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "json.h"
#include "pocketglm.h"

namespace pocketglm::executable {

struct ModelSpec {
    // Throws `Refusal` where a setting is missing, unknown, mistyped or impossible.
    explicit ModelSpec(const Json& model);

    std::int64_t q_size() const { return std::int64_t{num_heads} * head_dim; }
    std::int64_t kv_size() const { return std::int64_t{num_kv_heads} * head_dim; }
    // Sliding window of a block, 0 for none.
    std::int32_t window_of(int block) const;
    // As the engine wants them; points into this object.
    pglm_spec engine_spec() const;

    std::int32_t vocab_size, hidden_size, num_blocks, num_heads, num_kv_heads, head_dim, intermediate_size,
        max_context;
    int norm, residual, mlp;  // PGLM_RMS_NORM ..., PGLM_RESIDUAL_PRE ..., PGLM_GELU_TANH ...
    double norm_eps, residual_alpha, embedding_scale;
    bool qkv_bias, attention_output_bias, mlp_bias, qk_norm;
    bool interleaved;
    std::int32_t rotary_dimensions, rotary_axes;
    std::vector<float> frequencies;  // radians a position, [rotary_dimensions / rotary_axes / 2]
    bool has_prefix;                 // ChatGLM-6B's two rows of positions and bidirectional context
    std::int64_t mask_token = -1, gmask_token = -1, sop_token = -1;
    std::int64_t sliding_window = 0, sliding_window_start;  // window 0: none

  private:
    void read_rotary(const Json& rotary);
    void read_prefix(const Json* tokens);
    void check() const;
};

// A tensor that a weight file must have. A vector has `inputs` 0.
struct ExpectedTensor {
    std::string name;
    std::int32_t role;  // pglm_role
    std::int64_t rows, inputs;
    bool bias;
};

std::vector<ExpectedTensor> block_tensors(const ModelSpec& spec);
std::vector<ExpectedTensor> head_tensors(const ModelSpec& spec);

}  // namespace pocketglm::executable
