#include "weights.h"

#include <cmath>
#include <string>

#include "failure.h"

namespace pocketglm {

namespace {

constexpr std::int32_t MAX_DIMENSION = 1 << 24;  // as in ModelSpec

const char* const ROLE_NAMES[PGLM_ROLES] = {
    "attention.qkv",
    "attention.output",
    "mlp.up",
    "mlp.down",
    "head",
    "input_norm.weight",
    "input_norm.bias",
    "attention.q_norm.weight",
    "attention.k_norm.weight",
    "attention_post_norm.weight",
    "attention_post_norm.bias",
    "mlp_norm.weight",
    "mlp_norm.bias",
    "mlp_post_norm.weight",
    "mlp_post_norm.bias",
    "norm.weight",
    "norm.bias",
};

bool is_linear(std::int32_t role) { return role <= PGLM_HEAD; }

void require_size(std::int32_t value, const char* name) {
    require(value > 0 && value <= MAX_DIMENSION, std::string(name) + " is " + std::to_string(value));
}

std::int32_t stored_inputs(const pglm_tensor& tensor) {
    if (tensor.bits >= 16) return tensor.inputs;
    return (tensor.inputs + tensor.group - 1) / tensor.group * tensor.group;
}

}  // namespace

Spec::Spec(const pglm_spec& given)
    : vocab_size(given.vocab_size),
      hidden_size(given.hidden_size),
      num_heads(given.num_heads),
      num_kv_heads(given.num_kv_heads),
      head_dim(given.head_dim),
      intermediate_size(given.intermediate_size),
      rotary_axes(given.rotary_axes),
      layer_norm(given.norm == PGLM_LAYER_NORM),
      gated(given.mlp == PGLM_GATED_SILU),
      qk_norm(given.qk_norm != 0),
      interleaved(given.rotary_interleaved != 0),
      residual(given.residual),
      norm_eps(given.norm_eps),
      residual_alpha(given.residual_alpha) {
    require_size(vocab_size, "vocab_size");
    require_size(hidden_size, "hidden_size");
    require_size(num_heads, "num_heads");
    require_size(num_kv_heads, "num_kv_heads");
    require_size(head_dim, "head_dim");
    require_size(intermediate_size, "intermediate_size");
    require(num_heads % num_kv_heads == 0, "num_heads is not a multiple of num_kv_heads");
    const std::int64_t widest = (static_cast<std::int64_t>(num_heads) + 2 * num_kv_heads) * head_dim;
    require(widest <= 4 * static_cast<std::int64_t>(MAX_DIMENSION), "the heads are too wide");
    require(given.norm == PGLM_RMS_NORM || given.norm == PGLM_LAYER_NORM, "unknown norm");
    require(given.mlp == PGLM_GELU_TANH || given.mlp == PGLM_GATED_SILU, "unknown mlp");
    require(residual >= PGLM_RESIDUAL_PRE && residual <= PGLM_RESIDUAL_SANDWICH, "unknown residual");
    require(norm_eps > 0 && std::isfinite(norm_eps), "norm_eps is not positive");
    require(std::isfinite(residual_alpha), "residual_alpha is not finite");
    require(rotary_axes == 1 || rotary_axes == 2, "rotary_axes is not 1 or 2");
    const std::int32_t dimensions = given.rotary_dimensions;
    require(dimensions > 0 && dimensions <= head_dim && dimensions % (2 * rotary_axes) == 0,
            "rotary_dimensions does not fit the heads");
    require(given.frequencies != nullptr, "no rotary frequencies");
    frequencies.assign(given.frequencies, given.frequencies + dimensions / rotary_axes / 2);
}

WeightFile::WeightFile(const Spec& spec, const pglm_file& file, Kind kind)
    : size_(file.size), window_(file.window) {
    require(file.path != nullptr, "a weight file has no path");
    path_ = file.path;
    require(window_ >= 0, path_ + ": the sliding window is negative");
    require(file.tensor_count >= 0 && (file.tensor_count == 0 || file.tensors != nullptr),
            path_ + ": the tensors are missing");
    for (std::int32_t i = 0; i < file.tensor_count; ++i) add(file.tensors[i]);
    if (kind == Kind::Head) {
        need_norm(PGLM_FINAL_NORM, PGLM_FINAL_NORM_BIAS, spec);
        need(PGLM_HEAD, spec.vocab_size, spec.hidden_size);
        return;
    }
    need_norm(PGLM_INPUT_NORM, PGLM_INPUT_NORM_BIAS, spec);
    need(PGLM_QKV, spec.qkv_size(), spec.hidden_size);
    need(PGLM_ATTENTION_OUTPUT, spec.hidden_size, spec.q_size());
    need_norm(PGLM_MLP_NORM, PGLM_MLP_NORM_BIAS, spec);
    need(PGLM_MLP_UP, spec.up_size(), spec.hidden_size);
    need(PGLM_MLP_DOWN, spec.hidden_size, spec.intermediate_size);
    if (spec.qk_norm) {
        need(PGLM_Q_NORM, spec.head_dim, 1);
        need(PGLM_K_NORM, spec.head_dim, 1);
    }
    if (spec.residual == PGLM_RESIDUAL_SANDWICH) {
        need_norm(PGLM_ATTENTION_POST_NORM, PGLM_ATTENTION_POST_NORM_BIAS, spec);
        need_norm(PGLM_MLP_POST_NORM, PGLM_MLP_POST_NORM_BIAS, spec);
    }
}

void WeightFile::add(const pglm_tensor& tensor) {
    require(tensor.role >= 0 && tensor.role < PGLM_ROLES, path_ + ": a tensor has no known role");
    Slot& slot = slots_[tensor.role];
    const std::string name = ROLE_NAMES[tensor.role];
    require(!slot.present, path_ + ": " + name + " is there twice");
    require(tensor.rows > 0 && tensor.inputs > 0, path_ + ": " + name + " has no elements");
    if (is_linear(tensor.role)) {
        check_linear(tensor);
    } else {
        require(tensor.inputs == 1 && tensor.bits == 32, path_ + ": " + name + " is not a float32 vector");
        need_inside(tensor, tensor.codes_offset, 4 * static_cast<std::uint64_t>(tensor.rows), "values", 4);
    }
    slot = {true, tensor};
}

void WeightFile::check_linear(const pglm_tensor& tensor) const {
    const std::string name = path_ + ": " + ROLE_NAMES[tensor.role];
    const bool quantized = tensor.bits == 4 || tensor.bits == 8;
    require(quantized || tensor.bits == 16 || tensor.bits == 32,
            name + " has " + std::to_string(tensor.bits) + " bits");
    if (quantized) {
        require(tensor.group > 0 && tensor.group % 32 == 0 && tensor.group <= 2 * MAX_DIMENSION,
                name + " has groups of " + std::to_string(tensor.group));
    }
    require(tensor.inputs <= MAX_DIMENSION, name + " is too wide");
    const std::uint64_t rows = tensor.rows, stored = stored_inputs(tensor);
    need_inside(tensor, tensor.codes_offset, rows * stored * tensor.bits / 8, "codes",
                quantized ? 1 : tensor.bits / 8);
    if (quantized) {
        const std::uint64_t values = rows * (stored / tensor.group) * (tensor.symmetric ? 1 : 2);
        need_inside(tensor, tensor.alpha_offset, 2 * values, "scales", 2);
    }
    if (tensor.has_bias) need_inside(tensor, tensor.bias_offset, 4 * rows, "bias", 1);
}

void WeightFile::need_inside(const pglm_tensor& tensor, std::uint64_t offset, std::uint64_t bytes,
                             const char* part, std::uint64_t alignment) const {
    const std::string name = path_ + ": the " + part + " of " + ROLE_NAMES[tensor.role];
    require(bytes <= size_ && offset <= size_ - bytes, name + " lie outside the file");
    require(offset % alignment == 0, name + " are not aligned");
}

void WeightFile::need(pglm_role role, std::int32_t rows, std::int32_t inputs) const {
    const Slot& slot = slots_[role];
    const std::string name = path_ + ": " + ROLE_NAMES[role];
    require(slot.present, name + " is missing");
    require(slot.tensor.rows == rows && slot.tensor.inputs == inputs,
            name + " is [" + std::to_string(slot.tensor.rows) + ", " + std::to_string(slot.tensor.inputs) +
                "], expected [" + std::to_string(rows) + ", " + std::to_string(inputs) + "]");
}

void WeightFile::need_norm(pglm_role weight, pglm_role bias, const Spec& spec) const {
    need(weight, spec.hidden_size, 1);
    if (spec.layer_norm) need(bias, spec.hidden_size, 1);
}

WeightViews WeightFile::views(const std::uint8_t* bytes) const {
    WeightViews views;
    views.qkv = linear(PGLM_QKV, bytes);
    views.attention_output = linear(PGLM_ATTENTION_OUTPUT, bytes);
    views.mlp_up = linear(PGLM_MLP_UP, bytes);
    views.mlp_down = linear(PGLM_MLP_DOWN, bytes);
    views.head = linear(PGLM_HEAD, bytes);
    const auto norm = [&](pglm_role weight, pglm_role bias) {
        return NormView{vector(weight, bytes), vector(bias, bytes)};
    };
    views.input_norm = norm(PGLM_INPUT_NORM, PGLM_INPUT_NORM_BIAS);
    views.attention_post_norm = norm(PGLM_ATTENTION_POST_NORM, PGLM_ATTENTION_POST_NORM_BIAS);
    views.mlp_norm = norm(PGLM_MLP_NORM, PGLM_MLP_NORM_BIAS);
    views.mlp_post_norm = norm(PGLM_MLP_POST_NORM, PGLM_MLP_POST_NORM_BIAS);
    views.final_norm = norm(PGLM_FINAL_NORM, PGLM_FINAL_NORM_BIAS);
    views.q_norm = vector(PGLM_Q_NORM, bytes);
    views.k_norm = vector(PGLM_K_NORM, bytes);
    return views;
}

LinearView WeightFile::linear(pglm_role role, const std::uint8_t* bytes) const {
    LinearView view;
    if (!slots_[role].present) return view;
    const pglm_tensor& tensor = slots_[role].tensor;
    view.codes = bytes + tensor.codes_offset;
    if (tensor.bits < 16) view.alpha = reinterpret_cast<const std::uint16_t*>(bytes + tensor.alpha_offset);
    if (tensor.has_bias) view.bias = reinterpret_cast<const float*>(bytes + tensor.bias_offset);
    view.rows = tensor.rows;
    view.inputs = tensor.inputs;
    view.stored_inputs = stored_inputs(tensor);
    view.group = tensor.bits < 16 ? tensor.group : 0;
    view.bits = tensor.bits;
    view.symmetric = tensor.symmetric != 0;
    return view;
}

const float* WeightFile::vector(pglm_role role, const std::uint8_t* bytes) const {
    if (!slots_[role].present) return nullptr;
    return reinterpret_cast<const float*>(bytes + slots_[role].tensor.codes_offset);
}

}  // namespace pocketglm
