#include "stage.h"

#include <algorithm>
#include <climits>
#include <cstring>
#include <string>

#include "failure.h"

namespace pocketglm {

namespace {

constexpr int MOST_THREADS = 1024;

// A pass may leave this much more work memory allocated than it needs. What a long prompt needed beyond is
// given back when tokens are decoded: the caches that grow then take its place.
constexpr std::size_t SPARE_WORK = 4 << 20;

std::vector<WeightFile> block_files(const Spec& spec, const pglm_file* files, std::int32_t count) {
    require(files != nullptr && count > 0, "a stage needs at least one block");
    std::vector<WeightFile> checked;
    for (std::int32_t i = 0; i < count; ++i) checked.emplace_back(spec, files[i], WeightFile::Kind::Block);
    return checked;
}

std::vector<std::uint8_t> streamed_blocks(const pglm_options& options, std::int32_t count) {
    if (options.streamed_blocks == nullptr) return {};
    return {options.streamed_blocks, options.streamed_blocks + count};
}

KvType checked_kv_type(std::int32_t type) {
    require(type >= PGLM_KV_FLOAT32 && type <= PGLM_KV_INT8, "unknown type of KV cache");
    return static_cast<KvType>(type);
}

}  // namespace

Machine::Machine(const pglm_options& options) {
    require(
        options.threads >= 0 && options.threads <= MOST_THREADS,
        "threads is " + std::to_string(options.threads) + ", expected 0 to " + std::to_string(MOST_THREADS));
    kernels = choose_kernels(options.isa);
    if (kernels == nullptr) {
        std::string names;
        for (const char* const* name = runnable_kernels(); *name != nullptr; ++name) {
            names += std::string(names.empty() ? "" : ", ") + *name;
        }
        throw Failure(PGLM_INVALID,
                      "the instruction set asked for (POCKETGLM_ISA) is not one of this machine's: " + names);
    }
    math = &decoder_math_for(kernels->name);
    team = Team::shared(options.threads == 0 ? Team::available_threads() : options.threads);
}

Stage::Stage(const pglm_spec& spec, const pglm_file* files, std::int32_t count, const pglm_options& options)
    : spec_(spec),
      machine_(options),
      account_(options.memory_bytes),
      layout_{checked_kv_type(options.kv_type), count, spec_.num_kv_heads, spec_.head_dim},
      weights_(block_files(spec_, files, count), account_, options.reserve_bytes,
               streamed_blocks(options, count)) {}

void Stage::open(std::int64_t sequence) {
    require(caches_.count(sequence) == 0, "sequence " + std::to_string(sequence) + " is open already");
    caches_[sequence];
}

void Stage::truncate(std::int64_t sequence, int length) {
    SequenceCache& found = cache(sequence);
    require(length >= 0 && length <= found.length(), "cannot truncate sequence " + std::to_string(sequence) +
                                                         " of length " + std::to_string(found.length()) +
                                                         " to " + std::to_string(length));
    found.truncate(length);
}

void Stage::copy_prefix(std::int64_t source, std::int64_t target, int length) {
    const SequenceCache& from = cache(source);
    require(length >= 0 && length <= from.length(), "cannot copy " + std::to_string(length) +
                                                        " positions: sequence " + std::to_string(source) +
                                                        " holds " + std::to_string(from.length()));
    empty_cache(target).copy_from(from, layout_, account_, length);
}

void Stage::save(std::int64_t sequence, float* keys, float* values) const {
    cache(sequence).save(layout_, *machine_.math, keys, values);
}

void Stage::restore(std::int64_t sequence, int length, const float* keys, const float* values) {
    require(length >= 0, "the saved length is negative");
    empty_cache(sequence).restore(layout_, *machine_.math, account_, length, keys, values);
}

void Stage::forward(const pglm_segment* segments, int count, const std::int32_t* positions,
                    const float* hidden, float* output) {
    std::vector<PassSegment> checked = checked_segments(segments, count);
    const int rows = checked.back().first_row + checked.back().count;
    ForwardPass pass({&spec_, machine_.kernels, machine_.math, &layout_, &weights_}, checked, rows,
                     machine_.team->count());
    shrink_work(pass.work_bytes());
    for (const PassSegment& segment : checked) segment.cache->reserve(layout_, account_, segment.count);
    grow_work(pass.work_bytes());
    if (output != hidden) std::memcpy(output, hidden, sizeof(float) * rows * spec_.hidden_size);
    pass.bind(work_.data(), output, positions);
    machine_.team->run([&pass](Member& member) { pass.run(member); });
    weights_.end_pass();
    for (const PassSegment& segment : checked) segment.cache->commit(segment.count);
}

std::vector<PassSegment> Stage::checked_segments(const pglm_segment* segments, int count) {
    require(segments != nullptr && count > 0, "the batch is empty");
    std::vector<PassSegment> checked;
    std::int64_t row = 0;
    for (int i = 0; i < count; ++i) {
        const pglm_segment& segment = segments[i];
        SequenceCache& found = cache(segment.sequence);
        const std::string where = "sequence " + std::to_string(segment.sequence);
        for (const PassSegment& before : checked)
            require(before.cache != &found, where + " occurs twice in one batch");
        require(segment.count > 0, where + ": the segment has no rows");
        require(segment.start == found.length(), where + ": the segment starts at " +
                                                     std::to_string(segment.start) + ", the cache holds " +
                                                     std::to_string(found.length()));
        const bool whole_prefix =
            segment.start >= segment.prefix || (segment.start == 0 && segment.count >= segment.prefix);
        require(segment.prefix >= 0 && whole_prefix,
                where + ": a prefix must be computed in one segment from 0");
        checked.push_back({&found, static_cast<int>(row), segment.count, segment.start, segment.prefix});
        row += segment.count;
        require(row <= INT_MAX / 4, "the batch has too many rows");
    }
    return checked;
}

void Stage::shrink_work(std::size_t bytes) {
    if (work_.size() > bytes + SPARE_WORK) work_ = Buffer();
}

void Stage::grow_work(std::size_t bytes) {
    if (work_.size() >= bytes) return;
    work_ = Buffer();  // first, so that both need not fit
    work_ = Buffer(account_, bytes, "activations");
}

std::uint64_t Stage::work_bytes(int start, int count, int prefix) {
    require(start >= 0 && count > 0 && prefix >= 0, "a pass has rows, after positions");
    require(start <= INT_MAX / 4 - count, "the batch has too many rows");
    // A pass that is only measured touches no cache
    const PassSegment segment{nullptr, 0, count, start, prefix};
    return ForwardPass({&spec_, machine_.kernels, machine_.math, &layout_, &weights_}, {segment}, count,
                       machine_.team->count())
        .work_bytes();
}

pglm_usage Stage::usage() const {
    pglm_usage usage{};
    usage.isa = machine_.kernels->name;
    usage.threads = machine_.team->count();
    usage.weight_bytes = weights_.bytes();
    usage.buffer_bytes = work_.size();
    usage.streamed_bytes = weights_.streamed_bytes();
    usage.cache_bytes = account_.used() - usage.weight_bytes - usage.buffer_bytes;
    return usage;
}

SequenceCache& Stage::cache(std::int64_t sequence) {
    return const_cast<SequenceCache&>(static_cast<const Stage*>(this)->cache(sequence));
}

const SequenceCache& Stage::cache(std::int64_t sequence) const {
    const auto found = caches_.find(sequence);
    require(found != caches_.end(), "sequence " + std::to_string(sequence) + " is not open");
    return found->second;
}

SequenceCache& Stage::empty_cache(std::int64_t sequence) {
    SequenceCache& found = cache(sequence);
    require(found.length() == 0, "sequence " + std::to_string(sequence) + " holds " +
                                     std::to_string(found.length()) + " positions, it must be empty");
    return found;
}

}  // namespace pocketglm
