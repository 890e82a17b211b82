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
#include "cox/model_call.h"
#include "cox/store.h"
#include "cox/task.h"
#include "cox/types.h"
#include "cox/workspace.h"

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
    COX_IN_GAP,   /* the caller was stopped: what others said meanwhile is still to come */
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
    COX_IN_CALL,       /* a process of an attempt calls a model: as cox_engine_call_hint said */
    COX_IN_SPEND,      /* by an attempt that runs; from an inner session */
    COX_IN_EVALUATED,  /* answer to COX_ACT_EVALUATE */
    COX_IN_ARCHIVED,   /* answer to COX_ACT_ARCHIVE: the archive holds it durably */
    COX_IN_CHECKPOINT, /* save up to `max_bytes` of changed entities */

    /* people's words to a live task; each is answered by REPLY */
    COX_IN_PAUSE,
    COX_IN_RESUME,
    COX_IN_SIGNAL,
    COX_IN_APPROVE,
    COX_IN_MESSAGE, /* to an agent */
    COX_IN_WANT,    /* nothing but that it should be in memory: answered once it is */
    COX_IN_RETRY,   /* an ended task, thawed from the archive: what failed runs again */
    COX_IN_FORK,    /* a new task from one that is live or archived */

    /* answers to actions */
    COX_IN_COMPILED, /* to COX_ACT_COMPILE */
    COX_IN_LOADED,   /* to COX_ACT_LOAD */
    COX_IN_COMPOSED, /* to COX_ACT_COMPOSE */
    COX_IN_FETCHED,  /* to COX_ACT_FETCH */
    COX_IN_TOOLS,    /* to COX_ACT_TOOLS: as EVALUATED */
    COX_IN_DECIDED,  /* to COX_ACT_DECIDE */

    /* what operators keep; each is answered by REPLY */
    COX_IN_POLICY, /* cordon, uncordon, drain a worker */
    COX_IN_TEMPLATE_APPLY,
    COX_IN_TEMPLATE_DELETE,
    COX_IN_SCHEDULE_APPLY,
    COX_IN_SCHEDULE_DELETE,
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
    struct cox_slice step; /* only this one, by its address within the task; empty: all */
    struct cox_slice reason;
};
struct cox_in_task { /* PAUSE, RESUME, WANT */
    uint64_t request;
    cox_task_id task;
};
struct cox_in_signal {
    uint64_t request;
    cox_task_id task;
    struct cox_slice name;
    struct cox_payload payload; /* STORED values carry their bytes */
};
struct cox_in_approve {
    uint64_t request;
    cox_task_id task;
    struct cox_slice step; /* its address within the task: "approve", "scan[3]", "child.approve" */
    bool approve;
    struct cox_slice comment;
    struct cox_slice by;    /* who answers; empty: nobody is asked who they are, and anyone may */
    struct cox_slice roles; /* of whoever answers, each after a space */
};
struct cox_in_message {
    uint64_t request;
    cox_task_id task;
    struct cox_slice step; /* the agent's address within the task; empty: the only one that runs */
    struct cox_slice text; /* <= COX_AGENT_WORD_LEN_MAX; the model hears it with its next turn */
};
struct cox_in_retry {
    uint64_t request;
    cox_task_id task;
    struct cox_slice archived; /* what cox_task_thaw reads; checked by it */
};
struct cox_in_fork {
    uint64_t request;
    cox_task_id from;          /* live; or `archived` is set */
    struct cox_slice archived; /* empty: live */
    struct cox_slice at; /* the step to run again, with all that depends on it; empty: what did not succeed */
    struct cox_slice image; /* with other inputs (cox_image_rebind); empty: the same */
    struct cox_slice tenant, key;
    struct cox_hash document; /* of the request, as in SUBMIT */
};
struct cox_in_compiled {
    uint64_t ticket;
    bool ok;
    struct cox_slice image; /* copied */
    struct cox_slice error; /* the first violations as a sentence, when !ok */
};
struct cox_in_loaded {
    cox_task_id task;
    struct cox_slice bytes; /* what COX_ACT_STORE_SLEEPER carried */
};
struct cox_in_fetched {
    uint64_t ticket;
    struct cox_slice bytes; /* empty: it cannot be read */
};
struct cox_in_policy {
    uint64_t request;
    struct cox_slice worker_id;
    enum { COX_POLICY_CORDON, COX_POLICY_UNCORDON, COX_POLICY_DRAIN } what;
};
struct cox_in_template {
    uint64_t request;
    struct cox_slice tenant;
    struct cox_slice name;
    uint32_t major;
    struct cox_slice document; /* APPLY: checked by compiling it */
};
struct cox_in_schedule {
    uint64_t request;
    struct cox_slice tenant;
    struct cox_slice name;
    struct cox_slice document; /* APPLY: what users get back */
    struct cox_slice image;    /* APPLY: of the task it makes, with its inputs' defaults */
    struct cox_slice cron;     /* APPLY: five fields; checked */
    struct cox_slice zone;     /* APPLY: cox_zone bytes (cox/cron.h); checked */
    enum cox_overlap overlap;
    int64_t catch_up_ms;
};
/* One item of a batch. */
struct cox_item_result {
    uint32_t index;
    enum cox_attempt_status status; /* SUCCEEDED FAILED TIMED_OUT CANCELLED */
    enum cox_code code;
    struct cox_slice message;
    struct cox_slice output; /* JSON, <= COX_ITEM_OUTPUT_LEN_MAX; larger ones are references already */
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
    const struct cox_slice *versions; /* exact version of each handler; empty: it has none */
    bool inner; /* the orchestrator's own: the router. Nobody else can take its id while it is attached */
    const struct cox_ref *holds; /* driver passes none when the worker's shard_uid is another's */
    size_t n_holds;
};
struct cox_in_result {
    uint32_t session;
    struct cox_ref ref;
    enum cox_attempt_status status; /* SUCCEEDED FAILED TIMED_OUT CANCELLED */
    enum cox_code code;
    struct cox_slice message;
    struct cox_payload output, artifacts; /* artifacts: {"name": {"$blob", "size"}}; NONE: none */
    struct cox_payload continuation; /* SUCCEEDED and not NONE: {"steps", "state"}: run these, then again */
    const struct cox_hash *blobs; /* in the blob store already, referred to by output, artifacts or items */
    size_t n_blobs;
    const struct cox_item_result *items; /* of a batch; one that is missing counts as the attempt itself */
    size_t n_items;
    bool has_exit_code;
    int32_t exit_code;
    uint64_t cpu_us, run_us;
    struct cox_usage usage; /* of a model call, however it ended */
    struct cox_files files;
};
struct cox_in_evaluated {
    uint64_t ticket;
    bool ok;
    struct cox_payload value;  /* STORED ones carry their bytes up to COX_LOGGED_PAYLOAD_LEN_MAX, lists all of
                                  them; larger ones are blobs already. A step's spec is always INLINE */
    struct cox_payload errors; /* COMPOSED: of the items that failed; NONE: none did */
    uint32_t n_items;          /* of a list */
    struct cox_slice error;    /* when !ok */
    bool later;                /* TOOLS, when !ok: a worker may yet offer what is missing */
};

struct cox_in_decided {
    uint64_t ticket;
    bool ok;
    struct cox_slice decision; /* cox/turn.h */
    struct cox_payload output; /* of a decision that has one: kept as any value */
    struct cox_slice error;    /* when !ok: a value cannot be read */
};

struct cox_input {
    struct cox_now now;
    enum cox_input_kind kind;
    union {
        struct cox_in_submit submit;
        struct cox_in_cancel cancel;
        struct cox_in_attach attach;
        struct cox_in_result result;
        struct cox_in_call call;
        struct cox_in_spend spend;
        struct cox_in_evaluated evaluated; /* EVALUATED, COMPOSED, TOOLS */
        struct cox_in_task of;             /* PAUSE, RESUME, WANT */
        struct cox_in_signal signal;
        struct cox_in_approve approve;
        struct cox_in_message message;
        struct cox_in_retry retry;
        struct cox_in_fork fork;
        struct cox_in_compiled compiled;
        struct cox_in_loaded loaded;
        struct cox_in_fetched fetched;
        struct cox_in_decided decided;
        struct cox_in_policy policy;
        struct cox_in_template template;
        struct cox_in_schedule schedule;
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
        struct {
            int64_t ns; /* up to now */
        } gap;
    } u;
};

/* ---------------------------------------------------------------- effects */

enum cox_action_kind {
    COX_ACT_REPLY, /* to every input that has a `request` */
    COX_ACT_ASSIGN,
    COX_ACT_CANCEL,        /* tell the worker to stop an attempt */
    COX_ACT_ANSWER,        /* to a result */
    COX_ACT_FENCED,        /* to a spend: its attempt is over, or nothing is left to spend */
    COX_ACT_EXPECT,        /* to the inner session: when a task's next model call may come */
    COX_ACT_CLOSE,         /* end a session: a newer one won, or it broke the protocol */
    COX_ACT_CHANGED,       /* a watched task or one of its steps changed */
    COX_ACT_EVALUATE,      /* values too large to evaluate here: fetch payloads, evaluate, answer EVALUATED */
    COX_ACT_PUT_PAYLOAD,   /* hand a payload of the log to the state */
    COX_ACT_ARCHIVE,       /* hand a finished task to the archive, answer ARCHIVED */
    COX_ACT_SAVE,          /* checkpoint: an entity */
    COX_ACT_FORGET,        /* checkpoint: an entity that is gone */
    COX_ACT_TRUNCATE,      /* checkpoint finished: the log up to `seq` is covered by what was saved */
    COX_ACT_ALARM,         /* something an operator should know: text */
    COX_ACT_COMPILE,       /* a frame's image: compile, answer COMPILED */
    COX_ACT_STORE_SLEEPER, /* an evicted task's bytes to the state, where LOAD finds them */
    COX_ACT_LOAD,          /* read an evicted task's bytes, answer LOADED */
    COX_ACT_COMPOSE,       /* a map's output: join its parts in order, keep the value, answer COMPOSED */
    COX_ACT_FETCH,         /* a stored value's bytes, answer FETCHED */
    COX_ACT_TOOLS,         /* what an agent's tools are: cox_turn_tools, keep the value, answer TOOLS */
    COX_ACT_DECIDE,        /* what a model's answer asks for: cox_turn_decide, answer DECIDED */
    COX_ACT_RELEASE,       /* tell a worker that a task's workspaces are no longer needed */
    COX_ACT_DRAIN,         /* tell a worker to finish and leave */
    COX_ACT_INDEX,         /* what ListTasks should know of a task */
    COX_ACT_ASIDE          /* keep something of a quarantined task until that is lifted or deleted */
};

enum cox_answer { COX_ANSWER_ACCEPTED = 1, COX_ANSWER_DUPLICATE, COX_ANSWER_STALE, COX_ANSWER_UNKNOWN };

struct cox_act_reply {
    uint64_t request;
    enum cox_err err; /* SUBMIT: FULL (retry_ms set), EXISTS (other document). NOT_FOUND: no such live task,
                         step or thing. INVALID: it is not in a state for that; `message` says why */
    cox_task_id task;
    enum cox_task_status status;
    bool existed;
    int64_t retry_ms;
    const char *message; /* static or effects' text, or NULL */
    const char *place;   /* INVALID: what of a document it is about, "task.ref"; static, or NULL */
};
struct cox_act_item {
    uint32_t index;
    struct cox_slice spec_json; /* effects' */
};
struct cox_act_assign {
    uint32_t session;
    struct cox_ref ref;
    cox_task_id root; /* the task that users know; ref.task may be a frame of it */
    uint32_t attempt; /* number, from 1 */
    bool fallback;
    struct cox_slice address;         /* effects' or engine's: within the task, "scan[3]", "child.build" */
    struct cox_slice handler;         /* engine's */
    struct cox_slice version;         /* engine's: the program's exact version, empty: any */
    struct cox_slice spec_json;       /* effects' or engine's; empty for a batch */
    const struct cox_act_item *items; /* effects': a batch */
    size_t n_items;
    struct cox_slice continuation; /* effects': {"state", "steps"}; empty: the first call */
    struct cox_slice artifacts;    /* effects': {"name": "path"}; empty: none */
    struct cox_slice workspace;    /* effects': equal texts are the same files; empty: private */
    struct cox_home home;
    struct cox_slice bundle; /* engine's: "sha256:..."; empty: none */
    struct cox_slice tenant; /* engine's */
    int64_t timeout_ms;
    struct cox_resources resources;
    struct cox_call_hint hint;
};
struct cox_act_evaluate {
    uint64_t ticket;
    cox_task_id task;
    uint32_t step; /* COX_IMAGE_NONE: the task's outputs */
    uint32_t template_index;
    enum {
        COX_EVAL_VALUE,     /* STORED in the answer when large */
        COX_EVAL_SPEC,      /* INLINE whatever its size, at most COX_SPEC_LEN_MAX */
        COX_EVAL_CONDITION, /* must be a bool; answer "true" or "false" */
        COX_EVAL_LIST       /* must be a list or null; like a VALUE, and the answer carries all its bytes */
    } want;
    bool success, failure;    /* for the functions of the same name */
    enum cox_code error_code; /* for the root `error` */
    struct cox_slice error_message;
    struct cox_slice item_json, args_json; /* effects' */
    uint64_t item_index;
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
    struct cox_payload errors, artifacts;
};
struct cox_act_compile {
    uint64_t ticket;
    cox_task_id root;             /* who pays for what is kept */
    enum cox_source_kind kind;    /* TEMPLATE, STEPS or PLAN */
    struct cox_payload document;  /* INLINE, whatever its size; effects' */
    struct cox_slice inputs_json; /* effects' */
    struct cox_slice allow_json;  /* PLAN; effects' */
};
struct cox_act_tools {
    uint64_t ticket;
    cox_task_id root;                /* owns the value */
    struct cox_slice config;         /* engine's: stays until the answer */
    const struct cox_payload *lists; /* effects', STORED ones to be fetched */
    size_t n_lists;
};
struct cox_act_decide {
    uint64_t ticket;
    cox_task_id root;
    struct cox_slice config;          /* engine's: stays until the answer */
    struct cox_payload tools, answer; /* effects', STORED ones to be fetched */
    uint32_t n_reasks;
};
struct cox_act_compose {
    uint64_t ticket;
    cox_task_id root;                   /* owns the value */
    const struct cox_entity_key *parts; /* effects': in order; each was saved: its bytes are what
                                           cox_map_part_outputs reads */
    size_t n_parts;
};
/* Appends the outputs of a saved map page's items, in order ("1,null,3"; a failed item's is null), and its
 * failures ({"index", "code", "message"}, in order, commas between them). Errors: COX_ERR_CORRUPT, also when
 * some item has not ended. Thread: any. */
COX_MUST_CHECK enum cox_err cox_map_part_outputs(struct cox_entity_key key, struct cox_slice bytes,
                                                 struct cox_buf *outputs, struct cox_buf *errors);
struct cox_act_index {
    cox_task_id task;
    enum cox_task_status status; /* as of now; while it lives: PENDING, and the engine knows better */
    int64_t created_wall_ms, finished_wall_ms;
    struct cox_slice name, tenant;  /* effects' */
    const struct cox_label *labels; /* effects' */
    size_t n_labels;
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
        } attempt;                  /* CANCEL, ANSWER, FENCED */
        struct {
            uint32_t session;
            cox_task_id root;
            uint64_t in_ms;
        } expect;
        struct {
            uint32_t session;
            enum cox_err err; /* STALE: a newer stream won; TIMEOUT: silent too long; INVALID */
            const char *message;
        } close;
        struct {
            cox_task_id task;  /* the one that is watched */
            cox_task_id frame; /* where: itself, or a frame in it */
            uint32_t step;     /* COX_IMAGE_NONE: the frame itself */
            uint64_t seq;
            bool final; /* the task has ended */
        } changed;
        struct {
            struct cox_hash hash;
            cox_task_id root;        /* whose it is: kept as long as that task is; 0: for ever */
            struct cox_slice tenant; /* of the root, effects'; empty: none */
            struct cox_slice bytes;  /* effects'; empty: the blob store has it, only note whose it is */
            cox_task_id from;        /* not 0: all that this one owns is `root`'s too; no hash, no bytes */
        } payload;
        struct cox_act_compile compile;
        struct cox_act_compose compose;
        struct cox_act_tools tools;
        struct cox_act_decide decide;
        struct cox_act_index index;
        struct {
            uint64_t ticket;
            cox_task_id root; /* whose it is */
            struct cox_hash hash;
        } fetch;
        struct {
            struct cox_entity_key sleeper; /* id: the task; what STORE_SLEEPER saved under it */
        } load;
        struct {
            uint32_t session;
            cox_task_id task; /* RELEASE */
        } worker;             /* RELEASE, DRAIN */
        struct {
            cox_task_id task;
            cox_task_id root;       /* equal to task, but for frames */
            struct cox_slice bytes; /* effects': what cox_task_thaw reads */
        } archive;
        struct {
            struct cox_entity_key key;
            uint64_t applied_seq;
            struct cox_slice bytes; /* effects' */
        } save;                     /* SAVE, STORE_SLEEPER, FORGET (no bytes) */
        struct {
            cox_task_id root;
            struct cox_entity_key key; /* kind not 0: move this saved entity; 0: a record */
            uint64_t seq;              /* of the record */
            struct cox_slice bytes;    /* effects': the record, framed */
        } aside;                       /* ASIDE */
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

/* Where recovery is: what it is about to do, and for whom. */
struct cox_place {
    enum { /* values are on disk, in the crash note */
           COX_PLACE_NONE = 0,
           COX_PLACE_LOAD = 1,   /* an entity: kind, at = id, sub */
           COX_PLACE_REPLAY = 2, /* a record: kind = type, at = sequence number */
           COX_PLACE_DERIVE = 3  /* what a task is doing: kind = stage, at = task or frame, sub = step */
    } phase;
    uint32_t kind;
    uint32_t sub;
    uint64_t at;
    cox_task_id root; /* whose it is; 0: no task's */
};

struct cox_engine_config {
    uint32_t shard;
    uint64_t seed;           /* backoff jitter only; what it chose is in the records */
    uint32_t live_steps_max; /* admission: 0 means COX_LIVE_STEPS_MAX */
    /* Told of each place before recovery goes there, and of NONE once it is past it, until recovered()
     * returns; NULL: nobody is. After an error the last one told of is the one that it is about. What crashes
     * or fails there again and again is kept out by cox_engine_quarantine. Must not call the engine. */
    void (*on_place)(void *user, const struct cox_place *place);
    void *user;
};
struct cox_engine *cox_engine_create(const struct cox_engine_config *config);
void cox_engine_destroy(struct cox_engine *e);

/* A root that recovery is to leave alone: nothing of it and its frames is loaded, applied or derived. What
 * others refer to stays: ids that are taken, its idempotency key, its payloads, the templates that it may
 * need. Its entities and its records in the log come back as ASIDE actions, and what is known of it goes to
 * the archive as a task that has FAILED, `why` being the message. */
struct cox_quarantined {
    cox_task_id root;
    struct cox_slice why;
    bool unread;   /* do not even look into it: what was read of it crashed as well */
    bool archived; /* the archive has something under its id */
    bool deleted;  /* its records are still to be passed by, and nothing else is to be done about it */
};
/* Before the first load. `image`: a document's, for a task of which nothing can be read. */
void cox_engine_quarantine(struct cox_engine *e, const struct cox_quarantined *q, struct cox_slice image);
bool cox_engine_is_quarantined(const struct cox_engine *e, cox_task_id root);

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

/* The live task, or NULL (unknown, evicted, or in the archive only). Valid until the next step. */
const struct cox_task *cox_engine_find(const struct cox_engine *e, cox_task_id id);
/* It waits and was evicted: any input that names it brings it back, WANT among them. */
bool cox_engine_asleep(const struct cox_engine *e, cox_task_id id);
/* Whose a task is: of one that lives or sleeps; empty: the engine has it not. Of any frame or thawed task. */
struct cox_slice cox_engine_tenant(const struct cox_engine *e, cox_task_id id);
struct cox_slice cox_task_tenant(const struct cox_task *t);
/* Is it a frame that an agent has begun? What a step of it returns beyond COX_TURN_KEPT_LEN_MIN is to be
 * STORED: the step, the frame, its agent and each turn after it name it again. Unknown: false. O(1). */
bool cox_engine_in_agent(const struct cox_engine *e, cox_task_id id);
bool cox_engine_asleep_paused(const struct cox_engine *e, cox_task_id id); /* and it is paused */

/* Frames: a step that expands runs steps of its own in a frame, which is a task under the step. All frames of
 * a task, at any depth, in order of creation: *it starts at NULL; NULL at the end. The next step ends it. */
const struct cox_task *cox_engine_next_frame(const struct cox_engine *e, const struct cox_task *root,
                                             const void **it);
/* A step by its address within the task ("scan[17].0"): the frame it is in, its index there, and the item of
 * a map it names (UINT64_MAX: none). NULL: there is none, or its frame has ended and is in the archive. */
const struct cox_task *cox_engine_find_step(const struct cox_engine *e, const struct cox_task *root,
                                            struct cox_slice address, uint32_t *ret_step, uint64_t *ret_item);
/* Appends the address of a step of a frame within its root. */
void cox_step_address(struct cox_buf *out, const struct cox_task *frame, uint32_t step);
/* The next step that runs in this frame, from `from` on (0 first); COX_IMAGE_NONE at the end. */
uint32_t cox_task_next_step(const struct cox_task *frame, uint32_t from);

struct cox_task_view {
    cox_task_id id;
    cox_task_id root;   /* the task that users know: itself, or what this frame is in */
    cox_task_id parent; /* 0: none */
    uint32_t parent_step;
    uint64_t parent_item; /* UINT64_MAX: none */
    struct cox_slice tenant;
    const struct cox_image *image;
    enum cox_task_status status;
    int64_t created_wall_ms;
    int64_t started_wall_ms, finished_wall_ms; /* 0: not yet */
    enum cox_code code;                        /* of the first error */
    struct cox_slice message;
    uint32_t error_step; /* COX_IMAGE_NONE: no step */
    struct cox_payload outputs;
    uint32_t n_steps_by_status[COX_STEP_STATUS_NR]; /* of a root: those of all its frames, ended ones too */
    uint64_t cpu_us;                                /* the same */
    struct cox_usage usage; /* of all frames under it, too; of an item's: of its own steps */
    bool paused;
    struct cox_slice schedule; /* name of the schedule that made it; empty: none */
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
    COX_REASON_CANCELLING,   /* RUNNING: told to stop */
    COX_REASON_PAUSED,       /* READY, but its task is paused */
    COX_REASON_CONCURRENCY,  /* READY: `concurrency` has no room */
    COX_REASON_RATE,         /* READY: `rate` until `ready_wall_ms` */
    COX_REASON_AFFINITY,     /* READY: the worker it must run on is away or full */
    COX_REASON_VERSION,      /* READY: no worker offers the version it is pinned to */
    COX_REASON_TIMER,        /* WAITING: until `ready_wall_ms` */
    COX_REASON_SIGNAL,       /* WAITING */
    COX_REASON_APPROVAL,     /* WAITING; it expires at `ready_wall_ms`, 0: never */
    COX_REASON_CHILDREN,     /* WAITING: for steps of its own */
    COX_REASON_ITEMS,        /* READY or RUNNING: a map under way */
    COX_REASON_EXPANDING,    /* WAITING: its steps are being compiled, its list or output composed */
    COX_REASON_BUDGET,       /* READY: model calls under way have reserved what is left of a budget */
    COX_REASON_NR
};
/* Facts behind a READY step's reason, for explanations. O(workers). */
struct cox_step_why {
    uint32_t n_workers;  /* attached */
    uint32_t n_offer;    /* of them: offer the handler */
    uint32_t n_version;  /* of these: in the pinned version */
    uint32_t n_labels;   /* of these: satisfy `requires` */
    uint32_t n_fit;      /* of these: have what `resources` asks for in all */
    uint32_t n_cordoned; /* of these: cordoned or draining */
    uint32_t n_free;     /* of these: could take it now */
    uint32_t n_ahead;    /* steps before it in its queue: at least so many */
    struct cox_slice handler, version;
    struct cox_slice gate; /* key of the `concurrency` or `rate` that holds it */
    uint32_t gate_limit, gate_used;
    struct cox_slice worker; /* AFFINITY: which */
};
void cox_step_why(const struct cox_engine *e, const struct cox_task *t, uint32_t step,
                  struct cox_step_why *ret);
struct cox_map_view {
    uint64_t n_items, n_running, n_succeeded, n_failed, n_tolerated;
    uint64_t bytes; /* held in memory for it */
};
/* False: not a map, or not begun. */
bool cox_map_view(const struct cox_task *t, uint32_t step, struct cox_map_view *ret);
struct cox_step_view {
    enum cox_step_status status;
    enum cox_step_reason reason;
    int64_t ready_wall_ms;
    bool via_fallback;  /* SUCCEEDED by it */
    bool in_fallback;   /* attempts from here on are the fallback's */
    enum cox_code code; /* when FAILED, or of the last failed attempt while it retries */
    struct cox_slice message;
    struct cox_payload output;
    struct cox_payload errors, artifacts;
    struct cox_slice waits_for; /* of SIGNAL: its name; APPROVAL: the prompt */
    uint32_t n_attempts;
};
struct cox_attempt_view {
    uint32_t number;
    struct cox_slice worker_id;
    enum cox_attempt_status status;
    int64_t started_wall_ms, finished_wall_ms;
    bool has_exit_code;
    int32_t exit_code;
    enum cox_code code;
    struct cox_slice message;
    uint64_t cpu_us;
    bool fallback;
    cox_task_id frame; /* its steps ran in this frame, archived under this id when it has ended; 0: none */
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
    bool draining, cordoned;
    uint32_t slots, assigned;
    uint64_t free_credit;
    struct cox_resources resources, free_resources;
    int64_t attached_wall_ms;
    const struct cox_label *labels;
    size_t n_labels;
    const struct cox_slice *handlers;
    const struct cox_slice *versions; /* of each handler */
    size_t n_handlers;
};
/* Workers known now, in the order they first attached: *it starts at 0 and names a place that stays good over
 * steps; false at the end. */
bool cox_engine_next_worker(const struct cox_engine *e, size_t *it, struct cox_worker_view *ret);
/* The attempts a worker has, in no promised order: *it starts at NULL; false at the end, or when the worker
 * is not known. The next step ends the iteration. */
bool cox_engine_next_attempt(const struct cox_engine *e, struct cox_slice worker_id, const void **it,
                             struct cox_ref *ret);
/* The session of the worker that has this very attempt, and whose its task is. 0: nobody has it, or its
 * worker is away. */
uint32_t cox_engine_attempt_session(const struct cox_engine *e, struct cox_ref ref,
                                    struct cox_slice *ret_tenant);
/* A model call that a process of an attempt asks for: what the router should know of it, and the input that
 * says that it begins; to be given at once, if it does. The attempt's root; 0: it is not current. */
cox_task_id cox_engine_call_hint(const struct cox_engine *e, struct cox_ref ref,
                                 const struct cox_call_asked *asked, struct cox_call_hint *ret,
                                 struct cox_in_call *ret_call);

struct cox_template_view {
    struct cox_slice tenant, name, document;
    uint32_t major;
    int64_t updated_wall_ms;
};
/* A tenant's, by name and major: the first after this one, which need not exist. False at the end. */
bool cox_engine_next_template(const struct cox_engine *e, struct cox_slice tenant,
                              struct cox_slice after_name, uint32_t after_major,
                              struct cox_template_view *ret);
bool cox_engine_find_template(const struct cox_engine *e, struct cox_slice tenant, struct cox_slice name,
                              uint32_t major, struct cox_template_view *ret);
struct cox_schedule_view {
    struct cox_slice tenant, name, document;
    int64_t last_wall_ms, next_wall_ms; /* 0: none */
    cox_task_id last_task;              /* 0: none */
    uint32_t n_queued;                  /* runs that wait for the last to end */
    uint64_t n_skipped;
};
/* A tenant's, by name: as templates. */
bool cox_engine_next_schedule(const struct cox_engine *e, struct cox_slice tenant,
                              struct cox_slice after_name, struct cox_schedule_view *ret);
bool cox_engine_find_schedule(const struct cox_engine *e, struct cox_slice tenant, struct cox_slice name,
                              struct cox_schedule_view *ret);

#endif
