// The decoder's arithmetic beside the matrix products: row functions and attention, one table for each
// instruction set, written once (`row_functions.cpp`, `attention.cpp`) and compiled for each.
//
// Nothing here allocates, starts threads or throws.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kv_layout.h"
#include "outliers.h"

namespace pocketglm {

// Cosines and sines of one row, [axes, pairs] each, and how a head's dimensions pair up.
struct RowRotation {
    const float* cosine = nullptr;
    const float* sine = nullptr;
    int axes = 1;
    int pairs = 0;             // of one axis
    bool interleaved = false;  // pairs (2i, 2i + 1) instead of (i, i + pairs)
};

// Attention of some rows of one sequence through one KV head, over the cache pages
// [first_page, last_page): softmax(Q K^T / sqrt(head_dim)) V, its maximum and sum carried along.
struct AttentionTask {
    const float* queries = nullptr;  // row r, head g at queries + r * row_stride + g * head_dim
    float* output = nullptr;         // the same form
    std::size_t row_stride = 0;
    int rows = 0;
    int group = 1;  // query heads that share this KV head
    const KvLayout* layout = nullptr;
    const std::uint8_t* const* pages = nullptr;  // of the sequence
    std::size_t offset = 0;                      // of this block and KV head in a page
    int first_page = 0;
    int last_page = 0;
    int first_row = 0;  // position of row 0 in the sequence
    int prefix = 0;     // columns that every row sees
    int window = 0;     // columns a row sees, itself included; 0: all before it
    // If not null: the unnormalized result instead of `output`, for `merge_attention`:
    // [rows * group] x (maximum, sum, value_stride floats).
    float* partial = nullptr;
    float* scratch = nullptr;  // attention_scratch_floats(...)
};

struct DecoderMath {
    const char* name;

    // out = x / sqrt(mean(x^2) + eps) * weight
    void (*rms_norm)(const float* x, const float* weight, float eps, int count, float* out);
    // out = (x - mean) / sqrt(variance + eps) * weight + bias
    void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int count,
                       float* out);
    void (*add)(float* x, const float* y, int count);                    // x += y
    void (*scale)(const float* x, float factor, int count, float* out);  // out = x * factor
    void (*gated_silu)(const float* gate, const float* up, int count, float* out);
    void (*gelu_tanh)(const float* x, int count, float* out);
    void (*rotate)(const RowRotation& rotation, float* head);
    void (*exponentials)(const float* x, int count, float* out);  // for the tests

    // Put `count` rows (at most what is left of the page from `column` on) of one KV head into a page.
    // Row r of the keys is at keys + r * stride, likewise the values.
    void (*store_rows)(const KvLayout& layout, std::uint8_t* page_head, int column, const float* keys,
                       const float* values, std::size_t stride, int count);
    // The opposite: `count` rows [head_dim] each, `stride` floats apart.
    void (*load_rows)(const KvLayout& layout, const std::uint8_t* page_head, int column, float* keys,
                      float* values, std::size_t stride, int count);
    void (*attend)(const AttentionTask& task);
    // Join the `parts` partial results of one task, `part_stride` floats apart.
    void (*merge_attention)(const AttentionTask& task, const float* partials, std::size_t part_stride,
                            int parts);
    // Finds the values that exceed `ratio` times the row's root mean square, at most OutlierRow::MOST,
    // and sets them to zero.
    void (*take_outliers)(float* row, int count, float ratio, OutlierRow* found);
    // Adds the outliers' products to channels [first, last) of out [row_count, stride].
    void (*add_outliers)(const LinearView& linear, const OutlierRow* rows, int row_count, int first, int last,
                         float* out, std::size_t stride, void* scratch);
};

// Floats of scratch that `attend` needs for a task of `rows` x `group` queries.
std::size_t attention_scratch_floats(const KvLayout& layout, int rows, int group);
// Floats of one partial result.
std::size_t attention_partial_floats(const KvLayout& layout, int rows, int group);

// The table that goes with matrix kernels of the name `kernels_name`.
const DecoderMath& decoder_math_for(const char* kernels_name);

}  // namespace pocketglm
