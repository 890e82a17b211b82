/* A simulated inference engine: continuous batching over a paged KV cache, on time that is given.
 *
 * It goes in steps, as vLLM's V1 scheduler does. A step has a budget of tokens: first every call that runs
 * gets its next token, or the next chunk of its prompt; then calls that wait are let in, in order of arrival,
 * while there are tokens, places and blocks. What a call finds in the cache it does not compute again. When a
 * running call needs a block and none is left, the one that came in last is put back and computed anew later.
 *
 * How long a step takes:
 *     step_us + prompt tokens / prefill_tokens_per_s
 *             + prefill_attention_ps * sum over chunks of tokens * (tokens before + tokens / 2)
 *             + calls that decode * decode_us + decode_attention_ns * sum of their contexts
 * The figures and where they come from: README.md.
 *
 * Pure: the same calls at the same times end at the same times. No callback may call into the engine.
 * Thread: one.
 */
#ifndef COX_MODELSIM_ENGINE_H
#define COX_MODELSIM_ENGINE_H

#include "cox/base/err.h"
#include "cox/base/list.h"

#include <stdbool.h>
#include <stdint.h>

struct engine;
struct kv;

struct engine_config {
    uint64_t step_us;
    uint64_t prefill_tokens_per_s;
    uint64_t prefill_attention_ps;
    uint64_t decode_us;
    uint64_t decode_attention_ns;
    uint64_t kv_tokens;
    uint64_t block_tokens;
    uint64_t max_num_seqs;
    uint64_t max_batched_tokens;
    uint64_t queue_max;
    uint64_t speed_permille; /* 1000: as stated; 10000: ten times as fast */
    bool cache;              /* prefixes are found again */
    struct kv *kv;           /* of several engines, the owner's to destroy; NULL: one of its own */
    bool quiet; /* on_tokens tells of first tokens only, and steps in which nothing else happens are one */
};

/* Published figures of a real engine on real hardware; see README.md. */
extern const struct engine_profile {
    const char *name, *what;
    struct engine_config config;
} engine_profiles[];
extern const unsigned engine_n_profiles;

enum engine_state { ENGINE_OUT, ENGINE_WAITS, ENGINE_RUNS };

struct engine_call {
    /* The caller's, from submit until the end. */
    const uint64_t *blocks; /* chained hashes of whole blocks, of the prompt and then of what is generated */
    uint32_t n_blocks;
    uint32_t input_tokens;  /* at least 1 */
    uint32_t output_tokens; /* how many it generates; at least 1 */

    /* The engine's, to be read. */
    uint32_t cached_tokens; /* of the prompt, found when it was first let in */
    uint32_t generated;
    int64_t submitted_ns, first_ns;
    enum engine_state state;

    /* The engine's. */
    struct cox_list link;
    uint32_t *table; /* its blocks */
    uint32_t n_table, cap_table;
    uint32_t computed, chunk, n_named;
    bool admitted;
};

struct engine_events {
    /* `generated` has grown by n. */
    void (*on_tokens)(void *user, struct engine_call *call, int64_t now_ns, uint32_t n);
    void (*on_end)(void *user, struct engine_call *call, int64_t now_ns); /* all are generated */
};

struct engine *engine_create(const struct engine_config *config, const struct engine_events *events,
                             void *user);
void engine_destroy(struct engine *e); /* calls are forgotten. NULL is allowed */

/* Errors: COX_ERR_INVALID (it can never fit into the cache), COX_ERR_FULL (queue_max wait). `call` is zeroed
 * but for the caller's part. It begins at the next engine_advance. */
COX_MUST_CHECK enum cox_err engine_submit(struct engine *e, int64_t now_ns, struct engine_call *call);
/* It leaves at once and frees its blocks; the step under way takes as long as it would have. Harmless for one
 * that is not there. */
void engine_cancel(struct engine *e, int64_t now_ns, struct engine_call *call);
/* Until `now_ns`, which never goes back. */
void engine_advance(struct engine *e, int64_t now_ns);
int64_t engine_next_ns(const struct engine *e); /* when to advance; INT64_MAX: nothing runs */

void engine_slow(struct engine *e, uint32_t factor_permille); /* steps from now on; 1000: as configured */
void engine_forget(struct engine *e);                         /* cached prefixes that nobody holds */

struct engine_stats {
    uint32_t running, waiting;
    uint32_t kv_blocks, kv_held, kv_kept, kv_empty;
    uint64_t kv_evicted;
    uint64_t prompt_tokens, cached_tokens; /* of calls let in */
    uint64_t computed_tokens;              /* of prompts, again after preemption too */
    uint64_t generated_tokens;
    uint64_t preemptions, steps, busy_ns;
};
void engine_stats(const struct engine *e, struct engine_stats *ret);

#endif
