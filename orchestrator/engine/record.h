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
                   RECORD_TYPE_END
};

/* What follows the end of an attempt (or a refusal to start one). */
enum record_next {                    /* values are in logs */
                   NEXT_DONE = 0,     /* the step SUCCEEDED */
                   NEXT_RETRY = 1,    /* READY again at retry_wall_ms, charged to `retry` */
                   NEXT_REQUEUE = 2,  /* READY again, charged to the loss limit */
                   NEXT_FALLBACK = 3, /* READY again with the fallback's call */
                   NEXT_FAIL = 4,     /* the step FAILED */
                   NEXT_CANCEL = 5    /* the step is CANCELLED */
};

struct record_submitted {
    struct cox_slice tenant, key, image;
    struct cox_hash document;
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
    struct cox_payload output;
};
struct record_finished {
    enum cox_task_status status;
    enum cox_code code;
    struct cox_slice message;
    struct cox_payload outputs;
};

struct record {
    enum record_type type;
    cox_task_id task; /* all but EPOCH, WORKER_NAMED, PAYLOAD */
    uint32_t step;    /* STEP_*, ASSIGNED, ATTEMPT_ENDED, UNASSIGNED */
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
        } assigned;
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
        struct {
            struct cox_hash hash;
            struct cox_slice bytes;
        } payload;
    } u;
};

/* Appends the framed record. */
void record_encode(struct cox_buf *b, const struct record *r);
/* Reads the next record; slices borrow. False at the end and on damage (in->bad tells them apart).
 * A type this version does not know is damage: a log is never replayed by an older version. */
bool record_decode(struct cox_reader *in, struct record *ret);

/* Payloads and entities share these. */
void payload_encode(struct cox_buf *b, const struct cox_payload *p);
void payload_decode(struct cox_reader *r, struct cox_payload *ret);

#endif
