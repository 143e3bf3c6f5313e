#include "model_spec.h"

#include <cmath>
#include <cstring>

#include "fields.h"
#include "refusal.h"

namespace pocketglm::executable {

namespace {

constexpr std::int64_t MAX_DIMENSION = 1 << 24;  // no model has a longer axis

struct Scaling {
    int kind;  // 0: linear, 1: llama3
    double factor, low, high;
    std::int64_t context;
};

[[noreturn]] void refuse(const std::string& problem) {
    throw Refusal("package", "model settings: " + problem);
}

void need(bool condition, const std::string& problem) {
    if (!condition) refuse(problem);
}

std::int32_t dimension(const Fields& fields, const char* name) {
    const std::int64_t value = fields.integer(name);
    need(value > 0 && value <= MAX_DIMENSION, std::string(name) + " is " + std::to_string(value) +
                                                  ", expected 1 to " + std::to_string(MAX_DIMENSION));
    return static_cast<std::int32_t>(value);
}

// Rounded to float16, to nearest even, and back.
float through_half(float value) {
    const float magnitude = std::fabs(value);
    if (magnitude >= 65520.0f) return std::copysign(INFINITY, value);
    // The spacing of float16 around the value: 2^-10 of its power of two, 2^-24 below the normal ones.
    const int exponent = magnitude < 0x1p-14f ? -14 : std::ilogb(magnitude);
    const float spacing = std::ldexp(1.0f, exponent - 10);
    return std::nearbyint(value / spacing) * spacing;
}

// Stretched for a longer context; in float32 step by step, as the reference engine computes.
float scaled(float inverse, const Scaling& scaling) {
    const float stretched = inverse / static_cast<float>(scaling.factor);
    if (scaling.kind == 0) return stretched;
    const float turns = static_cast<float>(scaling.context) * inverse / static_cast<float>(2 * M_PI);
    const float range = static_cast<float>(scaling.high - scaling.low);
    const float kept = std::fmin(std::fmax((turns - static_cast<float>(scaling.low)) / range, 0.0f), 1.0f);
    return (1.0f - kept) * stretched + kept * inverse;
}

Scaling read_scaling(const Json& json) {
    const Fields fields(json, "spec.rotary.scaling", "package",
                        {"kind", "factor", "low_freq_factor", "high_freq_factor", "original_context"});
    fields.need({"kind", "factor"});
    const Scaling scaling{fields.choice("kind", {"linear", "llama3"}), fields.number("factor"),
                          fields.number("low_freq_factor", 1), fields.number("high_freq_factor", 1),
                          fields.integer("original_context")};
    for (const double factor : {scaling.factor, scaling.low, scaling.high})
        need(factor > 0, "rope scaling factors are not positive");
    if (scaling.kind == 1) {
        need(scaling.low < scaling.high, "rope low_freq_factor is not below high_freq_factor");
        need(scaling.context > 0, "rope original_context is " + std::to_string(scaling.context));
    }
    return scaling;
}

}  // namespace

ModelSpec::ModelSpec(const Json& model) {
    const Fields fields(model, "spec", "package",
                        {"family",
                         "vocab_size",
                         "hidden_size",
                         "num_blocks",
                         "num_heads",
                         "num_kv_heads",
                         "head_dim",
                         "intermediate_size",
                         "max_context",
                         "norm",
                         "norm_eps",
                         "residual",
                         "rotary",
                         "mlp",
                         "tied_head",
                         "residual_alpha",
                         "qkv_bias",
                         "attention_output_bias",
                         "mlp_bias",
                         "qk_norm",
                         "embedding_scale",
                         "positions",
                         "prefix_tokens",
                         "sliding_window",
                         "sliding_window_start"});
    fields.need({"family", "vocab_size", "hidden_size", "num_blocks", "num_heads", "num_kv_heads", "head_dim",
                 "intermediate_size", "max_context", "norm", "norm_eps", "residual", "rotary", "mlp",
                 "tied_head"});
    (void)fields.text("family");
    (void)fields.boolean("tied_head");
    vocab_size = dimension(fields, "vocab_size");
    hidden_size = dimension(fields, "hidden_size");
    num_blocks = dimension(fields, "num_blocks");
    num_heads = dimension(fields, "num_heads");
    num_kv_heads = dimension(fields, "num_kv_heads");
    head_dim = dimension(fields, "head_dim");
    intermediate_size = dimension(fields, "intermediate_size");
    max_context = dimension(fields, "max_context");
    norm = fields.choice("norm", {"rmsnorm", "layernorm"});
    residual = fields.choice("residual", {"pre", "normed_alpha", "sandwich"});
    mlp = fields.choice("mlp", {"gelu_tanh", "gated_silu"});
    norm_eps = fields.number("norm_eps");
    residual_alpha = fields.number("residual_alpha", 1);
    embedding_scale = fields.number("embedding_scale", 1);
    qkv_bias = fields.boolean("qkv_bias");
    attention_output_bias = fields.boolean("attention_output_bias");
    mlp_bias = fields.boolean("mlp_bias");
    qk_norm = fields.boolean("qk_norm");
    has_prefix = fields.choice("positions", {"sequential", "glm_2d"}) == 1;
    if (fields.has("sliding_window")) {
        sliding_window = fields.integer("sliding_window");
        need(sliding_window > 0, "sliding_window is " + std::to_string(sliding_window));
    }
    sliding_window_start = fields.integer("sliding_window_start");
    read_prefix(fields.has("prefix_tokens") ? fields.find("prefix_tokens") : nullptr);
    read_rotary(*fields.find("rotary"));
    check();
}

void ModelSpec::read_prefix(const Json* tokens) {
    need(has_prefix == (tokens != nullptr), "glm_2d positions need prefix_tokens, and only they");
    if (tokens == nullptr) return;
    const Fields fields(*tokens, "spec.prefix_tokens", "package", {"mask", "gmask", "sop"});
    fields.need({"mask", "gmask", "sop"});
    mask_token = fields.integer("mask");
    gmask_token = fields.integer("gmask");
    sop_token = fields.integer("sop");
}

void ModelSpec::read_rotary(const Json& rotary) {
    const Fields fields(rotary, "spec.rotary", "package",
                        {"kind", "dimensions", "base", "axes", "scaling", "frequency_dtype"});
    fields.need({"kind", "dimensions", "base"});
    interleaved = fields.choice("kind", {"half", "interleaved"}) == 1;
    const bool half_precision = fields.choice("frequency_dtype", {"float32", "float16"}) == 1;
    const std::int64_t axes = fields.integer("axes", 1), dimensions = fields.integer("dimensions");
    need(axes == 1 || axes == 2, "rotary axes is " + std::to_string(axes));
    need(dimensions > 0 && dimensions <= head_dim && dimensions % (2 * axes) == 0,
         "rotary dimensions is " + std::to_string(dimensions) + " of a head of " + std::to_string(head_dim));
    const double base = fields.number("base");
    need(base > 1, "rotary base is " + std::to_string(base));
    Scaling scaling{};
    const bool scales = fields.has("scaling");
    if (scales) scaling = read_scaling(*fields.find("scaling"));
    rotary_axes = static_cast<std::int32_t>(axes);
    rotary_dimensions = static_cast<std::int32_t>(dimensions);
    const std::int32_t size = rotary_dimensions / rotary_axes;
    for (std::int32_t i = 0; i < size; i += 2) {
        // The power is rounded once, to float32, as the models were trained with.
        const float exponent = static_cast<float>(i) / static_cast<float>(size);
        const float inverse = 1.0f / static_cast<float>(std::pow(base, static_cast<double>(exponent)));
        const float stretched = scales ? scaled(inverse, scaling) : inverse;
        frequencies.push_back(half_precision ? through_half(stretched) : stretched);
    }
}

void ModelSpec::check() const {
    need(num_heads % num_kv_heads == 0, std::to_string(num_heads) + " heads do not divide over " +
                                            std::to_string(num_kv_heads) + " KV heads");
    need(norm_eps > 0 && norm_eps < 1, "norm_eps is " + std::to_string(norm_eps));
    need(q_size() + 2 * kv_size() <= 4 * MAX_DIMENSION && q_size() <= MAX_DIMENSION,
         "the heads are too wide");
}

std::int32_t ModelSpec::window_of(int block) const {
    // A window longer than any context is no window, and every number fits 32 bits
    const bool has_window = block >= sliding_window_start && sliding_window < max_context;
    return has_window ? static_cast<std::int32_t>(sliding_window) : 0;
}

pglm_spec ModelSpec::engine_spec() const {
    return {vocab_size,
            hidden_size,
            num_heads,
            num_kv_heads,
            head_dim,
            intermediate_size,
            norm,
            residual,
            mlp,
            qk_norm,
            rotary_dimensions,
            rotary_axes,
            interleaved,
            static_cast<float>(norm_eps),
            static_cast<float>(residual_alpha),
            frequencies.data()};
}

std::vector<ExpectedTensor> block_tensors(const ModelSpec& spec) {
    std::vector<ExpectedTensor> tensors;
    const std::int64_t hidden = spec.hidden_size, inter = spec.intermediate_size;
    const auto norm = [&](const std::string& name, std::int32_t weight, std::int32_t bias) {
        tensors.push_back({name + ".weight", weight, hidden, 0, false});
        if (spec.norm == PGLM_LAYER_NORM) tensors.push_back({name + ".bias", bias, hidden, 0, false});
    };
    const bool gated = spec.mlp == PGLM_GATED_SILU, sandwich = spec.residual == PGLM_RESIDUAL_SANDWICH;
    norm("input_norm", PGLM_INPUT_NORM, PGLM_INPUT_NORM_BIAS);
    tensors.push_back({"attention.qkv", PGLM_QKV, spec.q_size() + 2 * spec.kv_size(), hidden, spec.qkv_bias});
    if (spec.qk_norm) {
        tensors.push_back({"attention.q_norm.weight", PGLM_Q_NORM, spec.head_dim, 0, false});
        tensors.push_back({"attention.k_norm.weight", PGLM_K_NORM, spec.head_dim, 0, false});
    }
    tensors.push_back(
        {"attention.output", PGLM_ATTENTION_OUTPUT, hidden, spec.q_size(), spec.attention_output_bias});
    if (sandwich) norm("attention_post_norm", PGLM_ATTENTION_POST_NORM, PGLM_ATTENTION_POST_NORM_BIAS);
    norm("mlp_norm", PGLM_MLP_NORM, PGLM_MLP_NORM_BIAS);
    tensors.push_back(
        {gated ? "mlp.gate_up" : "mlp.up", PGLM_MLP_UP, gated ? 2 * inter : inter, hidden, spec.mlp_bias});
    tensors.push_back({"mlp.down", PGLM_MLP_DOWN, hidden, inter, spec.mlp_bias});
    if (sandwich) norm("mlp_post_norm", PGLM_MLP_POST_NORM, PGLM_MLP_POST_NORM_BIAS);
    return tensors;
}

std::vector<ExpectedTensor> head_tensors(const ModelSpec& spec) {
    std::vector<ExpectedTensor> tensors{{"norm.weight", PGLM_FINAL_NORM, spec.hidden_size, 0, false}};
    if (spec.norm == PGLM_LAYER_NORM)
        tensors.push_back({"norm.bias", PGLM_FINAL_NORM_BIAS, spec.hidden_size, 0, false});
    tensors.push_back({"head", PGLM_HEAD, spec.vocab_size, spec.hidden_size, false});
    return tensors;
}

}  // namespace pocketglm::executable
