/* Words of Coxswain as types: identifiers, statuses, codes. Shared by all parts; holds no behaviour. */
#ifndef COX_TYPES_H
#define COX_TYPES_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

/* A task's number: shard in the top 16 bits, a counter from 1 in the low 48. 0 is no task.
 * Text: "t<shard>-<counter in lower-case Crockford base32, at least 6 digits>", e.g. "t0-00000k". */
typedef uint64_t cox_task_id;
#define COX_TASK_ID_TEXT_MAX 24
void cox_task_id_format(cox_task_id id, char text[COX_TASK_ID_TEXT_MAX]);
COX_MUST_CHECK enum cox_err cox_task_id_parse(struct cox_slice text, cox_task_id *ret_id);

/* The right to report one attempt of one step. Compared whole: a counter alone may repeat after an epoch.
 * {0,0} is no token. */
struct cox_token {
    uint64_t epoch;   /* bumped durably each time a shard starts, before it listens */
    uint64_t counter; /* rises by one an attempt within an epoch */
};
static inline bool cox_token_eq(struct cox_token a, struct cox_token b)
{
    return a.epoch == b.epoch && a.counter == b.counter;
}

/* Names one attempt of one step. */
struct cox_ref {
    cox_task_id task;
    uint32_t step;
    struct cox_token token;
};
static inline bool cox_ref_eq(struct cox_ref a, struct cox_ref b)
{
    return a.task == b.task && a.step == b.step && cox_token_eq(a.token, b.token);
}
/* "TASK/STEP/EPOCH/COUNTER", four decimal numbers: what `cox-attempt` says. */
#define COX_REF_TEXT_MAX 88
void cox_ref_format(struct cox_ref ref, char text[COX_REF_TEXT_MAX]);
COX_MUST_CHECK enum cox_err cox_ref_parse(struct cox_slice text, struct cox_ref *ret);

/* Time as pure parts see it. `mono_ns` never goes back (timeouts, backoff); `wall_ms` is Unix time, clamped
 * by the driver so that it never goes back either (deadlines, records, what people see). */
struct cox_now {
    int64_t mono_ns;
    int64_t wall_ms;
};

/* Values match proto/coxswain/v1/types.proto; a test compares them. */
enum cox_task_status {
    COX_TASK_NONE = 0,
    COX_TASK_PENDING,
    COX_TASK_RUNNING,
    COX_TASK_WAITING,
    COX_TASK_PAUSED,
    COX_TASK_SUCCEEDED,
    COX_TASK_FAILED,
    COX_TASK_CANCELLED,
    COX_TASK_STATUS_NR
};
enum cox_step_status {
    COX_STEP_NONE = 0,
    COX_STEP_BLOCKED, /* waits for dependencies */
    COX_STEP_READY,   /* waits for a worker, or backs off */
    COX_STEP_RUNNING, /* an attempt is assigned */
    COX_STEP_WAITING,
    COX_STEP_SUCCEEDED,
    COX_STEP_FAILED,
    COX_STEP_SKIPPED,
    COX_STEP_CANCELLED,
    COX_STEP_STATUS_NR
};
enum cox_attempt_status {
    COX_ATTEMPT_NONE = 0,
    COX_ATTEMPT_ASSIGNED,
    COX_ATTEMPT_RUNNING,
    COX_ATTEMPT_SUCCEEDED,
    COX_ATTEMPT_FAILED,
    COX_ATTEMPT_TIMED_OUT,
    COX_ATTEMPT_LOST,
    COX_ATTEMPT_CANCELLED,
    COX_ATTEMPT_STATUS_NR
};
static inline bool cox_task_status_final(enum cox_task_status s)
{
    return s >= COX_TASK_SUCCEEDED;
}
static inline bool cox_step_status_final(enum cox_step_status s)
{
    return s >= COX_STEP_SUCCEEDED;
}

/* Why a step failed: the closed list of TASK_FORMAT rule 3. Values are in the log: append only. */
/* clang-format off */
#define COX_CODE_TABLE(X)                                                                     \
    X(NONE) X(EXIT_NONZERO) X(TIMEOUT) X(WORKER_LOST) X(PREEMPTED) X(CANCELLED)               \
    X(OUTPUT_INVALID) X(OUTPUT_TOO_LARGE) X(INPUT_INVALID) X(BUDGET_EXHAUSTED)                \
    X(CONTEXT_LENGTH) X(MODEL_ERROR) X(UNAVAILABLE) X(RESOURCE_EXHAUSTED) X(DENIED)           \
    X(EXPIRED) X(INTERNAL)
/* clang-format on */
#define COX_CODE_ENUM(name) COX_CODE_##name,
enum cox_code { COX_CODE_TABLE(COX_CODE_ENUM) COX_CODE_NR };
#undef COX_CODE_ENUM
const char *cox_code_text(enum cox_code c); /* "EXIT_NONZERO"; NONE gives "" */
bool cox_code_parse(struct cox_slice text, enum cox_code *ret);

const char *cox_task_status_text(enum cox_task_status s); /* "RUNNING" */
const char *cox_step_status_text(enum cox_step_status s);
const char *cox_attempt_status_text(enum cox_attempt_status s);

/* What a class of steps asks of a worker beside a slot, and what a worker has. 0 = not asked for.
 * Integers, so that decisions never use floating point. */
struct cox_resources {
    int64_t cpu_milli;
    int64_t memory_bytes;
    int64_t disk_bytes;
};

/* SHA-256 of a payload's bytes: payloads are named by content. */
struct cox_hash {
    uint8_t b[32];
};
/* "sha256:" and 64 hex digits. */
#define COX_HASH_TEXT_MAX 72
void cox_hash_format(const struct cox_hash *h, char text[COX_HASH_TEXT_MAX]);
bool cox_hash_parse(struct cox_slice text, struct cox_hash *ret); /* nothing but that */

#endif
