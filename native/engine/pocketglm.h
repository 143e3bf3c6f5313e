/* The C interface of PocketGLM's native engine.
 *
 * Every function that can fail returns a status; the text of a thread's last failure is
 * `pglm_last_error()`. No function throws, aborts or prints, whatever it is given, as long as pointers
 * point to what they are said to point to. A stage or head is used by one thread at a time.
 */
#ifndef POCKETGLM_H
#define POCKETGLM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    PGLM_OK = 0,
    PGLM_INVALID = 1, /* an argument is wrong; nothing was changed */
    PGLM_FILE = 2,    /* a weight file cannot be read or does not fit its description */
    PGLM_MEMORY = 3,  /* out of memory, or beyond the memory allowed; nothing was changed */
    PGLM_STATE = 4,   /* not possible now: threads could not start, or the process was forked */
    PGLM_INTERNAL = 5
} pglm_status;

/* The text of this thread's last failure; valid until its next call. */
const char* pglm_last_error(void);

enum { PGLM_RMS_NORM = 0, PGLM_LAYER_NORM = 1 };
enum { PGLM_RESIDUAL_PRE = 0, PGLM_RESIDUAL_NORMED_ALPHA = 1, PGLM_RESIDUAL_SANDWICH = 2 };
enum { PGLM_GELU_TANH = 0, PGLM_GATED_SILU = 1 };
enum { PGLM_KV_FLOAT32 = 0, PGLM_KV_FLOAT16 = 1, PGLM_KV_INT8 = 2 };

/* A model's settings; the fields mean what those of the Python class ModelSpec mean. */
typedef struct {
    int32_t vocab_size, hidden_size, num_heads, num_kv_heads, head_dim, intermediate_size;
    int32_t norm;     /* PGLM_RMS_NORM ... */
    int32_t residual; /* PGLM_RESIDUAL_PRE ... */
    int32_t mlp;      /* PGLM_GELU_TANH ... */
    int32_t qk_norm;  /* 0 or 1 */
    int32_t rotary_dimensions, rotary_axes;
    int32_t rotary_interleaved; /* 0 or 1 */
    float norm_eps, residual_alpha;
    const float* frequencies; /* [rotary_dimensions / rotary_axes / 2], radians a position */
} pglm_spec;

/* What a tensor is for. Linear layers first, then vectors. */
typedef enum {
    PGLM_QKV = 0,
    PGLM_ATTENTION_OUTPUT,
    PGLM_MLP_UP, /* gate and up rows where the MLP is gated */
    PGLM_MLP_DOWN,
    PGLM_HEAD,
    PGLM_INPUT_NORM,
    PGLM_INPUT_NORM_BIAS,
    PGLM_Q_NORM,
    PGLM_K_NORM,
    PGLM_ATTENTION_POST_NORM,
    PGLM_ATTENTION_POST_NORM_BIAS,
    PGLM_MLP_NORM,
    PGLM_MLP_NORM_BIAS,
    PGLM_MLP_POST_NORM,
    PGLM_MLP_POST_NORM_BIAS,
    PGLM_FINAL_NORM,
    PGLM_FINAL_NORM_BIAS,
    PGLM_ROLES
} pglm_role;

/* One tensor of a weight file. Offsets are in bytes from the file's start. */
typedef struct {
    int32_t role;
    int32_t rows;   /* outputs of a linear layer, elements of a vector */
    int32_t inputs; /* of a linear layer; 1 for a vector */
    int32_t bits;   /* 4, 8, 16 or 32; 32 for a vector */
    int32_t group;  /* elements of a group as stored (4 and 8 bits) */
    int32_t symmetric;
    int32_t has_bias;
    uint64_t codes_offset; /* codes, float weights or the vector */
    uint64_t alpha_offset; /* 4 and 8 bits */
    uint64_t bias_offset;  /* where has_bias */
} pglm_tensor;

/* One weight file: a block's or the head's. */
typedef struct {
    const char* path;
    uint64_t size;  /* that it must have */
    int32_t window; /* sliding window of the block, 0 for none */
    int32_t tensor_count;
    const pglm_tensor* tensors;
} pglm_file;

typedef struct {
    int32_t threads;       /* 0: as many as the process may use */
    int32_t kv_type;       /* PGLM_KV_FLOAT32 ... */
    const char* isa;       /* name of the kernels to use; null: POCKETGLM_ISA, or the best */
    uint64_t memory_bytes; /* the most that weights, caches and buffers may take together; 0: no limit */
    /* What of memory_bytes is not for weights; 0: a quarter. Blocks beyond the rest are read at each pass. */
    uint64_t reserve_bytes;
    /* One value for each block of a stage: 1, it is read at each pass; 0, it stays in memory. Null: as
     * memory_bytes needs. */
    const uint8_t* streamed_blocks;
} pglm_options;

typedef struct {
    const char* isa;
    int32_t threads;
    uint64_t weight_bytes;   /* in memory: mapped files, or the buffers that blocks are read into */
    uint64_t cache_bytes;    /* KV cache pages */
    uint64_t buffer_bytes;   /* activations and scratch */
    uint64_t streamed_bytes; /* read from disk at every pass */
} pglm_usage;

/* ---- a run of blocks ---- */

typedef struct pglm_stage pglm_stage;

pglm_status pglm_stage_load(const pglm_spec* spec, const pglm_file* blocks, int32_t count,
                            const pglm_options* options, pglm_stage** stage);
void pglm_stage_free(pglm_stage* stage);
pglm_status pglm_stage_usage(const pglm_stage* stage, pglm_usage* usage);
/* One value for each block: 1, it is read at each pass; 0, it stays in memory. */
pglm_status pglm_stage_streamed(const pglm_stage* stage, uint8_t* streamed);

pglm_status pglm_stage_open(pglm_stage* stage, int64_t sequence);
void pglm_stage_close(pglm_stage* stage, int64_t sequence);
pglm_status pglm_stage_length(const pglm_stage* stage, int64_t sequence, int32_t* length);
pglm_status pglm_stage_truncate(pglm_stage* stage, int64_t sequence, int32_t length);
/* Append the first `length` positions of `source` to the open, empty `target`. */
pglm_status pglm_stage_copy_prefix(pglm_stage* stage, int64_t source, int64_t target, int32_t length);
/* Bytes of activations and scratch that a pass of `count` rows after `start` cached positions takes. */
pglm_status pglm_stage_work_bytes(pglm_stage* stage, int32_t start, int32_t count, int32_t prefix,
                                  uint64_t* bytes);
/* keys and values: float32 [blocks, length, kv_heads, head_dim]. */
pglm_status pglm_stage_save(const pglm_stage* stage, int64_t sequence, float* keys, float* values);
pglm_status pglm_stage_restore(pglm_stage* stage, int64_t sequence, int32_t length, const float* keys,
                               const float* values);

/* `count` consecutive rows of one sequence, whose cache holds `start` positions. */
typedef struct {
    int64_t sequence;
    int32_t start, count;
    int32_t prefix; /* columns that every row sees */
} pglm_segment;

/* hidden and output: [rows, hidden_size], which may be the same memory; positions: [rotary_axes, rows],
 * the rows of all segments one after the other. On failure every cache is as it was. */
pglm_status pglm_stage_forward(pglm_stage* stage, const pglm_segment* segments, int32_t segment_count,
                               const int32_t* positions, const float* hidden, float* output);

/* ---- final norm and output projection ---- */

typedef struct pglm_head pglm_head;

pglm_status pglm_head_load(const pglm_spec* spec, const pglm_file* file, const pglm_options* options,
                           pglm_head** head);
void pglm_head_free(pglm_head* head);
pglm_status pglm_head_usage(const pglm_head* head, pglm_usage* usage);
/* Bytes of activations and scratch that `rows` rows take. */
pglm_status pglm_head_work_bytes(const pglm_head* head, int32_t rows, uint64_t* bytes);
/* hidden [rows, hidden_size] -> logits [rows, vocab_size]. */
pglm_status pglm_head_logits(pglm_head* head, const float* hidden, int32_t rows, float* logits);

/* ---- the choice of a token ---- */

/* As the fields of the Python class SamplingSettings; temperature 0 is greedy. */
typedef struct {
    double temperature;        /* 0 to 100 */
    int64_t top_k;             /* 0: off */
    double top_p;              /* 1: off */
    double min_p;              /* 0: off */
    double repetition_penalty; /* 1: off */
    double presence_penalty, frequency_penalty;
} pglm_sampling;

typedef struct pglm_sampler pglm_sampler;

pglm_status pglm_sampler_new(const pglm_sampling* sampling, int32_t vocab_size, pglm_sampler** sampler);
void pglm_sampler_free(pglm_sampler* sampler);
/* Tokens of the prompt (counted by the repetition penalty), tokens that are never chosen, and values
 * added to tokens' logits (minus infinity forbids one). */
pglm_status pglm_sampler_see(pglm_sampler* sampler, const int32_t* tokens, int64_t count);
pglm_status pglm_sampler_ban(pglm_sampler* sampler, const int32_t* tokens, int64_t count);
pglm_status pglm_sampler_bias(pglm_sampler* sampler, const int32_t* tokens, const float* values,
                              int64_t count);
/* Counts a token of the answer that was chosen elsewhere. */
pglm_status pglm_sampler_accept(pglm_sampler* sampler, int32_t token);
/* Chooses from logits [vocab_size], which stay as they are, and counts the token. `uniform` is from
 * [0, 1) and not used by a greedy sampler. PGLM_INTERNAL: the logits have no finite maximum. */
pglm_status pglm_sampler_next(pglm_sampler* sampler, const float* logits, double uniform, int32_t* token);
/* ids and probabilities [vocab_size]: the first `count` are written, ids ascending. Not for greedy ones. */
pglm_status pglm_sampler_distribution(pglm_sampler* sampler, const float* logits, int32_t* ids,
                                      double* probabilities, int32_t* count);

/* Chooses a token from each row of logits [count, vocab_size] as pglm_sampler_next, with a sampler of its own
 * and on the head's threads. A row's token is -1 where that fails: nothing is counted then, and
 * pglm_sampler_next says what is wrong. */
pglm_status pglm_head_choose(pglm_head* head, pglm_sampler* const* samplers, int32_t count,
                             const float* logits, const double* uniforms, int32_t* tokens);

/* Names of the kernels this machine can run, best first; ends with a null pointer. */
const char* const* pglm_isa_names(void);

#ifdef __cplusplus
}
#endif

#endif
