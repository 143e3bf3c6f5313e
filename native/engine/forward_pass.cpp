#include "forward_pass.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "gated_step.h"

namespace pocketglm {

namespace {

// Queries (rows x heads of a group) that attend together: they share every read of a page.
constexpr int QUERIES_TOGETHER = 64;
// An attention item of fewer pages is not worth dividing.
constexpr int PAGES_TO_DIVIDE = 4;
constexpr int ITEMS_PER_THREAD = 4;

std::size_t aligned(std::size_t bytes) {
    return (bytes + Buffer::ALIGNMENT - 1) / Buffer::ALIGNMENT * Buffer::ALIGNMENT;
}

}  // namespace

ForwardPass::ForwardPass(const PassSettings& settings, std::vector<PassSegment> segments, int rows,
                         int threads)
    : settings_(settings),
      spec_(*settings.spec),
      kernels_(*settings.kernels),
      math_(*settings.math),
      segments_(std::move(segments)),
      rows_(rows) {
    plan_stores();
    plan_items(threads);
    plan_memory(threads);
}

void ForwardPass::plan_stores() {
    for (int slice = 0; slice < rows_; slice += SLICE_ROWS) {
        slice_stores_.push_back(static_cast<int>(stores_.size()));
        const int slice_end = slice + slice_rows(slice);
        for (int s = 0; s < static_cast<int>(segments_.size()); ++s) {
            const PassSegment& segment = segments_[s];
            const int begin = std::max(0, slice - segment.first_row);
            const int end = std::min(segment.count, slice_end - segment.first_row);
            for (int first = begin, count = 0; first < end; first += count) {
                const int column = (segment.start + first) % KvLayout::PAGE;
                count = std::min(KvLayout::PAGE - column, end - first);
                for (int head = 0; head < spec_.num_kv_heads; ++head)
                    stores_.push_back({s, first, count, head});
            }
        }
    }
    slice_stores_.push_back(static_cast<int>(stores_.size()));
}

void ForwardPass::plan_items(int threads) {
    const int rows_together = std::max(1, QUERIES_TOGETHER / spec_.group());
    int most_pages = 0, least_items = 0;
    for (int s = 0; s < static_cast<int>(segments_.size()); ++s) {
        const PassSegment& segment = segments_[s];
        const int end = segment.start + segment.count;
        most_pages = std::max(most_pages, KvLayout::pages_for(end));
        least_items += (segment.count + rows_together - 1) / rows_together * spec_.num_kv_heads;
        // The last rows see the most columns: begun first, they do not keep the others waiting. All rows of
        // an item end in one page, so that a row is attended alike whatever rows are beside it.
        for (int last = segment.count, count = 0; last > 0; last -= count) {
            const int page_rows = (segment.start + last - 1) % KvLayout::PAGE + 1;
            count = std::min({last, rows_together, page_rows});
            for (int head = 0; head < spec_.num_kv_heads; ++head)
                attends_.push_back({s, last - count, count, head});
        }
    }
    const int wanted = ITEMS_PER_THREAD * threads;
    if (threads > 1 && least_items < wanted) {
        parts_wanted_ = (wanted + least_items - 1) / least_items;
        parts_ = std::max(1, std::min(parts_wanted_, most_pages / PAGES_TO_DIVIDE));
    }
}

void ForwardPass::plan_memory(int threads) {
    const std::size_t slice = std::min(rows_, SLICE_ROWS), rows = rows_;
    const auto place = [this](std::size_t bytes) {
        const std::size_t at = work_bytes_;
        work_bytes_ += aligned(bytes);
        return at;
    };
    std::size_t activation_bytes = 0, scratch = 0;
    for (int block = 0; block < settings_.weights->count(); ++block) {
        const WeightViews& shape = settings_.weights->shape(block);
        for (const LinearView* linear :
             {&shape.qkv, &shape.attention_output, &shape.mlp_up, &shape.mlp_down}) {
            const int count = static_cast<int>(slice);
            activation_bytes = std::max(activation_bytes, kernels_.activation_bytes(*linear, count));
            scratch = std::max(scratch, step_scratch_bytes(kernels_, *linear, count));
        }
        if (!spec_.gated) continue;
        const GatedStep gated(kernels_, shape.mlp_up, static_cast<int>(slice), threads);
        scratch = std::max(scratch, gated.scratch_bytes());
    }
    int rows_attending = 0;
    for (const AttendItem& item : attends_) rows_attending = std::max(rows_attending, item.count);
    const KvLayout& layout = *settings_.layout;
    scratch =
        std::max(scratch, sizeof(float) * attention_scratch_floats(layout, rows_attending, spec_.group()));
    scratch = std::max(scratch, sizeof(float) * spec_.hidden_size);
    scratch_bytes_ = aligned(scratch);
    partial_floats_ = parts_ > 1 ? attention_partial_floats(layout, rows_attending, spec_.group()) : 0;

    const int widest = std::max({spec_.qkv_size(), spec_.intermediate_size, spec_.hidden_size});
    projected_at_ = place(sizeof(float) * slice * widest);
    queries_at_ = place(one_slice() ? 0 : sizeof(float) * rows * spec_.q_size());
    activations_at_ = place(activation_bytes);
    outliers_at_ = place(sizeof(OutlierRow) * slice);
    rotation_at_ = place(sizeof(float) * rows * 2 * spec_.rotary_axes * spec_.pairs());
    partials_at_ = place(sizeof(float) * partial_floats_ * attends_.size() * parts_);
    scratch_at_ = place(scratch_bytes_ * threads);
}

void ForwardPass::bind(std::uint8_t* work, float* hidden, const std::int32_t* positions) {
    hidden_ = hidden;
    positions_ = positions;
    const auto floats = [work](std::size_t at) { return reinterpret_cast<float*>(work + at); };
    projected_ = floats(projected_at_);
    queries_ = floats(one_slice() ? projected_at_ : queries_at_);
    rotation_ = floats(rotation_at_);
    partials_ = floats(partials_at_);
    activations_ = work + activations_at_;
    outliers_ = reinterpret_cast<OutlierRow*>(work + outliers_at_);
    scratch_ = work + scratch_at_;
}

int ForwardPass::slice_rows(int slice) const { return std::min(SLICE_ROWS, rows_ - slice); }
float* ForwardPass::hidden_row(int row) const {
    return hidden_ + static_cast<std::size_t>(row) * spec_.hidden_size;
}
// Rows of a slice: the change that attention or MLP makes.
float* ForwardPass::change_row(int row) const {
    return projected_ + static_cast<std::size_t>(row) * spec_.hidden_size;
}

// Queries, turned, and where they were the attended values. A single slice's stay where they were made.
float* ForwardPass::query_row(int row) const {
    return queries_ + static_cast<std::size_t>(row) * query_stride();
}

void ForwardPass::run(Member& member) {
    const int blocks = settings_.weights->count();
    for (int block = 0; block < blocks; ++block) run_block(member, block);
    if (one_slice()) add_mlp_change(member, settings_.weights->views(blocks - 1), 0);
}

void ForwardPass::run_block(Member& member, int block) {
    const WeightViews& weights = settings_.weights->views(block);
    for (int slice = 0; slice < rows_; slice += SLICE_ROWS) {
        start_attention(member, block, slice);
        multiply(member, weights.qkv, slice_rows(slice), projected_, spec_.qkv_size());
        store_keys_values(member, block, slice);
    }
    settings_.weights->release(block);
    attend(member, block);
    for (int slice = 0; slice < rows_; slice += SLICE_ROWS) {
        finish_attention(member, weights, slice);
        run_mlp(member, weights, slice);
        if (!one_slice()) add_mlp_change(member, weights, slice);
    }
    // Now, so that the reader does not wait for the next block. In one slice that may begin with a last norm.
    const bool norm_is_left = one_slice() && spec_.residual == PGLM_RESIDUAL_SANDWICH;
    if (!norm_is_left) settings_.weights->release(block + 1);
}

void ForwardPass::multiply(Member& member, const LinearView& linear, int rows, float* out,
                           std::size_t stride) const {
    step(rows).multiply(member, linear, out, stride, scratch(member));
    member.barrier();
}

// A row normed and made ready for a product. What the change will be added to stays in `hidden`.
void ForwardPass::prepare_normed(const Member& member, const NormView& view, const LinearView& linear,
                                 float* hidden, int row, int rows) const {
    float* normed = reinterpret_cast<float*>(scratch(member));
    norm_row(view, hidden, normed);
    if (spec_.residual == PGLM_RESIDUAL_NORMED_ALPHA) {
        math_.scale(normed, spec_.residual_alpha, spec_.hidden_size, hidden);
    }
    constexpr std::size_t ONE_PLACE = 0;  // the row stands there, whatever its number
    step(rows).prepare(linear, normed, ONE_PLACE, row, row + 1, NORMED_OUTLIER_RATIO);
}

// Normed rows, ready for the qkv projection. Where the pass is one slice, the change that the MLP of the
// block before has made is added first: one barrier less a block.
void ForwardPass::start_attention(Member& member, int block, int slice) {
    const WeightViews& weights = settings_.weights->views(block);
    const int rows = slice_rows(slice);
    const bool add_first = one_slice() && block > 0;
    member.share(rows, row_piece(member, rows), [&](int first, int last) {
        for (int row = first; row < last; ++row) {
            if (block == 0) fill_rotation(slice + row);
            if (add_first) {
                const WeightViews& before = settings_.weights->views(block - 1);
                add_change(before.mlp_post_norm, change_row(row), hidden_row(slice + row));
            }
            prepare_normed(member, weights.input_norm, weights.qkv, hidden_row(slice + row), row, rows);
        }
    });
    member.barrier();
}

void ForwardPass::store_keys_values(Member& member, int block, int slice) {
    const int begin = slice_stores_[slice / SLICE_ROWS], end = slice_stores_[slice / SLICE_ROWS + 1];
    member.share(end - begin, 1, [&](int first, int last) {
        for (int i = first; i < last; ++i) store_item(stores_[begin + i], block, slice);
    });
    member.barrier();
}

// Norms and turns the item's queries and keys, and puts its keys and values into the cache.
void ForwardPass::store_item(const StoreItem& item, int block, int slice) const {
    const PassSegment& segment = segments_[item.segment];
    const int first_row = segment.first_row + item.first;
    const std::size_t queries = static_cast<std::size_t>(spec_.group()) * spec_.head_dim;
    float* first = projected_ + static_cast<std::size_t>(first_row - slice) * spec_.qkv_size();
    for (int i = 0; i < item.count; ++i) {
        float* projected = first + static_cast<std::size_t>(i) * spec_.qkv_size();
        turn_row(settings_.weights->views(block), first_row + i, item.kv_head, projected);
        if (one_slice()) continue;
        std::memcpy(query_row(first_row + i) + queries * item.kv_head, projected + queries * item.kv_head,
                    sizeof(float) * queries);
    }
    const KvLayout& layout = *settings_.layout;
    const int position = segment.start + item.first;
    std::uint8_t* tile =
        segment.cache->page(position / KvLayout::PAGE) + layout.tile_offset(block, item.kv_head);
    const float* keys = first + spec_.q_size() + static_cast<std::size_t>(item.kv_head) * spec_.head_dim;
    math_.store_rows(layout, tile, position % KvLayout::PAGE, keys, keys + spec_.kv_size(), spec_.qkv_size(),
                     item.count);
}

// Norms and turns the queries and the key of one KV head in a projected row.
void ForwardPass::turn_row(const WeightViews& weights, int row, int kv_head, float* projected) const {
    const RowRotation turn = rotation(row);
    const int group = spec_.group();
    const auto head_at = [&](int head) {
        return projected + static_cast<std::size_t>(head) * spec_.head_dim;
    };
    for (int head = 0; head <= group; ++head) {  // the last one is the key
        const bool is_key = head == group;
        float* at = head_at(is_key ? spec_.num_heads + kv_head : kv_head * group + head);
        if (spec_.qk_norm) {
            math_.rms_norm(at, is_key ? weights.k_norm : weights.q_norm, spec_.norm_eps, spec_.head_dim, at);
        }
        math_.rotate(turn, at);
    }
}

// Leaves the attended values where the queries were.
void ForwardPass::attend(Member& member, int block) {
    const int items = static_cast<int>(attends_.size());
    member.share(items * parts_, 1, [&](int first, int last) {
        for (int i = first; i < last; ++i) {
            AttentionTask task = attention_task(attends_[i / parts_], block);
            task.scratch = reinterpret_cast<float*>(scratch(member));
            if (parts_ > 1) {
                const int part = i % parts_, parts = parts_of(task);
                const int begin = task.first_page, pages = task.last_page - begin;
                if (part >= parts) continue;
                task.first_page = begin + pages * part / parts;
                task.last_page = begin + pages * (part + 1) / parts;
                task.partial = partials_ + partial_floats_ * i;
            }
            math_.attend(task);
        }
    });
    member.barrier();
    if (parts_ == 1) return;
    member.share(items, 1, [&](int first, int last) {
        for (int i = first; i < last; ++i) {
            const AttentionTask task = attention_task(attends_[i], block);
            math_.merge_attention(task, partials_ + partial_floats_ * i * parts_, partial_floats_,
                                  parts_of(task));
        }
    });
    member.barrier();
}

// How many parts an item is divided into: by what it sees itself, not by the longest of the batch.
int ForwardPass::parts_of(const AttentionTask& task) const {
    return std::max(1, std::min(parts_wanted_, (task.last_page - task.first_page) / PAGES_TO_DIVIDE));
}

AttentionTask ForwardPass::attention_task(const AttendItem& item, int block) const {
    const PassSegment& segment = segments_[item.segment];
    AttentionTask task;
    task.output = query_row(segment.first_row + item.first) +
                  static_cast<std::size_t>(item.kv_head) * spec_.group() * spec_.head_dim;
    task.queries = task.output;
    task.row_stride = query_stride();
    task.rows = item.count;
    task.group = spec_.group();
    task.layout = settings_.layout;
    task.pages = segment.cache->pages();
    task.offset = settings_.layout->tile_offset(block, item.kv_head);
    task.first_row = segment.start + item.first;
    task.prefix = segment.prefix;
    task.window = settings_.weights->window(block);
    const bool from_start = task.window == 0 || task.prefix > 0;
    task.first_page = from_start ? 0 : std::max(0, task.first_row + 1 - task.window) / KvLayout::PAGE;
    task.last_page = KvLayout::pages_for(std::max(task.first_row + task.rows, task.prefix));
    return task;
}

void ForwardPass::finish_attention(Member& member, const WeightViews& weights, int slice) {
    const int rows = slice_rows(slice);
    member.share(rows, row_piece(member, rows), [&](int first, int last) {
        step(rows).prepare(weights.attention_output, query_row(slice), query_stride(), first, last,
                           OTHER_OUTLIER_RATIO);
    });
    member.barrier();
    multiply(member, weights.attention_output, rows, projected_, spec_.hidden_size);
}

// Adds what attention changes, then leaves what the MLP changes.
void ForwardPass::run_mlp(Member& member, const WeightViews& weights, int slice) {
    const int rows = slice_rows(slice), piece = row_piece(member, rows);
    member.share(rows, piece, [&](int first, int last) {
        for (int row = first; row < last; ++row) {
            add_change(weights.attention_post_norm, change_row(row), hidden_row(slice + row));
            prepare_normed(member, weights.mlp_norm, weights.mlp_up, hidden_row(slice + row), row, rows);
        }
    });
    member.barrier();
    widen(member, weights.mlp_up, rows);
    const int size = spec_.intermediate_size;
    member.share(rows, piece, [&](int first, int last) {
        for (int row = first; row < last && !spec_.gated; ++row) {
            float* up = projected_ + static_cast<std::size_t>(row) * size;
            math_.gelu_tanh(up, size, up);
        }
        step(rows).prepare(weights.mlp_down, projected_, size, first, last, OTHER_OUTLIER_RATIO);
    });
    member.barrier();
    multiply(member, weights.mlp_down, rows, projected_, spec_.hidden_size);
}

// The widened rows, [rows, intermediate_size]; a gated MLP's are through its activation function, too.
void ForwardPass::widen(Member& member, const LinearView& mlp_up, int rows) const {
    if (!spec_.gated) return multiply(member, mlp_up, rows, projected_, spec_.intermediate_size);
    const GatedStep gated(kernels_, mlp_up, rows, member.count());
    gated.multiply(member, step(rows), projected_, scratch(member));
    member.barrier();
}

void ForwardPass::add_mlp_change(Member& member, const WeightViews& weights, int slice) {
    const int rows = slice_rows(slice);
    member.share(rows, row_piece(member, rows), [&](int first, int last) {
        for (int row = first; row < last; ++row) {
            add_change(weights.mlp_post_norm, change_row(row), hidden_row(slice + row));
        }
    });
    member.barrier();
}

void ForwardPass::norm_row(const NormView& view, const float* x, float* out) const {
    if (spec_.layer_norm) {
        math_.layer_norm(x, view.weight, view.bias, spec_.norm_eps, spec_.hidden_size, out);
    } else {
        math_.rms_norm(x, view.weight, spec_.norm_eps, spec_.hidden_size, out);
    }
}

void ForwardPass::add_change(const NormView& post_norm, float* change, float* hidden) const {
    if (spec_.residual == PGLM_RESIDUAL_SANDWICH) norm_row(post_norm, change, change);
    math_.add(hidden, change, spec_.hidden_size);
}

void ForwardPass::fill_rotation(int row) const {
    const int axes = spec_.rotary_axes, pairs = spec_.pairs();
    float* cosine = rotation_ + static_cast<std::size_t>(row) * 2 * axes * pairs;
    float* sine = cosine + axes * pairs;
    for (int axis = 0; axis < axes; ++axis) {
        const float position = static_cast<float>(positions_[static_cast<std::size_t>(axis) * rows_ + row]);
        for (int i = 0; i < pairs; ++i) {
            const float angle = position * spec_.frequencies[i];
            cosine[axis * pairs + i] = std::cos(angle);
            sine[axis * pairs + i] = std::sin(angle);
        }
    }
}

RowRotation ForwardPass::rotation(int row) const {
    const int size = spec_.rotary_axes * spec_.pairs();
    const float* cosine = rotation_ + static_cast<std::size_t>(row) * 2 * size;
    return {cosine, cosine + size, spec_.rotary_axes, spec_.pairs(), spec_.interleaved};
}

}  // namespace pocketglm
