/* A handler and the work that calls it: an attempt makes one call, a batch one an item. */
#ifndef COX_WORKER_HANDLERS_HANDLER_H
#define COX_WORKER_HANDLERS_HANDLER_H

#include "../redact.h"
#include "../tail.h"

#include "cox/agent.h"

#include <event2/event.h>

struct gateway_attempt;

/* What a handler is asked to do. Borrowed until the call is destroyed, `spec` for the start only. */
struct call_args {
    const struct cox_agent_assign *assign; /* spec_json and items are not looked at */
    struct cox_slice spec;                 /* JSON */
    const char *dir;                       /* its working directory */
    const char *spool_dir;                 /* where files without a name are made */
    const char *bundle_dir;                /* NULL: none */
    const char *blobs_dir;                 /* NULL: none */
    const char *const *blobs;              /* files in it, ended by NULL; NULL: none */
    const uint32_t *index;                 /* of an item; NULL: none */
    const struct redactor *redactor;       /* of what must not be told; NULL: nothing */
    bool with_secrets;                     /* `spec` has some: `redactor` is of them, too */
    struct gateway_attempt *gateway;       /* what it may ask the worker for; NULL: nothing */
};

/* Appends what is named for the step, its address or its idempotency key, as this call's own: an item's has
 * its index, for each item is an effect of its own. */
void call_put_own(struct cox_buf *out, const struct call_args *args, struct cox_slice of_step);

/* Bytes that are too many for a result: files without a name, -1 for none. Closed by outcome_fini. */
enum outcome_file { OUTCOME_STDOUT, OUTCOME_STDERR, OUTCOME_OUTPUT, OUTCOME_FILE_NR };

/* What came of it. Zeroed with outcome_init; fields are taken over by whoever is told. */
struct outcome {
    enum cox_code code; /* NONE: it succeeded */
    struct cox_buf message;
    struct cox_buf output;       /* JSON; empty: null */
    struct cox_buf continuation; /* JSON; empty: none */
    int files[OUTCOME_FILE_NR];  /* STDOUT, STDERR: whole, belong to `output`; OUTPUT: is the output */
    bool has_exit_code;
    int exit_code;
    uint64_t cpu_us, max_rss_bytes;
};
void outcome_init(struct outcome *o);
void outcome_fini(struct outcome *o);
struct rusage;
void outcome_used(struct outcome *o, const struct rusage *usage); /* what its process, now reaped, has used */
/* Appends to the message; it stays UTF-8 and within COX_ERROR_MESSAGE_LEN_MAX. */
void outcome_say(struct outcome *o, struct cox_slice text);

struct call;
struct call_ops {
    void (*kill)(struct call *call); /* it still ends; idempotent */
    /* Ended or not: what is left of it is killed at once. */
    void (*destroy)(struct call *call);
};

/* The head of a handler's own struct. */
struct call {
    const struct call_ops *ops;
    struct handler_host *host;
    /* Once a call, never before the start has returned; the call may be destroyed in it. */
    void (*on_done)(struct call *call, struct outcome *outcome);
    void (*on_log)(struct call *call, enum livelog_stream stream, struct cox_slice data);
    void *user;
};

/* What the calls of a thread share; outlives them. */
struct handler_host {
    struct event_base *base;
    struct sandbox *sandbox; /* NULL: only the level none */
    uint8_t read_buf[64 << 10];
};

/* A file without a name in `dir`, close-on-exec; -1 with errno. */
int outcome_file(const char *dir);
/* Appends to such a file; false with errno. */
bool outcome_write(int fd, struct cox_slice data);

#endif
