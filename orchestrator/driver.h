/* The driver: what stands between the pure engine and the world.
 *
 * A turn, each time the rpc loop has handled its events (whose callbacks fed inputs by cox_driver_step):
 *
 *     answers of the compile thread, events of the store  -> inputs
 *     timers, one slice of a checkpoint                   -> inputs
 *     changes of watched tasks                            -> on_changed, on_turn: views are taken now
 *     all records of the turn, as one batch               -> the log
 *     actions whose after_seq is durable, in order        -> store, compile thread, on_action; then on_flush
 *     holds whose moment is durable                       -> their functions: replies leave
 *
 * So nothing leaves before it is durable, and a turn costs one append however much happened in it.
 *
 * Backpressure: when the log's ring is nearly full, or what waits for it, for the state or for the compile
 * thread passes its bound, cox_driver_full says so; the caller then stops reading from the network and goes
 * on taking turns, which only make progress. Timers do not fire meanwhile, and neither do they after a gap of
 * more than a second until what peers have sent has been read: silence that we caused is no silence of
 * theirs. The engine is told of gaps as well (COX_IN_GAP): some peers first have to find us again.
 *
 * Thread: one, the engine's.
 */
#ifndef COX_ORCHESTRATOR_DRIVER_H
#define COX_ORCHESTRATOR_DRIVER_H

#include "compile.h"

#include "cox/engine.h"
#include "cox/store.h"

struct cox_driver;

/* What the driver does not do itself. `user` is given to each; any may be NULL in tests. */
struct cox_driver_hooks {
    void *user;
    /* It is durable: do it. REPLY ASSIGN CANCEL ANSWER CLOSE. Slices live until on_flush returns. */
    void (*on_action)(void *user, const struct cox_action *action);
    /* A watched task changed in this turn; not durable yet. The engine's state is that of the turn's end. */
    void (*on_changed)(void *user, const struct cox_action *action);
    /* Every input of this turn is in. */
    void (*on_turn)(void *user);
    /* Every action that may leave now has been given to on_action. */
    void (*on_flush)(void *user);
    /* The archived tasks (u64 each) that something is about to go on from: no sweep may take them. */
    void (*put_in_use)(void *user, struct cox_buf *out);
};

struct cox_driver_config {
    const char *store; /* as cox_store_config.uri */
    const char *data_dir;
    uint32_t shard;
    uint64_t seed;
    uint64_t checkpoint_len;  /* bytes of log between checkpoints */
    int64_t retention_ms;     /* ended tasks are kept this long; 0: for ever */
    uint64_t min_free;        /* bytes; 0: do not look */
    uint64_t memory_limit;    /* bytes; 0: none */
    int64_t sweep_every_ms;   /* between two passes of the sweep; 0: never */
    void (*wake)(void *user); /* any thread: take a turn soon */
    void *wake_user;
};

/* What recovery found, for the log line. */
struct cox_driver_recovery {
    uint64_t n_entities, n_records, last_seq, log_len;
    int64_t took_ms;
};

/* Opens the store, recovers, starts the threads. The epoch's record is under way when this returns: take
 * turns until cox_driver_settled, then listen. On failure `error` is a sentence for people. */
COX_MUST_CHECK enum cox_err cox_driver_create(const struct cox_driver_config *config,
                                              const struct cox_driver_hooks *hooks, struct cox_driver **ret,
                                              struct cox_driver_recovery *ret_recovery,
                                              struct cox_buf *error);
/* NULL is allowed. */
void cox_driver_destroy(struct cox_driver *d);

/* Sets `in`'s time and feeds it. */
void cox_driver_step(struct cox_driver *d, struct cox_input *in);

/* A turn; n_events is what the loop handled before it. */
void cox_driver_turn(struct cox_driver *d, size_t n_events);

/* When the next turn is due, monotonic; INT64_MAX: when something happens. */
int64_t cox_driver_wake_ns(const struct cox_driver *d);
bool cox_driver_full(const struct cox_driver *d);
/* All that has been fed is durable and has been acted on, and ended tasks are in the archive: who listens
 * earlier after a recovery shows deleted tasks that only the log still has. */
bool cox_driver_settled(const struct cox_driver *d);

/* Begins a checkpoint unless one runs; cox_driver_checkpointing turns false when the log has been cut. */
void cox_driver_checkpoint(struct cox_driver *d);
bool cox_driver_checkpointing(const struct cox_driver *d);

const struct cox_engine *cox_driver_engine(const struct cox_driver *d);
struct cox_compile *cox_driver_compile(struct cox_driver *d);
struct cox_store *cox_driver_store(struct cox_driver *d); /* its blobs: any thread */
uint64_t cox_driver_uid(const struct cox_driver *d);
uint64_t cox_driver_durable_seq(const struct cox_driver *d);
uint64_t cox_driver_done_seq(const struct cox_driver *d); /* up to here all actions have been done as well */
struct cox_now cox_driver_now(struct cox_driver *d);      /* reads the clocks */

/* Calls `fn` once everything the engine has done up to now is durable and acted on: in a turn, in order,
 * never from inside this call. The owner keeps the memory until then. */
struct cox_hold {
    struct cox_list node;
    uint64_t seq;
    void (*fn)(struct cox_hold *h);
};
void cox_driver_hold(struct cox_driver *d, struct cox_hold *h, void (*fn)(struct cox_hold *h));

/* Reads from the state: an archived task by id (task != 0), a saved entity by its key (entity.kind != 0),
 * else a payload by hash. `fn` is called in a turn, never from inside this call; it may take the bytes. The
 * owner keeps the memory until then. */
struct cox_fetch {
    struct cox_list node;
    cox_task_id task;
    struct cox_entity_key entity;
    struct cox_hash hash;
    struct cox_space space; /* the hash's */
    void (*fn)(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes);
};
void cox_driver_fetch(struct cox_driver *d, struct cox_fetch *f);
/* Where the values of a task are that lives or sleeps. */
struct cox_space cox_driver_space(const struct cox_driver *d, cox_task_id task);

/* Any other request to the store; `fn` as above, `id` is the event's. A LIST is told, as `seq`, how far the
 * store has been told everything. */
struct cox_ask {
    struct cox_list node;
    struct cox_store_request req;
    void (*fn)(struct cox_ask *ask, enum cox_err err, uint64_t id, struct cox_buf *bytes);
};
void cox_driver_ask(struct cox_driver *d, struct cox_ask *ask);

/* Other values for what the configuration said of retention and room. */
void cox_driver_limit(struct cox_driver *d, int64_t retention_ms, uint64_t min_free, uint64_t memory_limit);

/* What is short, if anything: submissions are refused then. */
enum cox_shortage { COX_SHORTAGE_NONE, COX_SHORTAGE_DISK, COX_SHORTAGE_MEMORY };
enum cox_shortage cox_driver_shortage(const struct cox_driver *d);
/* Recovered, and nothing is short: what /readyz says, beside that it serves. */
bool cox_driver_ready(const struct cox_driver *d);

/* ---- evaluate.c: COX_ACT_EVALUATE on the compile thread ---- */
void cox_evaluate_start(struct cox_driver *d, const struct cox_act_evaluate *act);

/* ---- expand.c: COX_ACT_COMPILE and COX_ACT_LOAD ---- */
void cox_expand_start(struct cox_driver *d, const struct cox_act_compile *act);
void cox_load_start(struct cox_driver *d, struct cox_entity_key sleeper);
/* What was acknowledged cannot be read: says so and leaves, to recover from the log. Does not return. */
void cox_driver_fatal(const char *what);

/* ---- turns.c: COX_ACT_TOOLS and COX_ACT_DECIDE on the compile thread ---- */
void cox_tools_start(struct cox_driver *d, const struct cox_act_tools *act);
void cox_decide_start(struct cox_driver *d, const struct cox_act_decide *act);
struct cox_programs *cox_driver_programs(struct cox_driver *d);

/* ---- compose.c: COX_ACT_COMPOSE ---- */
void cox_compose_start(struct cox_driver *d, const struct cox_act_compose *act);

#endif
