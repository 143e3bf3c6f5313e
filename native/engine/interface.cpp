// The C interface: exceptions become statuses here, and nowhere else.
#include <new>
#include <string>

#include "failure.h"
#include "head.h"
#include "kernels.h"
#include "pocketglm.h"
#include "sampler.h"
#include "stage.h"

struct pglm_stage : pocketglm::Stage {
    using Stage::Stage;
};
struct pglm_head : pocketglm::Head {
    using Head::Head;
};
struct pglm_sampler : pocketglm::Sampler {
    using Sampler::Sampler;
};

namespace {

thread_local std::string last_error;

pglm_status failed(pglm_status status, const char* message) noexcept {
    try {
        last_error = message;
    } catch (...) {
        last_error.clear();
    }
    return status;
}

template <typename Action>
pglm_status guarded(Action action) noexcept {
    try {
        action();
        return PGLM_OK;
    } catch (const pocketglm::Failure& failure) {
        return failed(failure.status, failure.what());
    } catch (const std::bad_alloc&) {
        return failed(PGLM_MEMORY, "out of memory");
    } catch (const std::exception& error) {
        return failed(PGLM_INTERNAL, error.what());
    } catch (...) {
        return failed(PGLM_INTERNAL, "unknown failure");
    }
}

using pocketglm::require;

}  // namespace

const char* pglm_last_error(void) { return last_error.c_str(); }

pglm_status pglm_stage_load(const pglm_spec* spec, const pglm_file* blocks, int32_t count,
                            const pglm_options* options, pglm_stage** stage) {
    return guarded([&] {
        require(spec != nullptr && options != nullptr && stage != nullptr, "an argument is null");
        *stage = new pglm_stage(*spec, blocks, count, *options);
    });
}

void pglm_stage_free(pglm_stage* stage) { delete stage; }

pglm_status pglm_stage_usage(const pglm_stage* stage, pglm_usage* usage) {
    return guarded([&] {
        require(stage != nullptr && usage != nullptr, "an argument is null");
        *usage = stage->usage();
    });
}

pglm_status pglm_stage_streamed(const pglm_stage* stage, uint8_t* streamed) {
    return guarded([&] {
        require(stage != nullptr && streamed != nullptr, "an argument is null");
        for (int block = 0; block < stage->block_count(); ++block) *streamed++ = stage->is_streamed(block);
    });
}

pglm_status pglm_stage_open(pglm_stage* stage, int64_t sequence) {
    return guarded([&] {
        require(stage != nullptr, "the stage is null");
        stage->open(sequence);
    });
}

void pglm_stage_close(pglm_stage* stage, int64_t sequence) {
    if (stage != nullptr) stage->close(sequence);
}

pglm_status pglm_stage_length(const pglm_stage* stage, int64_t sequence, int32_t* length) {
    return guarded([&] {
        require(stage != nullptr && length != nullptr, "an argument is null");
        *length = stage->length(sequence);
    });
}

pglm_status pglm_stage_truncate(pglm_stage* stage, int64_t sequence, int32_t length) {
    return guarded([&] {
        require(stage != nullptr, "the stage is null");
        stage->truncate(sequence, length);
    });
}

pglm_status pglm_stage_copy_prefix(pglm_stage* stage, int64_t source, int64_t target, int32_t length) {
    return guarded([&] {
        require(stage != nullptr, "the stage is null");
        stage->copy_prefix(source, target, length);
    });
}

pglm_status pglm_stage_work_bytes(pglm_stage* stage, int32_t start, int32_t count, int32_t prefix,
                                  uint64_t* bytes) {
    return guarded([&] {
        require(stage != nullptr && bytes != nullptr, "an argument is null");
        *bytes = stage->work_bytes(start, count, prefix);
    });
}

pglm_status pglm_stage_save(const pglm_stage* stage, int64_t sequence, float* keys, float* values) {
    return guarded([&] {
        require(stage != nullptr && keys != nullptr && values != nullptr, "an argument is null");
        stage->save(sequence, keys, values);
    });
}

pglm_status pglm_stage_restore(pglm_stage* stage, int64_t sequence, int32_t length, const float* keys,
                               const float* values) {
    return guarded([&] {
        require(stage != nullptr && keys != nullptr && values != nullptr, "an argument is null");
        stage->restore(sequence, length, keys, values);
    });
}

pglm_status pglm_stage_forward(pglm_stage* stage, const pglm_segment* segments, int32_t segment_count,
                               const int32_t* positions, const float* hidden, float* output) {
    return guarded([&] {
        require(stage != nullptr && positions != nullptr, "an argument is null");
        require(hidden != nullptr && output != nullptr, "an argument is null");
        stage->forward(segments, segment_count, positions, hidden, output);
    });
}

pglm_status pglm_head_load(const pglm_spec* spec, const pglm_file* file, const pglm_options* options,
                           pglm_head** head) {
    return guarded([&] {
        require(spec != nullptr && file != nullptr && options != nullptr && head != nullptr,
                "an argument is null");
        *head = new pglm_head(*spec, *file, *options);
    });
}

void pglm_head_free(pglm_head* head) { delete head; }

pglm_status pglm_head_usage(const pglm_head* head, pglm_usage* usage) {
    return guarded([&] {
        require(head != nullptr && usage != nullptr, "an argument is null");
        *usage = head->usage();
    });
}

pglm_status pglm_head_work_bytes(const pglm_head* head, int32_t rows, uint64_t* bytes) {
    return guarded([&] {
        require(head != nullptr && bytes != nullptr, "an argument is null");
        *bytes = head->work_bytes(rows);
    });
}

pglm_status pglm_head_logits(pglm_head* head, const float* hidden, int32_t rows, float* logits) {
    return guarded([&] {
        require(head != nullptr && hidden != nullptr && logits != nullptr, "an argument is null");
        head->logits(hidden, rows, logits);
    });
}

pglm_status pglm_sampler_new(const pglm_sampling* sampling, int32_t vocab_size, pglm_sampler** sampler) {
    return guarded([&] {
        require(sampling != nullptr && sampler != nullptr, "an argument is null");
        *sampler = new pglm_sampler(*sampling, vocab_size);
    });
}

void pglm_sampler_free(pglm_sampler* sampler) { delete sampler; }

pglm_status pglm_sampler_see(pglm_sampler* sampler, const int32_t* tokens, int64_t count) {
    return guarded([&] {
        require(sampler != nullptr && (count <= 0 || tokens != nullptr), "an argument is null");
        sampler->see(tokens, count);
    });
}

pglm_status pglm_sampler_ban(pglm_sampler* sampler, const int32_t* tokens, int64_t count) {
    return guarded([&] {
        require(sampler != nullptr && (count <= 0 || tokens != nullptr), "an argument is null");
        if (count > 0) sampler->ban(tokens, count);
    });
}

pglm_status pglm_sampler_bias(pglm_sampler* sampler, const int32_t* tokens, const float* values,
                              int64_t count) {
    return guarded([&] {
        require(sampler != nullptr && (count <= 0 || (tokens != nullptr && values != nullptr)),
                "an argument is null");
        if (count > 0) sampler->add_bias(tokens, values, count);
    });
}

pglm_status pglm_sampler_accept(pglm_sampler* sampler, int32_t token) {
    return guarded([&] {
        require(sampler != nullptr, "the sampler is null");
        sampler->accept(token);
    });
}

pglm_status pglm_sampler_next(pglm_sampler* sampler, const float* logits, double uniform, int32_t* token) {
    return guarded([&] {
        require(sampler != nullptr && logits != nullptr && token != nullptr, "an argument is null");
        *token = sampler->next(logits, uniform);
    });
}

pglm_status pglm_sampler_distribution(pglm_sampler* sampler, const float* logits, int32_t* ids,
                                      double* probabilities, int32_t* count) {
    return guarded([&] {
        require(sampler != nullptr && logits != nullptr, "an argument is null");
        require(ids != nullptr && probabilities != nullptr && count != nullptr, "an argument is null");
        *count = sampler->distribution(logits, ids, probabilities);
    });
}

pglm_status pglm_head_choose(pglm_head* head, pglm_sampler* const* samplers, int32_t count,
                             const float* logits, const double* uniforms, int32_t* tokens) {
    return guarded([&] {
        require(head != nullptr && samplers != nullptr && logits != nullptr, "an argument is null");
        require(uniforms != nullptr && tokens != nullptr, "an argument is null");
        require(count >= 0, "the number of rows is negative");
        head->choose({samplers, samplers + count}, logits, uniforms, tokens);
    });
}

const char* const* pglm_isa_names(void) { return pocketglm::runnable_kernels(); }
