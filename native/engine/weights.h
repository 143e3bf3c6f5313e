// The tensors of one weight file: checked against the model's settings, then views of wherever the
// file's bytes are.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels.h"
#include "pocketglm.h"

namespace pocketglm {

// The model's settings with the frequencies owned; see pglm_spec.
struct Spec {
    explicit Spec(const pglm_spec& given);  // throws `Failure` for what no model can have

    std::int32_t q_size() const { return num_heads * head_dim; }
    std::int32_t kv_size() const { return num_kv_heads * head_dim; }
    std::int32_t qkv_size() const { return q_size() + 2 * kv_size(); }
    std::int32_t group() const { return num_heads / num_kv_heads; }
    std::int32_t up_size() const { return gated ? 2 * intermediate_size : intermediate_size; }
    std::int32_t pairs() const { return static_cast<std::int32_t>(frequencies.size()); }

    std::int32_t vocab_size, hidden_size, num_heads, num_kv_heads, head_dim, intermediate_size;
    std::int32_t rotary_axes;
    bool layer_norm, gated, qk_norm, interleaved;
    std::int32_t residual;
    float norm_eps, residual_alpha;
    std::vector<float> frequencies;
};

// A norm's weight and, for a layer norm, bias.
struct NormView {
    const float* weight = nullptr;
    const float* bias = nullptr;
};

// The tensors of a file whose bytes begin at some address. Null where the model has none.
struct WeightViews {
    LinearView qkv, attention_output, mlp_up, mlp_down, head;
    NormView input_norm, attention_post_norm, mlp_norm, mlp_post_norm, final_norm;
    const float* q_norm = nullptr;
    const float* k_norm = nullptr;
};

// Where the tensors of one file lie. Checked when built: every tensor the model needs is there once, has
// the shape it must have, and lies inside the file.
class WeightFile {
  public:
    enum class Kind { Block, Head };

    WeightFile(const Spec& spec, const pglm_file& file, Kind kind);

    WeightViews views(const std::uint8_t* bytes) const;
    const std::string& path() const { return path_; }
    std::uint64_t size() const { return size_; }
    std::int32_t window() const { return window_; }

  private:
    struct Slot {
        bool present = false;
        pglm_tensor tensor{};
    };

    void add(const pglm_tensor& tensor);
    void check_linear(const pglm_tensor& tensor) const;
    void need(pglm_role role, std::int32_t rows, std::int32_t inputs) const;
    void need_norm(pglm_role weight, pglm_role bias, const Spec& spec) const;
    void need_inside(const pglm_tensor& tensor, std::uint64_t offset, std::uint64_t bytes, const char* part,
                     std::uint64_t alignment) const;
    LinearView linear(pglm_role role, const std::uint8_t* bytes) const;
    const float* vector(pglm_role role, const std::uint8_t* bytes) const;

    std::string path_;
    std::uint64_t size_;
    std::int32_t window_;
    std::array<Slot, PGLM_ROLES> slots_{};
};

}  // namespace pocketglm
