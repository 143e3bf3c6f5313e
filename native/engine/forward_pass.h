// One forward pass of a stage, run by a team: the decoder block for every setting a model can have.
//
// Made anew for each pass from what was checked and allocated before; `run` neither allocates nor throws.
#pragma once

#include <cstdint>
#include <vector>

#include "decoder_math.h"
#include "kernels.h"
#include "kv_cache.h"
#include "matrix_step.h"
#include "team.h"
#include "weight_store.h"
#include "weights.h"

namespace pocketglm {

// Rows of one sequence within the pass.
struct PassSegment {
    SequenceCache* cache;
    int first_row;  // of the pass
    int count;
    int start;   // positions cached before
    int prefix;  // columns that every row sees
};

// What all passes of a stage share.
struct PassSettings {
    const Spec* spec;
    const Kernels* kernels;
    const DecoderMath* math;
    const KvLayout* layout;
    WeightStore* weights;
};

class ForwardPass {
  public:
    // Rows that go through a matrix at a time: enough to reuse every unpacked weight often, few enough
    // that the widest activations stay below 20 MB for any supported model. Between slices only the hidden
    // states and the queries of all rows are kept.
    static constexpr int SLICE_ROWS = 256;

    ForwardPass(const PassSettings& settings, std::vector<PassSegment> segments, int rows, int threads);

    // Bytes of work memory that `run` needs.
    std::size_t work_bytes() const { return work_bytes_; }
    // hidden [rows, hidden_size] is changed in place; positions are [axes, rows].
    void bind(std::uint8_t* work, float* hidden, const std::int32_t* positions);
    void run(Member& member);

  private:
    // Rows of a segment that lie in one slice and go into one page, for one KV head.
    struct StoreItem {
        int segment, first, count, kv_head;
    };
    // Rows of a segment that attend through one KV head.
    struct AttendItem {
        int segment, first, count, kv_head;
    };

    void plan_stores();
    void plan_items(int threads);
    void plan_memory(int threads);
    void run_block(Member& member, int block);
    void start_attention(Member& member, int block, int slice);
    void store_keys_values(Member& member, int block, int slice);
    void attend(Member& member, int block);
    void finish_attention(Member& member, const WeightViews& weights, int slice);
    void run_mlp(Member& member, const WeightViews& weights, int slice);
    void widen(Member& member, const LinearView& mlp_up, int rows) const;
    void add_mlp_change(Member& member, const WeightViews& weights, int slice);
    void multiply(Member& member, const LinearView& linear, int rows, float* out, std::size_t stride) const;

    void store_item(const StoreItem& item, int block, int slice) const;
    void turn_row(const WeightViews& weights, int row, int kv_head, float* projected) const;
    int parts_of(const AttentionTask& task) const;
    AttentionTask attention_task(const AttendItem& item, int block) const;
    void norm_row(const NormView& view, const float* x, float* out) const;
    void prepare_normed(const Member& member, const NormView& view, const LinearView& linear, float* hidden,
                        int row, int rows) const;
    void add_change(const NormView& post_norm, float* change, float* hidden) const;
    void fill_rotation(int row) const;
    RowRotation rotation(int row) const;
    float* hidden_row(int row) const;
    float* change_row(int row) const;
    float* query_row(int row) const;
    std::size_t query_stride() const { return one_slice() ? spec_.qkv_size() : spec_.q_size(); }
    int slice_rows(int slice) const;
    MatrixStep step(int rows) const { return {kernels_, math_, {activations_, rows}, outliers_}; }
    std::uint8_t* scratch(const Member& member) const { return scratch_ + scratch_bytes_ * member.index(); }
    bool one_slice() const { return rows_ <= SLICE_ROWS; }

    const PassSettings settings_;
    const Spec& spec_;
    const Kernels& kernels_;
    const DecoderMath& math_;
    std::vector<PassSegment> segments_;
    std::vector<StoreItem> stores_;
    std::vector<int> slice_stores_;  // where each slice's items begin, and the end
    std::vector<AttendItem> attends_;
    int rows_;
    int parts_ = 1;         // of an attention item at most: long contexts are divided where items are few
    int parts_wanted_ = 1;  // what the threads would like

    float* hidden_ = nullptr;
    const std::int32_t* positions_ = nullptr;

    // Offsets in the work memory, then the addresses.
    std::size_t work_bytes_ = 0;
    std::size_t projected_at_, queries_at_, activations_at_, outliers_at_, rotation_at_, partials_at_,
        scratch_at_;
    std::size_t scratch_bytes_ = 0, partial_floats_ = 0;
    float *queries_ = nullptr, *rotation_ = nullptr, *partials_ = nullptr;
    // What the last product made of a slice's rows: queries, keys and values; the change that attention
    // makes; the widened rows of the MLP; the change that it makes. Each is made ready for the next product,
    // row by row, before that one's results take its place.
    float* projected_ = nullptr;
    std::uint8_t *scratch_ = nullptr, *activations_ = nullptr;
    OutlierRow* outliers_ = nullptr;
};

}  // namespace pocketglm
