/* Log records: the facts a shard's history is made of.
 *
 * A record is framed as u8 type, u32 body length, body; all integers little-endian. Bodies only ever grow at
 * their end: a reader takes what it knows and finds zeroes where an older writer stopped, so a newer version
 * replays any older log. Records say what was decided (backoff times, tokens, branches), never how to decide.
 */
#ifndef ENGINE_RECORD_H
#define ENGINE_RECORD_H

#include "cox/engine.h"

enum record_type { /* values are in logs: append only, never reuse */
                   RECORD_EPOCH = 1,
                   RECORD_TASK_SUBMITTED = 2,
                   RECORD_STEP_OPENED = 3,
                   RECORD_STEP_SKIPPED = 4,
                   RECORD_STEP_REFUSED = 5,
                   RECORD_ASSIGNED = 6,
                   RECORD_ATTEMPT_ENDED = 7,
                   RECORD_UNASSIGNED = 8,
                   RECORD_WORKER_NAMED = 9,
                   RECORD_TASK_STOPPING = 10,
                   RECORD_TASK_FINISHED = 11,
                   RECORD_TASK_ARCHIVED = 12,
                   RECORD_PAYLOAD = 13,
                   RECORD_KEY_EXPIRED = 14,
                   /* expansion */
                   RECORD_STEP_CANCELLED = 15, /* without an attempt */
                   RECORD_STEP_RESET = 16,     /* an inner step, before its owner tries again: BLOCKED */
                   RECORD_WAITING = 17, /* an attempt that no worker runs has begun; ATTEMPT_ENDED ends it */
                   RECORD_FRAME_OPENED = 18, /* `task` is the new frame's id */
                   RECORD_CONTINUED = 19,    /* what a program asked for is done: it is called again */
                   RECORD_MAP_BEGUN = 20,
                   RECORD_ITEMS_ASSIGNED = 21,
                   RECORD_ITEMS_ENDED = 22,
                   RECORD_ITEMS_UNASSIGNED = 23,
                   /* words to a task */
                   RECORD_SIGNALLED = 24,
                   RECORD_TASK_PAUSED = 25,
                   RECORD_TASK_RESUMED = 26,
                   RECORD_TASK_EVICTED = 27,
                   RECORD_TASK_WOKEN = 28,
                   RECORD_TASK_REVIVED = 29, /* an ended task runs again */
                   RECORD_TASK_FORKED = 30,  /* `task` is new */
                   RECORD_PINNED = 31,       /* a program's version, for the task */
                   /* what operators keep */
                   RECORD_POLICY = 32,
                   RECORD_TEMPLATE_APPLIED = 33,
                   RECORD_TEMPLATE_DROPPED =
                       34, /* a revision that is superseded or deleted, and used by no task */
                   RECORD_SCHEDULE_APPLIED = 35,
                   RECORD_SCHEDULE_DELETED = 36,
                   RECORD_SCHEDULE_RAN = 37,
                   RECORD_USAGE = 38, /* `task` is the root */
                   RECORD_WORKSPACE =
                       39, /* of the step that owns it: where its files are, what they were saved as */
                   RECORD_CALL_BEGUN = 40, /* a process of an attempt calls a model; `task` is its frame */
                   RECORD_AGENT = 41,
                   RECORD_TYPE_END
};

/* Where in the state a record's fact is kept. */
enum record_place {
    PLACE_STEP_PAGE,
    PLACE_MAP_PAGE,
    PLACE_ELSEWHERE /* a task's header, or no task at all */
};

enum record_place record_place(enum record_type type);

/* What follows the end of an attempt (or a refusal to start one). */
enum record_next {                    /* values are in logs */
                   NEXT_DONE = 0,     /* the step SUCCEEDED */
                   NEXT_RETRY = 1,    /* READY again at retry_wall_ms, charged to `retry` */
                   NEXT_REQUEUE = 2,  /* READY again, charged to the loss limit */
                   NEXT_FALLBACK = 3, /* READY again with the fallback's call */
                   NEXT_FAIL = 4,     /* the step FAILED */
                   NEXT_CANCEL = 5,   /* the step is CANCELLED */
                   NEXT_CONTINUE = 6  /* WAITING for the steps it asked for, then READY again; not charged */
};

struct record_submitted {
    struct cox_slice tenant, key, image;
    struct cox_hash document;
    struct cox_slice schedule; /* name of the schedule that made it */
    struct cox_slice pins;     /* u64 each: the revision of each template that the image names, 0: none */
};
struct record_ended {
    struct cox_token token;
    enum cox_attempt_status status;
    enum cox_code code;
    enum record_next next;
    bool has_exit_code;
    int32_t exit_code;
    uint64_t cpu_us;
    int64_t retry_wall_ms;
    struct cox_slice message;
    struct cox_payload output; /* CONTINUE: {"steps", "state"} */
    struct cox_payload artifacts, errors;
    uint64_t took_signal; /* the signal that ended a wait, from 1; 0: none */
};
/* A frame is a task under a step. */
struct record_frame {
    cox_task_id parent;
    uint32_t parent_step;
    struct cox_token token; /* of the step's attempt */
    uint64_t item;          /* of a map; UINT64_MAX: none */
    uint32_t first;         /* a range of the parent's image: first step */
    struct cox_slice image; /* its own image; empty: that range */
    struct cox_payload item_json, args;
    struct cox_slice pins; /* its own image's, as in record_submitted */
};
struct record_item {
    uint32_t index;
    enum record_next next; /* DONE, RETRY, REQUEUE, FAIL, CANCEL */
    enum cox_code code;
    int64_t retry_wall_ms;
    struct cox_slice message;
    struct cox_slice output; /* DONE: JSON */
};
/* What an agent has come to (expand/agent.h). */
enum agent_fact {                     /* values are in logs */
                  AGENT_BEGUN = 1,    /* value: the request; index: how many lists of tools it waits for */
                  AGENT_LISTED = 2,   /* value: list `index` of a server's tools */
                  AGENT_EQUIPPED = 3, /* value: its tools */
                  AGENT_ANSWERED = 4, /* value: what the model said; index: tokens it was given, 0: unknown */
                  AGENT_CALLED = 5,   /* text: the calls of a decision (cox/turn.h) */
                  AGENT_APPROVED = 6, /* call `index` may run */
                  AGENT_RETURNED = 7, /* value: what came of call `index` */
                  AGENT_TOLD = 8,     /* text: what the model is told of its answer; failed: it was none */
                  AGENT_HEARD = 9,    /* text: a person's word */
                  AGENT_TRIMMED = 10, /* long results among the first `index` entries are left out */
                  AGENT_REFUSED = 11  /* the model's server found the conversation too long */
};
struct record_agent {
    enum agent_fact what;
    uint32_t index;
    bool failed;
    cox_task_id frame;     /* ANSWERED, RETURNED: what it ran in */
    int64_t begun_wall_ms; /* the same; 0: in none */
    struct cox_payload value;
    struct cox_slice text;
};
struct record_finished {
    enum cox_task_status status;
    enum cox_code code;
    struct cox_slice message;
    struct cox_payload outputs;
};

/* Tokens of a model call that begins (budget.h): what it may use at most, and what it is taken to have used
 * when nobody ever says. Zeroes: it is none, or an older version did not write it down. */
struct reservation {
    uint64_t reserved, guessed;
};

/* What enters the ledger of a root, of the frame whose attempt it was, and of the accounts between them. */
struct record_usage {
    cox_task_id frame;      /* 0: the root itself */
    struct cox_token token; /* of the attempt */
    struct cox_usage usage;
    uint64_t guessed;       /* tokens of an attempt that ended without a word: wasted until it comes */
    uint64_t settled;       /* the word has come: so many had been guessed */
    uint64_t n_steps;       /* of a frame that was opened */
    struct cox_slice above; /* u64 each: accounts between the frame and the root */
    uint32_t n_ended;       /* of the calls of the attempt's processes; `released` goes with them */
    struct reservation released;
};

struct record {
    enum record_type type;
    cox_task_id task; /* all but EPOCH, WORKER_NAMED, POLICY; PAYLOAD: whose it is */
    uint32_t step;    /* what is about a step or its items */
    int64_t wall_ms;  /* when, for what people see */
    union {
        uint64_t epoch;
        struct record_submitted submitted;
        struct { /* STEP_REFUSED: no attempt was made, the step's input cannot be computed */
            enum record_next next; /* FALLBACK or FAIL */
            enum cox_code code;
            struct cox_slice message;
        } refused;
        struct {
            struct cox_token token;
            uint32_t worker;
            struct reservation call; /* of a model step */
        } assigned;
        struct {
            struct cox_token token; /* of the attempt */
            struct reservation of;
        } call;
        struct record_ended ended;
        struct {
            struct cox_token token;
            bool returned; /* it never ran: leaves no trace; else its worker did not have it */
        } unassigned;
        struct {
            uint32_t ref;
            struct cox_slice id;
        } worker;
        struct {                       /* steps without an attempt become CANCELLED at once */
            enum cox_task_status into; /* CANCELLED, or FAILED (fail_fast, deadline) */
            enum cox_code code;
            struct cox_slice message;
        } stopping;
        struct record_finished finished;
        struct record_usage usage;
        struct cox_slice workspace; /* files_encode() */
        struct {                    /* WAITING; token as in ASSIGNED */
            struct cox_token token;
            int64_t wake_wall_ms;    /* 0: no time of its own */
            struct cox_slice detail; /* APPROVAL: the prompt. WAIT signal: its name */
        } waiting;
        struct record_frame frame;
        struct record_agent agent;
        struct {
            struct cox_payload outputs; /* of the steps it asked for */
            uint64_t cpu_us;            /* of these steps */
        } continued;
        struct {
            uint32_t n_items;
            struct cox_payload items;
        } map;
        struct { /* ITEMS_ASSIGNED, ITEMS_UNASSIGNED; all of one map page */
            struct cox_token token;
            uint32_t worker;
            uint32_t first, n;
            bool returned;           /* UNASSIGNED, as `unassigned` */
            struct reservation call; /* ASSIGNED, as `assigned` */
        } items;
        struct { /* ITEMS_ENDED; all of one map page */
            struct cox_token token;
            uint64_t cpu_us;
            struct cox_slice items; /* encoded record_item, see record_item_next */
            uint32_t n;
        } items_ended;
        struct {
            struct cox_slice name;
            struct cox_payload payload;
        } signalled;
        struct {
            int64_t wake_wall_ms; /* 0: only a word wakes it */
        } evicted;
        struct {
            struct cox_slice bytes; /* the frozen tree */
        } woken;                    /* WOKEN, REVIVED */
        struct {
            struct cox_slice bytes; /* the frozen task it begins as, changes already made */
            struct cox_slice tenant, key;
            struct cox_hash document;
            cox_task_id from;
        } forked;
        struct {
            uint32_t class_index;
            struct cox_slice version;
        } pinned;
        struct {
            uint32_t ref;
            bool cordoned;
        } policy;
        struct { /* `task` field of the record is the revision's number */
            struct cox_slice tenant, name, document;
            uint32_t major;
            bool deleted; /* DROPPED: the name is gone, tasks may need the revision still; else it is gone
                             itself */
        } template;
        struct { /* `task` field is the schedule's number */
            struct cox_slice tenant, name, document, image, cron, zone;
            uint8_t overlap;
            int64_t catch_up_ms;
            int64_t next_wall_ms;
        } schedule;
        struct {
            cox_task_id made;     /* 0: none, it was skipped or queued */
            int64_t due_wall_ms;  /* the run this is about */
            int64_t next_wall_ms; /* 0: never again */
            uint32_t n_queued;
            uint32_t n_skipped; /* runs that will not be made, this one included; `due` is the last of them */
        } ran;
        struct {
            struct cox_hash hash;
            struct cox_slice bytes;
            struct cox_slice tenant; /* empty: the default one. When it is replayed, the task may have left */
        } payload;
    } u;
};

/* Appends the framed record. */
void record_encode(struct cox_buf *b, const struct record *r);
/* Reads the next record; slices borrow. False at the end and on damage (in->bad tells them apart).
 * A type this version does not know is damage: a log is never replayed by an older version. */
bool record_decode(struct cox_reader *in, struct record *ret);

/* Items of ITEMS_ENDED. */
/* Of what is kept as a C string and found by its bytes: with a NUL in it, it would be two names. */
struct cox_slice record_get_name(struct cox_reader *r);

void record_item_encode(struct cox_buf *b, const struct record_item *item);
bool record_item_next(struct cox_reader *in, struct record_item *ret);

/* Payloads and entities share these. */
void payload_encode(struct cox_buf *b, const struct cox_payload *p);
void payload_decode(struct cox_reader *r, struct cox_payload *ret);

#endif
