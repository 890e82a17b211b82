/* What is said on a stream of WorkerService.Attach: between its messages and the agent's inputs and actions
 * (cox/agent.h). For whoever is a worker, over whatever carries the messages. No I/O. Thread: any.
 */
#ifndef COX_ATTACH_H
#define COX_ATTACH_H

#include "cox/agent.h"
#include "cox/base/arena.h"

#include <coxswain/v1/worker_service.pb-c.h>

/* The worker that model steps go to: coxd's own, and nobody else's. */
#define COX_ATTACH_ROUTER_ID "router"

struct cox_attach_label {
    const char *key;
    const char *value;
};
struct cox_attach_program {
    const char *handler; /* "name@major" */
    const char *name;
    const char *version;
    const char *description;
    struct cox_slice input_schema, output_schema;
    bool idempotent;
};

/* What Hello says of the worker. */
struct cox_attach_who {
    const char *worker_id;
    const char *boot_id;
    const char *version;
    uint32_t slots;
    struct cox_resources resources;
    const struct cox_attach_label *labels;
    size_t n_labels;
    const char *const *handlers; /* beside those of programs */
    size_t n_handlers;
    const struct cox_attach_program *programs;
    size_t n_programs;
};

/* A piece of an attempt's log. */
struct cox_attach_log {
    struct cox_ref ref;
    Coxswain__V1__LogStream stream;
    struct cox_slice bytes; /* at most COX_ATTACH_LOG_LEN_MAX */
    bool dropped;           /* pieces before it, or it begins anew */
};
#define COX_ATTACH_LOG_LEN_MAX ((size_t)64 << 10)

/* What the processes of an attempt have spent since the last word. */
struct cox_attach_spend {
    struct cox_ref ref;
    struct cox_agent_usage usage;
    uint32_t n_ended; /* calls, and what the engine had reserved for them */
    uint64_t released, released_guess;
};

/* What a turn has to say. Actions that are not SEND_* are skipped. */
struct cox_attach_turn {
    const struct cox_agent_action *acts;
    size_t n_acts;
    const struct cox_attach_log *logs;
    size_t n_logs;
    const struct cox_attach_spend *spends;
    size_t n_spends;
};

/* As one message, which lives in the arena; bytes in it are borrowed. NULL: there is nothing to say. */
Coxswain__V1__AttachRequest *cox_attach_pack(struct cox_arena *arena, const struct cox_attach_who *who,
                                             const struct cox_attach_turn *turn);

/* Does everything in it name its attempt? */
bool cox_attach_named(const Coxswain__V1__AttachResponse *m);
struct cox_ref cox_attach_ref(const Coxswain__V1__AttemptRef *m);

/* The agent's inputs in a message for which cox_attach_named is true, in the order of its fields. Of the
 * rest, `released`, `fenced` and `expects` are the caller's to read. */
typedef void cox_attach_feed(void *user, struct cox_agent_input *in);
void cox_attach_read(const Coxswain__V1__AttachResponse *m, cox_attach_feed *feed, void *user);

#endif
