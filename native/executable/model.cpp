#include "model.h"

#include <algorithm>
#include <thread>

#include "memory_plan.h"
#include "refusal.h"

namespace pocketglm::executable {

namespace {

constexpr std::int64_t SEQUENCE = 0;  // the one there is

// Rows of a long prompt computed at once, as in Python: enough to make matrix products efficient, few
// enough that the widest activations stay small.
constexpr int PIECE_ROWS = 512;

// What the head's activations and a piece's hidden states take at most, besides the logits.
constexpr std::uint64_t OTHER_BUFFERS = 16 << 20;

void check(pglm_status status) {
    if (status == PGLM_OK) return;
    const std::string problem = pglm_last_error();
    if (status == PGLM_MEMORY)
        throw Refusal("memory", problem, "allow more memory, or load with a smaller KV type or context");
    if (status == PGLM_FILE) throw Refusal("package", problem, "copy or convert the package again");
    throw Refusal("engine", problem);
}

// `reserve` bytes of `memory` are not for weights; 0: a quarter of it.
pglm_options engine_options(const LoadOptions& options, std::uint64_t memory, std::uint64_t reserve = 0) {
    const char* isa = options.isa.empty() ? nullptr : options.isa.c_str();
    return {options.threads, options.kv_type, isa, memory, reserve, nullptr};
}

}  // namespace

Model::Model(const LoadOptions& options) : package_(options.package), positions_(package_.spec()) {
    const std::int64_t most = spec().max_context;
    context_ = static_cast<int>(options.context == 0 ? most : std::min(most, options.context));
    load_stage(options);
    load_head(options);
    check(pglm_stage_open(stage_.get(), SEQUENCE));
    logits_.resize(spec().vocab_size);
}

void Model::load_stage(const LoadOptions& options) {
    const pglm_spec spec = this->spec().engine_spec();
    std::vector<pglm_file> files;
    for (const WeightFileEntry& block : package_.blocks()) files.push_back(block.description());
    const pglm_options engine = engine_options(options, memory_for_blocks(options), reserve(options));
    pglm_stage* stage = nullptr;
    check(pglm_stage_load(&spec, files.data(), static_cast<std::int32_t>(files.size()), &engine, &stage));
    stage_.reset(stage);
}

void Model::load_head(const LoadOptions& options) {
    const pglm_spec spec = this->spec().engine_spec();
    const pglm_file file = package_.head().description();
    const pglm_options engine = engine_options(options, 0);
    pglm_head* head = nullptr;
    check(pglm_head_load(&spec, &file, &engine, &head));
    head_.reset(head);
}

// What the head and the buffers here leave of the memory allowed. Blocks that exceed it are read from disk.
std::uint64_t Model::memory_for_blocks(const LoadOptions& options) const {
    if (options.memory == 0) return 0;
    const std::uint64_t others = package_.head().size + OTHER_BUFFERS + sizeof(float) * spec().vocab_size;
    if (options.memory <= others) {
        throw Refusal("memory",
                      "the memory limit of " + std::to_string(options.memory) +
                          " bytes is too small: the head and buffers alone take " + std::to_string(others),
                      "allow more memory");
    }
    return options.memory - others;
}

// What of that is kept for the cache and for work, where the request says how long the sequence gets.
std::uint64_t Model::reserve(const LoadOptions& options) const {
    if (options.memory == 0 || options.context == 0) return 0;
    const int all = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    const int threads = options.threads == 0 ? all : options.threads;
    return bytes_beside_weights(package_, options.kv_type, context_, threads);
}

int Model::reuse(const std::vector<std::int32_t>& prompt) {
    const std::size_t most = std::min(tokens_.size(), prompt.size() - 1);
    int kept = static_cast<int>(
        std::mismatch(tokens_.begin(), tokens_.begin() + static_cast<std::ptrdiff_t>(most), prompt.begin())
            .first -
        tokens_.begin());
    if (kept < positions_.prefix() || !same_context(prompt)) kept = 0;
    truncate(kept);
    return kept;
}

// Whether a bidirectional context ends at the same place in the cache and in `prompt`.
bool Model::same_context(const std::vector<std::int32_t>& prompt) const {
    if (!spec().has_prefix || tokens_.empty()) return true;
    return std::find(prompt.begin(), prompt.end(), spec().sop_token) - prompt.begin() == positions_.prefix();
}

const float* Model::forward(const std::int32_t* tokens, int count, const std::atomic<bool>& stopped) {
    for (int done = 0; done < count;) {
        if (stopped) return nullptr;
        const int piece = piece_size(tokens + done, count - done);
        forward_piece(tokens + done, piece);
        done += piece;
        if (done < count) continue;
        const float* last = hidden_.data() + static_cast<std::size_t>(piece - 1) * spec().hidden_size;
        check(pglm_head_logits(head_.get(), last, 1, logits_.data()));
    }
    return logits_.data();
}

// A bidirectional context goes in one piece, however long it is.
int Model::piece_size(const std::int32_t* tokens, int count) const {
    int size = PIECE_ROWS;
    if (spec().has_prefix && tokens_.empty()) {
        const auto sop = std::find(tokens, tokens + count, spec().sop_token) - tokens;
        size = std::max(size, static_cast<int>(sop) + 1);
    }
    return std::min(size, count);
}

void Model::forward_piece(const std::int32_t* tokens, int count) {
    const int start = length();
    Positions advanced = positions_;
    const std::vector<std::int32_t> positions = advanced.advance(tokens, count);
    hidden_.resize(static_cast<std::size_t>(count) * spec().hidden_size);
    package_.embed(tokens, count, hidden_.data());
    tokens_.reserve(tokens_.size() + static_cast<std::size_t>(count));  // so that nothing fails below
    const pglm_segment segment{SEQUENCE, start, count, advanced.prefix()};
    check(pglm_stage_forward(stage_.get(), &segment, 1, positions.data(), hidden_.data(), hidden_.data()));
    positions_ = advanced;
    tokens_.insert(tokens_.end(), tokens, tokens + count);
}

void Model::truncate(int length) {
    positions_.truncate(length);
    check(pglm_stage_truncate(stage_.get(), SEQUENCE, length));
    tokens_.resize(static_cast<std::size_t>(length));
}

pglm_usage Model::usage() const {
    pglm_usage stage{}, head{};
    check(pglm_stage_usage(stage_.get(), &stage));
    check(pglm_head_usage(head_.get(), &head));
    stage.weight_bytes += head.weight_bytes;
    stage.buffer_bytes += head.buffer_bytes + sizeof(float) * (hidden_.capacity() + logits_.capacity());
    return stage;
}

}  // namespace pocketglm::executable
