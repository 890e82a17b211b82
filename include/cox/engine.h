/* The engine: one shard's tasks, steps, attempts and placement, as a pure state machine.
 *
 *     cox_engine_step(engine, input) -> records + actions + next wake-up
 *
 * A step validates the input, emits records, applies each to its own state, and derives actions. The same
 * apply() runs in recovery, so replayed state equals live state. The engine knows no clock, no address, no
 * hash order and no I/O; time comes with each input.
 *
 * The caller (orchestrator/driver.c, tests/sim) owes it this:
 *   - every record of an effects batch is appended to the log in order before the next batch's;
 *   - an action leaves only when the log is durable up to its `after_seq`; so do reads: a view taken now is
 *     shown when the log is durable up to cox_engine_seq() at that moment;
 *   - after a failed append the engine is thrown away and recovered.
 *
 * Thread: one. Ownership: inputs are borrowed for the call; slices in effects belong to the effects or, where
 * said, to the engine until the effects are released in order.
 */
#ifndef COX_ENGINE_H
#define COX_ENGINE_H

#include "cox/base/arena.h"
#include "cox/image.h"
#include "cox/limits.h"
#include "cox/store.h"
#include "cox/task.h"
#include "cox/types.h"

struct cox_engine;
struct cox_task; /* a task as the engine keeps it, or thawed from the archive; read by cox_task_view */

/* A value made by a step: small ones travel inline, larger ones are named by content and kept by the store.
 */
struct cox_payload {
    enum { COX_PAYLOAD_NONE, COX_PAYLOAD_INLINE, COX_PAYLOAD_STORED } kind;
    struct cox_slice bytes; /* INLINE: JSON, <= COX_INLINE_PAYLOAD_LEN_MAX. STORED in an input: all the bytes,
                               for the record; STORED in views and actions: empty */
    struct cox_hash hash;   /* STORED */
    uint64_t size;          /* bytes of JSON, either kind */
};

/* ---------------------------------------------------------------- inputs */

enum cox_input_kind {
    COX_IN_TIMER, /* nothing but the time; also how due timers fire */
    COX_IN_SUBMIT,
    COX_IN_CANCEL,
    COX_IN_WATCH, /* this task's changes are wanted as COX_ACT_CHANGED actions (not durable) */
    COX_IN_UNWATCH,
    COX_IN_ATTACH,
    COX_IN_DETACH,
    COX_IN_CREDIT,
    COX_IN_BEAT, /* any message from the session came */
    COX_IN_DRAINING,
    COX_IN_STARTED,
    COX_IN_RESULT,
    COX_IN_RETURNED,
    COX_IN_EVALUATED,  /* answer to COX_ACT_EVALUATE */
    COX_IN_ARCHIVED,   /* answer to COX_ACT_ARCHIVE: the archive holds it durably */
    COX_IN_CHECKPOINT, /* save up to `max_bytes` of changed entities */
    COX_IN_NR
};

struct cox_in_submit {
    uint64_t request; /* comes back in the reply */
    struct cox_slice tenant;
    struct cox_slice key;     /* idempotency key; empty: none */
    struct cox_hash document; /* of document, inputs and labels: same key must mean the same task */
    struct cox_slice image;   /* compiled; copied */
};
struct cox_in_cancel {
    uint64_t request;
    cox_task_id task;
    struct cox_slice reason;
};
struct cox_in_attach {
    uint32_t session; /* the stream's number, never reused while the engine lives; > 0 */
    struct cox_slice worker_id;
    struct cox_slice boot_id;
    struct cox_slice version;
    uint32_t slots;
    struct cox_resources resources;
    const struct cox_label *labels;
    size_t n_labels;
    const struct cox_slice *handlers;
    size_t n_handlers;
    const struct cox_ref *holds; /* driver passes none when the worker's shard_uid is another's */
    size_t n_holds;
};
struct cox_in_result {
    uint32_t session;
    struct cox_ref ref;
    enum cox_attempt_status status; /* SUCCEEDED FAILED TIMED_OUT CANCELLED */
    enum cox_code code;
    struct cox_slice message;
    struct cox_payload output;
    bool has_exit_code;
    int32_t exit_code;
    uint64_t cpu_us;
    uint64_t run_us;
};
struct cox_in_evaluated {
    uint64_t ticket;
    bool ok;
    struct cox_payload value; /* STORED values carry their bytes; a step's spec is always INLINE here,
                                 whatever its size */
    struct cox_slice error;   /* when !ok */
};

struct cox_input {
    struct cox_now now;
    enum cox_input_kind kind;
    union {
        struct cox_in_submit submit;
        struct cox_in_cancel cancel;
        struct cox_in_attach attach;
        struct cox_in_result result;
        struct cox_in_evaluated evaluated;
        struct {
            uint32_t session;
            uint64_t granted; /* cumulative on this session */
        } credit;
        struct {
            uint32_t session; /* DETACH, BEAT, DRAINING */
        } session;
        struct {
            uint32_t session;
            struct cox_ref ref;
        } attempt; /* STARTED, RETURNED */
        struct {
            cox_task_id task; /* WATCH, UNWATCH, ARCHIVED */
        } task;
        struct {
            size_t max_bytes;
        } checkpoint;
    } u;
};

/* ---------------------------------------------------------------- effects */

enum cox_action_kind {
    COX_ACT_REPLY, /* to SUBMIT or CANCEL */
    COX_ACT_ASSIGN,
    COX_ACT_CANCEL,      /* tell the worker to stop an attempt */
    COX_ACT_ANSWER,      /* to a result */
    COX_ACT_CLOSE,       /* end a session: a newer one won, or it broke the protocol */
    COX_ACT_CHANGED,     /* a watched task or one of its steps changed */
    COX_ACT_EVALUATE,    /* values too large to evaluate here: fetch payloads, evaluate, answer EVALUATED */
    COX_ACT_PUT_PAYLOAD, /* hand a payload of the log to the state */
    COX_ACT_ARCHIVE,     /* hand a finished task to the archive, answer ARCHIVED */
    COX_ACT_SAVE,        /* checkpoint: an entity */
    COX_ACT_FORGET,      /* checkpoint: an entity that is gone */
    COX_ACT_TRUNCATE,    /* checkpoint finished: the log up to `seq` is covered by what was saved */
    COX_ACT_ALARM        /* something an operator should know: text */
};

enum cox_answer { COX_ANSWER_ACCEPTED = 1, COX_ANSWER_DUPLICATE, COX_ANSWER_STALE, COX_ANSWER_UNKNOWN };

struct cox_act_reply {
    uint64_t request;
    enum cox_err err; /* SUBMIT: FULL (retry_ms set), EXISTS (other document). CANCEL: NOT_FOUND */
    cox_task_id task;
    enum cox_task_status status;
    bool existed;
    int64_t retry_ms;
    const char *message; /* static text, or NULL */
};
struct cox_act_assign {
    uint32_t session;
    struct cox_ref ref;
    uint32_t attempt; /* number, from 1 */
    bool fallback;
    struct cox_slice step_name; /* engine's, see below */
    struct cox_slice handler;   /* engine's */
    struct cox_slice spec_json; /* effects' or engine's */
    int64_t timeout_ms;
    struct cox_resources resources;
};
struct cox_act_evaluate {
    uint64_t ticket;
    cox_task_id task;
    uint32_t step; /* COX_IMAGE_NONE: the task's outputs */
    uint32_t template_index;
    bool is_condition;        /* value must be a bool; answer "true" or "false" */
    bool success, failure;    /* for the functions of the same name */
    enum cox_code error_code; /* for the root `error` */
    struct cox_slice error_message;
    struct cox_slice image;         /* engine's: stays until EVALUATED came back for this ticket */
    const struct cox_image *opened; /* the same, checked already (that is O(image)); any thread may read */
    const struct cox_eval_input *steps; /* what the template refers to, effects' */
    size_t n_steps;
};
struct cox_eval_input {
    uint32_t step;
    enum cox_step_status status;
    enum cox_code code;
    struct cox_slice message;
    struct cox_payload output; /* STORED: to be fetched by hash */
};

struct cox_action {
    enum cox_action_kind kind;
    uint64_t after_seq;
    union {
        struct cox_act_reply reply;
        struct cox_act_assign assign;
        struct cox_act_evaluate evaluate;
        struct {
            uint32_t session;
            struct cox_ref ref;
            enum cox_answer answer; /* ANSWER only */
        } attempt;                  /* CANCEL, ANSWER */
        struct {
            uint32_t session;
            enum cox_err err; /* STALE: a newer stream won; TIMEOUT: silent too long; INVALID */
            const char *message;
        } close;
        struct {
            cox_task_id task;
            uint32_t step; /* COX_IMAGE_NONE: the task itself */
            uint64_t seq;
            bool final; /* the task has ended */
        } changed;
        struct {
            struct cox_hash hash;
            struct cox_slice bytes; /* effects' */
        } payload;
        struct {
            cox_task_id task;
            struct cox_slice bytes; /* effects': what cox_task_thaw reads */
        } archive;
        struct {
            struct cox_entity_key key;
            uint64_t applied_seq;
            struct cox_slice bytes; /* effects' */
        } save;                     /* SAVE, FORGET (no bytes) */
        struct {
            uint64_t seq;
        } truncate;
        struct {
            const char *text; /* effects' */
        } alarm;
    } u;
};

/* What a number of steps made. Zero-initialised is valid and empty. "Effects'" slices live until reset;
 * "engine's" slices live until every action of this and earlier effects has been released and reset. */
struct cox_effects {
    struct cox_buf records; /* framed records, ready for the log */
    uint32_t n_records;
    uint64_t first_seq;         /* of records; meaningless when n_records is 0 */
    struct cox_action *actions; /* in order; after_seq never falls */
    size_t n_actions;
    size_t cap_actions;
    struct cox_arena arena;
    int64_t wake_mono_ns; /* call with COX_IN_TIMER then; INT64_MAX: nothing pending */
};
void cox_effects_reset(struct cox_effects *fx); /* keeps the memory */
void cox_effects_fini(struct cox_effects *fx);

/* ---------------------------------------------------------------- life */

struct cox_engine_config {
    uint32_t shard;
    uint64_t seed;           /* backoff jitter only; what it chose is in the records */
    uint32_t live_steps_max; /* admission: 0 means COX_LIVE_STEPS_MAX */
};
struct cox_engine *cox_engine_create(const struct cox_engine_config *config);
void cox_engine_destroy(struct cox_engine *e);

/* Recovery, in this order: load every saved entity, replay every batch, then recovered() once.
 * Errors of the first two: COX_ERR_CORRUPT. Replaying records an entity has applied already is harmless. */
COX_MUST_CHECK enum cox_err cox_engine_load(struct cox_engine *e, struct cox_entity_key key,
                                            uint64_t applied_seq, struct cox_slice bytes);
COX_MUST_CHECK enum cox_err cox_engine_replay(struct cox_engine *e, uint64_t first_seq, uint32_t n,
                                              struct cox_slice records);
/* Begins a new epoch (a record: durable before the shard listens), derives queues, timers and counts, and
 * gives adoption its window. `last_seq` is the log's. */
COX_MUST_CHECK enum cox_err cox_engine_recovered(struct cox_engine *e, struct cox_now now, uint64_t last_seq,
                                                 struct cox_effects *fx);

/* One input. Adds to `fx` (which may hold the effects of earlier steps of the same turn).
 * Never fails: what is wrong with an input is answered by an action. Cost: O(what changes). */
void cox_engine_step(struct cox_engine *e, const struct cox_input *in, struct cox_effects *fx);

uint64_t cox_engine_seq(const struct cox_engine *e); /* of the last record emitted or replayed */

/* Hash over all durable state in a canonical order: equal after live running, replay from the first record,
 * and checkpoint plus tail. O(state). For tests and `cox admin verify`. */
uint64_t cox_engine_hash(const struct cox_engine *e);
/* Checks every internal invariant (counts, lists, capacity); aborts on a broken one. O(state). For tests. */
void cox_engine_check(const struct cox_engine *e);

/* ---------------------------------------------------------------- reading */

/* The live task, or NULL (unknown, or in the archive only). Valid until the next step. */
const struct cox_task *cox_engine_find(const struct cox_engine *e, cox_task_id id);

struct cox_task_view {
    cox_task_id id;
    struct cox_slice tenant;
    const struct cox_image *image;
    enum cox_task_status status;
    int64_t created_wall_ms;
    int64_t started_wall_ms;  /* 0: not yet */
    int64_t finished_wall_ms; /* 0: not yet */
    enum cox_code code;       /* of the first error */
    struct cox_slice message;
    uint32_t error_step; /* COX_IMAGE_NONE: no step */
    struct cox_payload outputs;
    uint32_t n_steps_by_status[COX_STEP_STATUS_NR];
    uint64_t cpu_us;
};
void cox_task_view(const struct cox_task *t, struct cox_task_view *ret);

enum cox_step_reason {
    COX_REASON_NONE,
    COX_REASON_DEPENDENCIES, /* BLOCKED */
    COX_REASON_BACKOFF,      /* READY: until `ready_wall_ms` */
    COX_REASON_NO_WORKER,    /* READY: no attached worker offers the handler and fits the constraints */
    COX_REASON_NO_CAPACITY,  /* READY: fitting workers are busy */
    COX_REASON_EVALUATING,   /* READY: its input is being computed */
    COX_REASON_WORKER_AWAY,  /* RUNNING: its worker is disconnected; waiting for it to come back */
    COX_REASON_CANCELLING    /* RUNNING: told to stop */
};
struct cox_step_view {
    enum cox_step_status status;
    enum cox_step_reason reason;
    int64_t ready_wall_ms;
    bool via_fallback;
    enum cox_code code; /* when FAILED, or of the last failed attempt while it retries */
    struct cox_slice message;
    struct cox_payload output;
    uint32_t n_attempts;
};
struct cox_attempt_view {
    uint32_t number;
    struct cox_slice worker_id;
    enum cox_attempt_status status;
    int64_t started_wall_ms;
    int64_t finished_wall_ms;
    bool has_exit_code;
    int32_t exit_code;
    enum cox_code code;
    struct cox_slice message;
    uint64_t cpu_us;
    bool fallback;
    struct cox_ref ref;
};
/* `e` may be NULL for a thawed task (reasons are NONE then). */
void cox_step_view(const struct cox_engine *e, const struct cox_task *t, uint32_t step,
                   struct cox_step_view *ret);
/* Attempt i of n_attempts, oldest first: the last COX_ATTEMPTS_KEPT past ones and the present. */
void cox_attempt_view(const struct cox_engine *e, const struct cox_task *t, uint32_t step, uint32_t i,
                      struct cox_attempt_view *ret);

/* A task from the archive's bytes. Errors: COX_ERR_CORRUPT. The caller frees it. */
COX_MUST_CHECK enum cox_err cox_task_thaw(struct cox_slice archived, struct cox_task **ret);
void cox_task_free(struct cox_task *t); /* thawed ones only; NULL is allowed */

struct cox_worker_view {
    struct cox_slice worker_id, boot_id, version;
    uint32_t session; /* 0: disconnected */
    bool draining;
    uint32_t slots, assigned;
    uint64_t free_credit;
    struct cox_resources resources, free_resources;
    int64_t attached_wall_ms;
    const struct cox_label *labels;
    size_t n_labels;
    const struct cox_slice *handlers;
    size_t n_handlers;
};
/* Workers known now, in the order they first attached: *it starts at 0 and names a place that stays good over
 * steps; false at the end. */
bool cox_engine_next_worker(const struct cox_engine *e, size_t *it, struct cox_worker_view *ret);
/* The attempts a worker has, in no promised order: *it starts at NULL; false at the end, or when the worker
 * is not known. The next step ends the iteration. */
bool cox_engine_next_attempt(const struct cox_engine *e, struct cox_slice worker_id, const void **it,
                             struct cox_ref *ret);

struct cox_engine_stats {
    uint64_t n_live_tasks, n_live_steps;
    uint64_t n_ready, n_running;
    uint64_t n_workers, n_slots;
    uint64_t tasks_finished[COX_TASK_STATUS_NR];
    uint64_t steps_finished[COX_STEP_STATUS_NR];
    uint64_t attempts_assigned, attempts_lost, results_stale;
};
void cox_engine_stats(const struct cox_engine *e, struct cox_engine_stats *ret);

#endif
