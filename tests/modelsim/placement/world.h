/* Placement on virtual time: simulated engines, lib_placement before them, and programs or a trace that call.
 * Pure but for the clock that decisions are timed with. Thread: one. */
#ifndef COX_MODELSIM_PLACEMENT_WORLD_H
#define COX_MODELSIM_PLACEMENT_WORLD_H

#include "engine.h"
#include "placement.h"

#include "cox/base/heap.h"
#include "cox/base/map.h"
#include "cox/base/rng.h"

#define BLOCK_TOKENS 64u /* of engines and of placement: PLACEMENT_BLOCK_LEN bytes, four a token */
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_SECOND INT64_C(1000000000)

/* Agents' programs: turns that follow each other, each with all that was said before it. Lognormal where it
 * says median and sigma. */
struct agents {
    uint64_t kinds, system_tokens; /* so many system prompts, shared by all programs of a kind */
    uint64_t task_tokens;          /* median of the task that a program begins with */
    uint64_t result_tokens, output_tokens;
    uint64_t gap_ms;
    double task_sigma, result_sigma, output_sigma, gap_sigma;
    uint64_t turns_min, turns_max; /* uniform between */
    uint64_t context_max;          /* a program ends before its context is longer */

    /* Where fan_max > 0, every fan_every-th turn of a program calls several agents at once instead of a tool,
     * and goes on when the last of them has ended, with the answers of all. They have conversations of their
     * own, whose tools take as long as others'. */
    uint64_t fan_min, fan_max, fan_every;
    uint64_t branch_turns_min, branch_turns_max;
    uint64_t branches; /* 0: all calls are of the program's id, as those of a task are; 1: each has its own */
    uint64_t hints;    /* 1: calls say how much work can only follow them in their branch */

    /* Tenants: the first brings `heavy` times the programs of each other one. */
    uint64_t tenants;
    double heavy;
    uint64_t bands;    /* 1: a fifth of the programs is of the high band, a fifth of the low one */
    uint64_t dated_ms; /* of a fifth of the programs, each call has so long; 0: none has a deadline */
};

struct trace_row {
    int64_t at_ns;
    uint32_t input_tokens, output_tokens;
    uint64_t program; /* inferred; 0: none */
    uint64_t *blocks; /* of BLOCK_TOKENS */
    uint32_t n_blocks;
};
struct trace {
    struct trace_row *rows;
    size_t n_rows;
    int64_t length_ns;
};
/* Rows of the Mooncake traces, gzip or not. `error` says why not. */
bool trace_read(const char *path, struct trace *ret, struct cox_buf *error);
void trace_fini(struct trace *t);

struct world_config {
    enum placement_policy policy;
    uint32_t n_endpoints;
    uint64_t seed;
    double rate; /* programs a second, or how many times as fast as it was recorded the trace is played */
    int64_t warm_ns, window_ns; /* what begins in the window behind the warm-up is measured */
    int64_t limit_ns;           /* what has not ended by then is counted as unfinished */
    int64_t scrape_ns;
    bool expects; /* programs say when they expect to be back, wrong by expect_sigma */
    double expect_sigma;
    bool known_programs; /* of a trace: placement is told the inferred ones */
    bool timed;          /* measure how long decisions take */
    bool no_oracles;     /* they are not asked: a run that only has to say whether the system grows */
    /* Bounds: what any engine has computed is in the cache of all, which forgets nothing or is as large as
     * all theirs together. */
    enum { IDEAL_NOT, IDEAL_ENDLESS, IDEAL_POOLED } ideal;
    uint32_t in_flight_max;
    struct engine_config engine;
    struct agents agents;
    const struct trace *trace; /* NULL: agents */
};

struct samples { /* microseconds */
    uint64_t *values;
    size_t n, cap;
    bool sorted;
};
void samples_add(struct samples *s, uint64_t value);
double samples_mean(const struct samples *s);
uint64_t samples_at(struct samples *s, uint32_t per_mille); /* 500: the median */
void samples_fini(struct samples *s);

/* Programs told apart: the heavy tenant's and others', or those of a band, or with and without deadlines. */
#define CLASSES 3u
struct class_results {
    struct samples call, program;
    uint64_t n_unfinished, n_late; /* n_late: calls that ended, or were refused, after their deadline */
};

struct results {
    struct samples ttft, call, program, model_time; /* model_time: a program's without its gaps */
    struct class_results classes[CLASSES];
    double queued_s, prefill_s, decode_s; /* of all calls in the window, where their time went */
    struct samples decision_ns;
    uint64_t input_tokens, cached_tokens, output_tokens; /* of the calls in the window */
    uint64_t wasted_tokens;                              /* computed again after preemption, all calls */
    uint64_t seen_tokens;   /* of input_tokens: what a cache without bounds would have had */
    uint64_t pooled_tokens; /* what one cache as large as all together would have had, LRU */
    uint64_t n_calls, n_programs, n_unfinished, n_refused, n_preemptions;
    uint64_t moves;      /* calls of a program elsewhere than the one before */
    double busy;         /* of the engines, mean */
    double in_system[4]; /* programs (of a trace: calls) in the system, mean of each quarter of the window */
    uint32_t credit_exceeded; /* in flight above in_flight_max, by the engines' count */
    double virtual_s, wall_s;
};
void world_run(const struct world_config *config, struct results *ret);
void results_fini(struct results *r);
/* Programs a second that the engines could do at most, if each prompt's beginning were always there and as
 * many calls ran at once as their caches hold: drawn, not run. */
double world_capacity(const struct world_config *config);

/* oracle.c: what caches that all calls share would have found. */
struct oracle;
struct oracle *oracle_create(uint32_t n_blocks);
void oracle_destroy(struct oracle *o);
/* A prompt comes, and what is generated to it is added. */
void oracle_call(struct oracle *o, const uint64_t *blocks, uint32_t n_prompt, uint32_t n_all,
                 uint32_t *ret_seen, uint32_t *ret_pooled);

/* draw.c */
double draw_unit(struct cox_rng *rng); /* in (0, 1] */
double draw_exponential(struct cox_rng *rng, double mean);
double draw_lognormal(struct cox_rng *rng, double median, double sigma);
uint64_t mix64(uint64_t a, uint64_t b);

#endif
