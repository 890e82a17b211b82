/* What the parts of placement share. Only placement's own files may include it. */
#ifndef COX_ORCHESTRATOR_INFERENCE_PLACEMENT_INSIDE_H
#define COX_ORCHESTRATOR_INFERENCE_PLACEMENT_INSIDE_H

#include "placement.h"
#include "placement_index.h"

#include "cox/base/map.h"
#include "cox/base/rng.h"

#define NS_PER_S 1000000000LL
#define NS_PER_MS 1000000LL

#define NO_PLACE UINT32_MAX
#define PROGRAMS_MAX 262144u /* remembered in all; the longest idle is forgotten first */
#define TENANTS_MAX 16384u   /* likewise */
#define SCAN_MAX 64u         /* pools of up to so many are looked at whole */
#define KV_TOKENS_DEFAULT 262144u
#define BLOCK_TOKENS_DEFAULT 64u /* of PLACEMENT_BLOCK_LEN bytes of English or code */
#define PREFILL_DEFAULT 8000u    /* tokens a second: an 8 B model on one GPU of 2023 */
#define DECODE_DEFAULT 2000u
#define OUTPUT_DEFAULT 256u

enum call_state {
    CALL_NONE,
    CALL_QUEUED,   /* in its program's line */
    CALL_PRESSING, /* in its tenant's list of those that cannot wait */
    CALL_PARKED,   /* waits for one endpoint */
    CALL_HELD,     /* waits until the working set has a place for its program */
    CALL_SENT,
    CALL_PREFILLED,
    CALL_OVER
};

/* An endpoint. */
struct place {
    uint32_t id;
    uint32_t serial; /* tells it from an earlier one of the same id, and from itself before it forgot */
    struct placement_pool *pool;
    uint32_t at; /* in pool->places */
    struct placement_limits limits;
    enum placement_gate gate;
    bool removed;
    struct cox_heap_node berth; /* in pool->berths, by what its working set may grow, most first */
    struct cox_heap_node room;  /* in pool->rooms, by free credit, most first; outside: it takes nothing */

    uint32_t in_flight;
    uint64_t kv_tokens, credit, charged;
    bool kv_is_known; /* else kv_tokens is a guess that grows with the credit */
    uint64_t pending_prefill, n_prefilling;
    uint64_t decode_pending, decoding; /* tokens still to come; calls */
    int64_t busy_until_ns;             /* of its prefill, when first tokens are not told */
    uint32_t told_permille;            /* of its calls tell their first token */
    uint64_t cold_use;                 /* turn of the pool in which it was last given something cold */

    struct placement_signals signals;
    int64_t signals_ns;
    int64_t credit_cut_ns;

    /* Measured: sums that forget, and what follows from them. */
    uint64_t prefill_rate, decode_rate; /* tokens a second */
    uint64_t prefill_tokens_sum, prefill_ns_sum;
    int64_t last_first_ns;
    uint64_t call_ns;        /* of a call, in the mean */
    uint32_t trust_permille; /* what part of a predicted hit turns out to be one */

    struct index_tree tree;
    bool index_is_short;     /* it may hold less than the cache */
    uint64_t written_tokens; /* into its cache, ever: tells how much has been pushed out since a moment */

    struct cox_heap parked; /* calls that wait for it, in order */
    uint64_t parked_tokens;
    struct cox_list freed; /* in pool->freed: there may be room for one that is parked */

    struct cox_heap kept; /* programs that it is kept warm for, the furthest return first */
    uint64_t kept_tokens;
    uint64_t growing_tokens; /* of what is charged and kept: of programs that keep coming back */
};

/* What of one program waits at one band. */
struct placement_line {
    struct cox_heap calls; /* the longest branch first, then in order of arrival */
    struct cox_heap_node turn;
    struct placement_program *program; /* NULL: calls of no program */
    struct placement_tenant *tenant;
    uint8_t band;
};

struct placement_program {
    uint64_t id;
    struct placement_pool *pool;
    struct cox_list idle; /* in the placement's, while nothing of it waits or runs */
    uint32_t n_waiting, n_running;
    struct placement_line *lines[PLACEMENT_BAND_NR];
    uint64_t service; /* attained, on a scale that decays: placement_queue.c */

    int64_t since_ns; /* it first called */
    uint32_t n_back;  /* times that it came back after all of its calls had ended */

    uint32_t home, home_serial;
    uint32_t context_tokens;
    uint64_t home_written; /* home's written_tokens when it was last there */
    uint32_t mean_output;
    int64_t mean_gap_ns, last_done_ns;
    int64_t return_ns;                /* when it is expected back; INT64_MAX: not known */
    struct cox_heap_node kept, lapse; /* in its home's and its pool's, while its home is kept warm */
    uint32_t kept_tokens;
    bool kept_grows;
};

struct placement_tenant {
    uint64_t id;
    struct placement_pool *pool;
    struct cox_list idle;
    uint32_t n_calls, n_queued; /* of it, waiting or sent; in lines and pressing */
    uint64_t counter;           /* tokens it was given, lifted to the others' when it comes back */
    struct cox_heap_node turn, held_turn;
    struct cox_heap held;
    struct cox_heap pressing[PLACEMENT_BAND_NR];
    struct cox_heap lines[PLACEMENT_BAND_NR];
    struct placement_line loose[PLACEMENT_BAND_NR];
};

struct placement_pool {
    uint32_t id;
    struct placement *p;
    struct cox_list ready; /* in the placement's list of pools worth a look */
    struct place **places; /* of it, those that are not removed */
    uint32_t n_places, cap_places;
    struct cox_heap rooms, berths;
    struct cox_list freed;
    struct index_shared shared;
    struct cox_map64 programs, tenants;

    struct cox_heap held_turns; /* those that have calls held back, likewise */
    struct cox_heap turns;      /* tenants that have something waiting, the least served first */
    uint64_t counter_floor;
    struct cox_heap fifo;     /* of request-level policies */
    struct cox_list arrivals; /* every call that waits, oldest first */
    struct cox_heap due;      /* calls by when they are promoted or stop waiting for their home */
    struct cox_heap lapses;   /* programs by when their homes stop being kept warm */
    uint32_t waiting[PLACEMENT_BAND_NR];
    uint64_t waiting_tokens[PLACEMENT_BAND_NR];
    uint32_t n_waiting;
    uint32_t cursor;
    uint64_t cold_turn;

    uint32_t mean_output, mean_input;
    uint64_t block_tokens_16; /* sixteenths of a token in a block of a prompt */
    uint64_t call_ns;
    int64_t window_ns; /* of the rate at which credit comes back while calls wait */
    uint64_t window_tokens, rate;
    bool window_busy;
};

struct placement {
    enum placement_policy policy;
    uint32_t queue_max;
    struct cox_rng rng;
    struct placement_pool **pools;
    uint32_t n_pools, cap_pools;
    struct place **places; /* by id */
    uint32_t n_places, cap_places;
    uint32_t *free_ids;
    uint32_t n_free_ids, cap_free_ids;
    struct cox_list ready;
    struct cox_list idle_programs, idle_tenants;
    size_t n_programs, n_tenants;
    uint32_t next_serial;
    int64_t now_ns;
};

static inline uint64_t as_key(int64_t ns)
{
    return ns > 0 ? (uint64_t)ns : 0;
}
/* a * b / c without overflow on the way; UINT64_MAX when the result does not fit. */
static inline uint64_t muldiv(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t small;
    if (!__builtin_mul_overflow(a, b, &small))
        return small / (c > 0 ? c : 1);
    unsigned __int128 q = (unsigned __int128)a * b / (c > 0 ? c : 1);
    return q > UINT64_MAX ? UINT64_MAX : (uint64_t)q;
}

/* ---- placement_queue.c: who is next ---- */

void queue_add(struct placement_pool *q, struct placement_call *c, int64_t now_ns);
/* The call that is to go next; NULL when none waits in order. */
struct placement_call *placement_queue_first(struct placement_pool *q);
/* Out of whatever it waits in; it waits no more. */
void queue_leave(struct placement_call *c, struct placement_pool *q);
void queue_park(struct placement_pool *q, struct placement_call *c, struct place *at, int64_t until_ns);
/* Back to the front: its endpoint is gone, or it has waited long enough for it. */
void queue_unpark(struct placement_pool *q, struct placement_call *c, int64_t now_ns);
void queue_hold(struct placement_pool *q, struct placement_call *c, int64_t until_ns);
struct placement_call *queue_held(const struct placement_pool *q); /* the first that is held back */
void queue_age(struct placement_pool *q, int64_t now_ns);          /* promotes what is due */
/* What a dispatch costs its tenant, and what it turned out to cost in the end. */
void queue_charge(struct placement_pool *q, struct placement_call *c, int64_t now_ns);
void queue_settle(struct placement_pool *q, struct placement_call *c, int64_t now_ns, uint64_t input_tokens,
                  uint64_t output_tokens);
void queue_over(struct placement *p, struct placement_call *c); /* its program and tenant may be forgotten */
uint64_t queue_wait_ns(const struct placement_pool *q, enum placement_band band); /* estimate; 0: unknown */
struct placement_program *program_find(const struct placement_pool *q, uint64_t id);
void program_free(struct placement *p, struct placement_program *g);
void tenant_free(struct placement *p, struct placement_tenant *t);

/* ---- placement_cost.c and policy.c: where it goes ---- */

enum choice_kind { CHOICE_NONE, CHOICE_SEND, CHOICE_PARK, CHOICE_HOLD };
struct choice {
    enum choice_kind kind;
    struct place *at;
    uint32_t hit_blocks, hit_tokens;
    int64_t until_ns; /* of CHOICE_PARK */
};
struct choice choose(struct placement_pool *q, const struct placement_call *c, int64_t now_ns);
struct choice choose_by_policy(struct placement_pool *q, const struct placement_call *c);
bool place_takes(const struct place *x);           /* new calls, if there is room */
uint64_t place_free_tokens(const struct place *x); /* credit that is left; 0: it takes nothing now */
bool place_fits(const struct place *x, uint64_t tokens);
void place_room(struct place *x); /* after any change to it */
uint64_t place_need(const struct place *x, const struct placement_call *c, uint32_t hit_tokens);
uint64_t call_tokens(const struct placement_call *c);
void place_hit(const struct place *x, const struct placement_call *c, uint32_t *ret_blocks,
               uint32_t *ret_tokens);

/* ---- placement_learn.c: what is measured ---- */

void learn_init(struct place *x);
void learn_credit(struct place *x);
void learn_sent(struct place *x, struct placement_call *c, int64_t now_ns);
void learn_first(struct place *x, struct placement_call *c, int64_t now_ns);
void learn_done(struct place *x, struct placement_call *c, int64_t now_ns,
                const struct placement_outcome *outcome);
uint64_t learn_pending_ns(const struct place *x, int64_t now_ns);

/* ---- placement_keep.c: homes that are kept warm ---- */

void keep_home(struct placement_program *g, int64_t now_ns);
void keep_drop(struct placement_program *g);
bool keep_grows(const struct placement_program *g); /* it has come back so often that it will again */
/* Whether all of its cache holds so much more than is in use and kept. */
bool keep_fits(const struct place *x, uint64_t tokens);
/* What its working set may still grow by. */
uint64_t keep_berth(const struct place *x);
/* Its call is there: it is not late, and nobody is to be expected sooner. */
void keep_back(struct placement_program *g, int64_t now_ns);
void keep_lapse(struct placement_pool *q, int64_t now_ns);
void pool_wake(struct placement_pool *q); /* something has changed for it: calls may be able to go */
/* A program's home, if it is still what it was; NULL: none. */
struct place *program_home(const struct placement_program *g);

#endif
