/* Placement: which model call goes next, and to which endpoint. Pure: time comes with each call, decisions
 * are integers, the only randomness is the seed. So the router runs it live and cox-sim on virtual time.
 *
 *     submit calls; while (placement_next(...)) dispatch; tell what became of them
 *
 * A pool is the endpoints that can answer for one model. A call waits in its pool's queue until an endpoint
 * has token credit for it; what is sent is charged at dispatch and refunded exactly once. Who is first:
 * tenant (deficit round robin over tokens), band, slack on the critical path, least attained service of the
 * program; whoever has waited long enough is promoted. Where: seconds of pending prefill beyond the predicted
 * prefix hit, KV pressure and decode in flight, over home, best prefixes and two drawn at random (all of them
 * in pools of up to 64).
 *
 * Request-level policies stand beside it for comparison; they use the same queue in order of arrival, the
 * same credit and the same books.
 *
 * Ownership: calls are the caller's memory, linked in from submit to done or withdraw. Thread: one.
 * Cost: O(log n) a decision in the calls that wait; O(1) in endpoints beyond 64.
 */
#ifndef COX_ORCHESTRATOR_INFERENCE_PLACEMENT_H
#define COX_ORCHESTRATOR_INFERENCE_PLACEMENT_H

#include "cox/base/buf.h"
#include "cox/base/err.h"
#include "cox/base/heap.h"
#include "cox/base/list.h"

struct placement;

enum placement_policy {
    PLACEMENT_PROGRAM, /* the router's own: knows programs */
    PLACEMENT_ROUND_ROBIN,
    PLACEMENT_LEAST_REQUEST,
    PLACEMENT_POWER_OF_TWO, /* the less loaded of two drawn at random */
    PLACEMENT_CACHE_AWARE,  /* best prefix unless the pool is out of balance; see policy.c for the rule */
    PLACEMENT_SESSION,      /* rendezvous hash of the program */
    PLACEMENT_POLICY_NR
};
const char *placement_policy_text(enum placement_policy policy); /* "round_robin" */
bool placement_policy_parse(struct cox_slice text, enum placement_policy *ret);

struct placement_config {
    enum placement_policy policy;
    uint64_t seed;
    uint32_t queue_max; /* calls that wait in one pool; 0: PLACEMENT_QUEUE_MAX */
};
#define PLACEMENT_QUEUE_MAX 100000u
#define PLACEMENT_BLOCK_LEN 256u    /* bytes of canonical prompt a hash stands for */
#define PLACEMENT_BLOCKS_MAX 32768u /* of a call; what is beyond is not looked at */

struct placement *placement_create(const struct placement_config *config);
void placement_destroy(struct placement *p); /* NULL is allowed; calls still linked are forgotten */

/* ---- pools and endpoints: ids are small, given here, reused only after the last call on them is done ----
 */

uint32_t placement_pool_add(struct placement *p);
void placement_pool_remove(struct placement *p, uint32_t pool); /* empty by then */

struct placement_limits {
    uint32_t in_flight_max; /* requests at once, never exceeded; 0: credit alone decides */
    uint64_t kv_tokens;     /* of its cache; 0: not known, learned from what it says */
    /* What to expect before anything was measured; 0: defaults. */
    uint32_t prefill_tokens_per_s, decode_tokens_per_s;
};
uint32_t placement_endpoint_add(struct placement *p, uint32_t pool, const struct placement_limits *limits);
void placement_endpoint_limit(struct placement *p, uint32_t endpoint, const struct placement_limits *limits);
/* No new calls go there; those under way are told as always. Its id is free after the last of them. */
void placement_endpoint_remove(struct placement *p, uint32_t endpoint);
/* What health, breaker and operator say: closed endpoints get nothing new, keep what they have, and forget
 * their prefixes when `forget` (it was restarted). half: one call at a time, to try. */
enum placement_gate { PLACEMENT_OPEN, PLACEMENT_HALF_OPEN, PLACEMENT_CLOSED };
void placement_endpoint_gate(struct placement *p, uint32_t endpoint, enum placement_gate gate, bool forget);

/* What an endpoint says of itself. Old ones are worth less; without any, our own counts serve. */
struct placement_signals {
    int32_t running, waiting; /* -1: not said */
    int32_t kv_used_permille; /* -1: not said */
    uint64_t kv_tokens;       /* 0: not said */
};
void placement_endpoint_signals(struct placement *p, uint32_t endpoint, int64_t now_ns,
                                const struct placement_signals *signals);

/* ---- calls ---- */

enum placement_band { PLACEMENT_BAND_HIGH, PLACEMENT_BAND_NORMAL, PLACEMENT_BAND_LOW, PLACEMENT_BAND_NR };

struct placement_call {
    /* The caller's, from submit on. */
    uint32_t pool;
    enum placement_band band;
    uint64_t tenant;        /* a number for it; equal numbers are the same */
    uint64_t program;       /* likewise, over all tenants; 0: of no program */
    const uint64_t *blocks; /* chained hashes of the prompt, one each PLACEMENT_BLOCK_LEN bytes; borrowed
                               until done */
    uint32_t n_blocks;
    uint32_t input_tokens;      /* estimate */
    uint32_t output_tokens;     /* estimate; 0: the program's mean, else the pool's */
    int64_t deadline_ns;        /* INT64_MAX: none */
    int64_t critical_path_ns;   /* work of the task graph that can only follow; 0: unknown */
    uint32_t avoid[4], n_avoid; /* endpoints that have failed this call already; any other is better */

    /* Placement's. */
    struct cox_list link;
    struct cox_heap_node order, due;
    struct placement_program *of_program;
    struct placement_tenant *of_tenant;
    struct placement_line *of_line;
    int64_t submitted_ns, dispatched_ns, first_token_ns;
    uint32_t endpoint;
    uint32_t hit_tokens;     /* predicted */
    uint32_t charged_tokens; /* of the endpoint's credit */
    uint32_t hit_blocks, miss_tokens, decode_tokens;
    uint64_t fair_tokens; /* put down to its tenant */
    int64_t latest_ns;    /* when it has to be sent to be in time, or has waited long enough */
    uint8_t state, rank;
    bool has_waited_for_home, may_crowd, grows; /* grows: as its program keeps coming back */
};

/* Errors: COX_ERR_FULL (the queue is; try after *ret_retry_ms, the estimated wait), COX_ERR_UNAVAILABLE (the
 * pool has no endpoints at all). A call whose estimated wait passes its deadline is FULL as well. */
COX_MUST_CHECK enum cox_err placement_submit(struct placement *p, int64_t now_ns, struct placement_call *call,
                                             int64_t *ret_retry_ms);
/* The next call that has an endpoint: call->endpoint, charged. NULL: none can go now. */
struct placement_call *placement_next(struct placement *p, int64_t now_ns);
/* A call that waits leaves; harmless for one that does not. */
void placement_withdraw(struct placement *p, struct placement_call *call);
/* What became of a dispatched call. first_token at most once; done exactly once, whatever happened. */
void placement_first_token(struct placement *p, int64_t now_ns, struct placement_call *call);
struct placement_outcome {
    bool answered;         /* the endpoint has prefilled it: its prefix is there now */
    uint32_t input_tokens; /* as the endpoint counted; 0: not said */
    int64_t cached_tokens; /* -1: not said; else corrects what is believed to be there */
    uint32_t output_tokens;
};
void placement_done(struct placement *p, int64_t now_ns, struct placement_call *call,
                    const struct placement_outcome *outcome);

/* When to look again though nothing happens (promotion, half-open, homes that cool); INT64_MAX: never. */
int64_t placement_wake_ns(const struct placement *p);

/* ---- programs ---- */

/* The program's tool runs and is expected back in so long: its home is kept warm for it while that is worth
 * it. Without this word its own gaps so far are the guess. */
void placement_expect(struct placement *p, int64_t now_ns, uint64_t program, int64_t return_ns);
/* It will not call again. */
void placement_program_end(struct placement *p, uint64_t program);

/* ---- numbers ---- */

struct placement_endpoint_view {
    uint32_t in_flight;
    uint64_t credit_tokens, charged_tokens; /* allowed at once, charged now */
    uint64_t pending_prefill_tokens, decoding;
    uint64_t prefill_tokens_per_s, decode_tokens_per_s; /* believed */
    uint64_t cached_blocks;
};
void placement_endpoint_view(const struct placement *p, uint32_t endpoint,
                             struct placement_endpoint_view *ret);
struct placement_pool_view {
    uint32_t waiting[PLACEMENT_BAND_NR];
    int64_t oldest_submitted_ns; /* INT64_MAX: none waits */
    int64_t wait_estimate_ms;
};
void placement_pool_view(const struct placement *p, uint32_t pool, struct placement_pool_view *ret);

#endif
