/* The agent: what a worker decides, as a pure state machine.
 *
 *     cox_agent_step(agent, input) -> actions + next wake-up
 *
 * It holds attempts (queued, running, ended and unanswered), grants credit, keeps results until they are
 * answered, and knows when to dial, to beat, to kill and to leave. It knows no clock, no I/O and no wire:
 * cox-worker drives it with a gRPC stream and processes, the router with a local stream and model calls, the
 * simulator with a fake network and clock, the benchmark with handlers that do nothing.
 *
 * The caller owes it this:
 *   - each thing that happens becomes one input, with a time that never goes back;
 *   - START, KILL and LOG are done as soon as a step returns them;
 *   - COX_AGENT_TURN is the last input of every turn and comes at the latest at cox_agent_wake_ns(): only it
 *     lets timers fire and emits what goes to the orchestrator, so that a turn makes one message;
 *   - SEND_* actions of one turn travel in the order given, all of them or, with the stream, none;
 *   - what the orchestrator sends becomes inputs in the order of the fields of AttachResponse.
 *
 *     cox_agent_step(a, &input, &actions);  ...   handle START, KILL, LOG; actions.len = 0
 *     cox_agent_step(a, &turn, &actions);         handle all; pack SEND_*; actions.len = 0
 *     wait until cox_agent_wake_ns(a)
 *
 * Ownership: slices in inputs are borrowed for the call (they may point into the agent's own START). Pointers
 * in SEND_* actions live until the next step; START's assign lives until the attempt's SLOT_ENDED.
 * Thread: one. Cost: O(1) an input and attempt, O(log slots) for attempts with a time limit; no allocation
 * once warm.
 */
#ifndef COX_AGENT_H
#define COX_AGENT_H

#include "cox/limits.h"
#include "cox/types.h"

struct cox_agent;

#define COX_AGENT_PREFETCH_SLOT_MAX 128u   /* attempts held ready a slot, at most */
#define COX_AGENT_PREFETCH_MAX 4096u       /* and in all */
#define COX_AGENT_KEPT_LEN_MAX (64u << 20) /* unanswered results, bytes; beyond, no new credit */
#define COX_AGENT_WELCOME_LIMIT_MS 10000   /* a stream without Welcome is given up after this */
#define COX_AGENT_DIAL_BACKOFF_MS 100
#define COX_AGENT_DIAL_BACKOFF_MAX_MS 5000
#define COX_AGENT_LINGER_MS 100          /* after DRAINING: assignments still under way come back */
#define COX_AGENT_ANSWER_LIMIT_MS 10000  /* how much longer than its drain a worker waits for answers */
#define COX_AGENT_DRAIN_TIMEOUT_MS 30000 /* defaults of cox-worker's flags */
#define COX_AGENT_ORPHAN_TIMEOUT_MS (10 * 60 * 1000LL)

struct cox_agent_config {
    uint32_t slots;                 /* 1 .. COX_WORKER_SLOTS_MAX */
    struct cox_resources resources; /* what attempts may occupy together; 0: not limited */
    uint32_t n_addresses;           /* dialled in turn; at least 1 */
    int64_t drain_timeout_ms;       /* SHUTDOWN: running attempts are killed after this */
    int64_t orphan_timeout_ms;      /* without an orchestrator for so long: everything is dropped */
    int64_t idle_exit_ms;           /* 0: never */
    size_t kept_len_max;            /* 0: COX_AGENT_KEPT_LEN_MAX */
    uint64_t seed;                  /* jitter of dialling */
};

/* ---------------------------------------------------------------- inputs */

enum cox_agent_input_kind {
    COX_AGENT_TURN, /* the turn ends, or a wake-up time has come */
    /* the stream */
    COX_AGENT_STREAM_OPEN,   /* after DIAL: messages may be sent */
    COX_AGENT_STREAM_CLOSED, /* after DIAL or later, whoever ended it; exactly once a DIAL */
    /* from the orchestrator; any that does not fit the state is ignored or ends the stream */
    COX_AGENT_WELCOME,
    COX_AGENT_ANSWER,
    COX_AGENT_CANCEL,
    COX_AGENT_ASSIGN,
    COX_AGENT_LOG_WANTED,
    COX_AGENT_DRAIN,     /* take nothing new, finish what runs however long that takes, leave */
    COX_AGENT_RECONNECT, /* leave this stream, dial again at once */
    /* from the slots and the host */
    COX_AGENT_SLOT_ENDED, /* exactly once a START, also after KILL */
    COX_AGENT_SHUTDOWN    /* SIGTERM: as DRAIN within drain_timeout_ms; a second one: without waiting */
};

/* Of a model call; see worker_service.proto's CallHint. */
struct cox_agent_hint {
    int32_t priority;
    uint64_t critical_path_ms, deadline_ms, tokens_left; /* 0: not known, none, no such budget */
    uint64_t output_tokens;                              /* 0: as many as it asks for */
    uint32_t siblings;
    bool idempotent;
};

/* What model calls have used. */
struct cox_agent_usage {
    uint64_t model_calls;
    uint64_t input_tokens, output_tokens, cached_input_tokens, wasted_tokens;
    uint64_t cost_micros;
    char currency[8]; /* "": nothing is charged */
};

/* What to run. The agent reads ref, timeout_ms and resources; the rest passes through. */
struct cox_agent_assign {
    struct cox_ref ref;
    uint32_t attempt;    /* 1 for the first */
    uint64_t timeout_ms; /* 0: no limit */
    struct cox_resources resources;
    struct cox_slice task_id; /* as users know it */
    struct cox_slice step_name;
    struct cox_slice handler;
    struct cox_slice spec_json;
    struct cox_slice idempotency_key;
    /* passed through as they are; see worker_service.proto's Assign */
    const struct cox_agent_item *items; /* a batch */
    size_t n_items;
    struct cox_slice version, continuation_json, artifacts_json, workspace, bundle, tenant;
    struct cox_slice snapshot, tree; /* of WorkspaceHome, "sha256:..."; empty: the workspace begins empty */
    uint32_t home;
    struct cox_agent_hint hint;
};
struct cox_agent_item {
    uint32_t index;
    struct cox_slice spec_json;
};
struct cox_agent_item_result {
    uint32_t index;
    enum cox_attempt_status status;
    enum cox_code code;
    struct cox_slice message;
    struct cox_slice output;
};

/* See worker_service.proto's WorkspaceState. */
struct cox_agent_files {
    bool told;  /* false: the attempt had no shared workspace, or did not begin in it */
    bool saved; /* else `note` says why not */
    struct cox_hash tree;
    const struct cox_hash *packs;
    size_t n_packs;
    uint64_t size;
    uint32_t n_files, serial;
    struct cox_slice note;
};

/* How an attempt ended. */
struct cox_agent_result {
    enum cox_attempt_status status; /* SLOT_ENDED: SUCCEEDED or FAILED; SEND_RESULT: any of the four */
    enum cox_code code;             /* NONE if and only if SUCCEEDED */
    struct cox_slice message;
    struct cox_slice output;                            /* JSON; empty: null */
    struct cox_slice artifacts_json, continuation_json; /* empty: none */
    const struct cox_agent_item_result *items;          /* of a batch */
    size_t n_items;
    const struct cox_hash *blobs; /* uploaded for this attempt, referred to above */
    size_t n_blobs;
    struct cox_agent_usage usage; /* of a model call; reported however it ended */
    struct cox_agent_files files;
    bool has_exit_code;
    int32_t exit_code;
    uint64_t cpu_us;
    uint64_t run_us;
    uint64_t max_rss_bytes;
};

struct cox_agent_input {
    int64_t now_mono_ns;
    enum cox_agent_input_kind kind;
    union {
        struct {
            size_t room_len; /* bytes of results that may be emitted now; SIZE_MAX: all */
        } turn;
        struct {
            bool superseded; /* a newer stream of the same worker id won: do not fight for it */
        } closed;
        struct {
            uint64_t shard_uid;
            uint32_t beat_ms;
            uint32_t lost_ms;
        } welcome;
        struct cox_agent_assign assign;
        struct cox_ref ref; /* ANSWER, CANCEL */
        struct {
            struct cox_ref ref;
            bool wanted;
        } log;
        struct {
            uint32_t slot;
            struct cox_agent_result result;
        } ended;
    } u;
};

/* Copies of what passes through: make *ret equal to *src with every slice and array in `body`, which must be
 * empty and is grown once; its length is what the copy costs. */
void cox_agent_copy_assign(struct cox_buf *body, struct cox_agent_assign *ret,
                           const struct cox_agent_assign *src);
void cox_agent_copy_result(struct cox_buf *body, struct cox_agent_result *ret,
                           const struct cox_agent_result *src);

/* ---------------------------------------------------------------- actions */

enum cox_agent_action_kind {
    /* to the slots; from any step */
    COX_AGENT_START, /* slot, assign */
    COX_AGENT_KILL,  /* slot; SLOT_ENDED is still expected. At most once a START */
    COX_AGENT_LOG,   /* slot, wanted: send, or stop sending, the attempt's log */
    /* to the orchestrator; from TURN only */
    COX_AGENT_SEND_HELLO,
    COX_AGENT_SEND_STARTED,  /* ref */
    COX_AGENT_SEND_RESULT,   /* ref, result */
    COX_AGENT_SEND_RETURNED, /* ref */
    COX_AGENT_SEND_CREDIT,   /* granted */
    COX_AGENT_SEND_LOG_END,  /* ref: no more of its log will come */
    COX_AGENT_SEND_DRAINING,
    COX_AGENT_SEND_BEAT,
    /* to the driver; from TURN only */
    COX_AGENT_DIAL,    /* address: open a stream there */
    COX_AGENT_HANG_UP, /* end the stream; why: text for people */
    COX_AGENT_EXIT     /* why; the last action ever. The stream may still be open */
};

struct cox_agent_action {
    enum cox_agent_action_kind kind;
    uint32_t slot;      /* START KILL LOG */
    uint32_t address;   /* DIAL */
    bool wanted;        /* LOG */
    struct cox_ref ref; /* START KILL LOG SEND_STARTED RESULT RETURNED LOG_END */
    union {
        const struct cox_agent_assign *assign;
        const struct cox_agent_result *result;
        struct {
            uint64_t shard_uid;          /* 0: new */
            const struct cox_ref *holds; /* holds[n_holds], oldest kind first: ended, running, queued */
            size_t n_holds;
        } hello;
        uint64_t granted;
        const char *why; /* static */
    } u;
};

/* Zero-initialised is valid and empty. The caller sets len = 0 when it has handled them. */
struct cox_agent_actions {
    struct cox_agent_action *items;
    size_t len;
    size_t cap;
};
void cox_agent_actions_fini(struct cox_agent_actions *actions);

/* ---------------------------------------------------------------- life */

struct cox_agent *cox_agent_create(const struct cox_agent_config *config);
void cox_agent_destroy(struct cox_agent *a); /* NULL is allowed */

/* One input; appends to `actions`. Never fails. After EXIT inputs are ignored. */
void cox_agent_step(struct cox_agent *a, const struct cox_agent_input *in, struct cox_agent_actions *actions);

/* When the next TURN is due; valid after a TURN; INT64_MAX: nothing pending. */
int64_t cox_agent_wake_ns(const struct cox_agent *a);

enum cox_agent_stream {
    COX_AGENT_DOWN,     /* waits to dial */
    COX_AGENT_DIALLING, /* DIAL emitted */
    COX_AGENT_GREETING, /* open; Welcome awaited */
    COX_AGENT_UP,
    COX_AGENT_LEAVING /* HANG_UP emitted */
};
struct cox_agent_stats {
    enum cox_agent_stream stream;
    bool draining;
    uint32_t n_queued, n_running, n_kept; /* held attempts by state; n_kept: ended, unanswered */
    size_t kept_len;                      /* bytes, overhead included */
    uint32_t prefetch;                    /* attempts it would hold ready now beyond its slots */
    uint64_t granted, assigned;           /* on this stream */
    uint64_t n_started, n_ended, n_returned, n_dropped; /* since creation; dropped: forgotten unreported */
};
void cox_agent_stats(const struct cox_agent *a, struct cox_agent_stats *ret);

/* Checks every internal invariant (counts, lists, index); aborts on a broken one. O(held). For tests. */
void cox_agent_check(const struct cox_agent *a);

#endif
