#include "head.h"

#include <algorithm>
#include <vector>

#include "failure.h"
#include "matrix_step.h"

namespace pocketglm {

namespace {

constexpr int SLICE_ROWS = 256;

std::vector<WeightFile> head_file(const Spec& spec, const pglm_file& file) {
    return {WeightFile(spec, file, WeightFile::Kind::Head)};
}

std::size_t aligned(std::size_t bytes) {
    return (bytes + Buffer::ALIGNMENT - 1) / Buffer::ALIGNMENT * Buffer::ALIGNMENT;
}

}  // namespace

// Some rows on their way to logits.
struct Head::Slice {
    const float* hidden;
    MatrixStep step;
    std::uint8_t* scratch;
    std::size_t scratch_bytes;
    float* logits;
};

Head::Head(const pglm_spec& spec, const pglm_file& file, const pglm_options& options)
    : spec_(spec),
      machine_(options),
      account_(options.memory_bytes),
      weights_(head_file(spec_, file), account_, options.reserve_bytes) {}

Head::Sizes Head::sizes(int rows) const {
    Sizes found = slice_sizes(std::max(1, std::min(rows, SLICE_ROWS)));
    const auto too_large = [&] {
        return account_.limit() != 0 && weights_.bytes() + found.all > account_.limit();
    };
    while (too_large() && found.rows > 1) found = slice_sizes(found.rows / 2);
    return found;
}

Head::Sizes Head::slice_sizes(int rows) const {
    const LinearView& linear = weights_.shape(0).head;
    const std::size_t normed = sizeof(float) * spec_.hidden_size;
    Sizes found{};
    found.rows = rows;
    found.activations = aligned(machine_.kernels->activation_bytes(linear, rows));
    found.outliers = aligned(sizeof(OutlierRow) * rows);
    found.scratch = aligned(std::max(normed, step_scratch_bytes(*machine_.kernels, linear, rows)));
    found.all = found.activations + found.outliers + found.scratch * machine_.team->count();
    return found;
}

void Head::logits(const float* hidden, int rows, float* out) {
    require(rows >= 0, "the number of rows is negative");
    if (rows == 0) return;
    const Sizes size = sizes(rows);
    if (work_.size() < size.all) {
        work_ = Buffer();
        work_ = Buffer(account_, size.all, "activations");
    }
    std::uint8_t* work = work_.data();
    for (int first = 0; first < rows; first += size.rows) {
        const Slice slice{hidden + static_cast<std::size_t>(first) * spec_.hidden_size,
                          {*machine_.kernels,
                           *machine_.math,
                           {work, std::min(size.rows, rows - first)},
                           reinterpret_cast<OutlierRow*>(work + size.activations)},
                          work + size.activations + size.outliers,
                          size.scratch,
                          out + static_cast<std::size_t>(first) * spec_.vocab_size};
        machine_.team->run([&](Member& member) { run(member, slice); });
    }
}

void Head::run(Member& member, const Slice& slice) const {
    const WeightViews& weights = weights_.shape(0);
    const int rows = slice.step.activations.count, size = spec_.hidden_size;
    std::uint8_t* scratch = slice.scratch + slice.scratch_bytes * member.index();
    float* normed = reinterpret_cast<float*>(scratch);
    member.share(rows, row_piece(member, rows), [&](int first, int last) {
        for (int row = first; row < last; ++row) {
            const float* x = slice.hidden + static_cast<std::size_t>(row) * size;
            const NormView& norm = weights.final_norm;
            if (spec_.layer_norm) {
                machine_.math->layer_norm(x, norm.weight, norm.bias, spec_.norm_eps, size, normed);
            } else {
                machine_.math->rms_norm(x, norm.weight, spec_.norm_eps, size, normed);
            }
            constexpr std::size_t ONE_PLACE = 0;  // the row stands there, whatever its number
            slice.step.prepare(weights.head, normed, ONE_PLACE, row, row + 1, NORMED_OUTLIER_RATIO);
        }
    });
    member.barrier();
    slice.step.multiply(member, weights.head, slice.logits, spec_.vocab_size, scratch);
    member.barrier();
}

void Head::choose(const std::vector<Sampler*>& samplers, const float* logits, const double* uniforms,
                  std::int32_t* tokens) const {
    std::vector<Sampler*> sorted = samplers;
    std::sort(sorted.begin(), sorted.end());
    require(std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end(), "two rows have one sampler");
    for (const Sampler* sampler : samplers) {
        require(sampler != nullptr, "a sampler is null");
        require(sampler->vocab_size() == spec_.vocab_size, "a sampler is of another vocabulary");
    }
    if (samplers.empty()) return;
    machine_.team->run([&](Member& member) {
        member.share(static_cast<int>(samplers.size()), 1, [&](int first, int last) {
            for (int row = first; row < last; ++row) {
                const float* scores = logits + static_cast<std::size_t>(row) * spec_.vocab_size;
                try {
                    tokens[row] = samplers[row]->next(scores, uniforms[row]);
                } catch (...) {  // nothing may leave a run
                    tokens[row] = -1;
                }
            }
        });
        member.barrier();
    });
}

pglm_usage Head::usage() const {
    pglm_usage usage{};
    usage.isa = machine_.kernels->name;
    usage.threads = machine_.team->count();
    usage.weight_bytes = weights_.bytes();
    usage.buffer_bytes = work_.size();
    return usage;
}

}  // namespace pocketglm
