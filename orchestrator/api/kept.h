/* Calls about what operators keep: templates.c, schedules.c. */
#ifndef COX_ORCHESTRATOR_API_KEPT_H
#define COX_ORCHESTRATOR_API_KEPT_H

#include "internal.h"

#define COX_KEPT_PAGE_DEFAULT 100u
#define COX_KEPT_PAGE_MAX 1000u

struct cox_kept_call {
    struct cox_op op;
    struct cox_arena arena;
    struct cox_hold hold;
    struct cox_requested requested;
    const ProtobufCMessage *message; /* the answer, or `error`: in the arena */
    const struct cox_rpc_error *error;
    const char *noun;      /* "template" */
    struct cox_slice name; /* what the call is about, in the arena */
    uint32_t major;
    void (*show)(struct cox_kept_call *k); /* the engine has done it: sets `message` */
    /* apply */
    struct cox_work work;
    struct cox_task_source source;
    enum cox_err err;
    struct cox_buf image;
    struct cox_violations violations;
    void (*compiled)(struct cox_kept_call *k); /* compile thread, after compiling; may add violations */
    void (*feed)(struct cox_kept_call *k);     /* the engine's thread: makes the input, cox_kept_step */
    void (*free_own)(struct cox_kept_call *k); /* what `compiled` made; NULL: nothing */
};
#define COX_KEPT_NEW(type, api, rpc_call) ((type *)cox_kept_create(api, rpc_call, NOUN, sizeof(type)))
/* `size`: of a struct that has cox_kept_call first. */
void *cox_kept_create(struct cox_api *a, struct cox_rpc_call *call, const char *noun, size_t size);
/* Compiles `document` as `kind`, then `compiled`, then `feed`; or fails the call. */
void cox_kept_apply(struct cox_kept_call *k, ProtobufCBinaryData document, enum cox_source_kind kind);
/* The input is given to the engine; its answer makes `show` and leaves, or the call fails. */
void cox_kept_step(struct cox_kept_call *k, struct cox_input *in);
/* `message` or `error` is set: leaves once what it shows is durable. */
void cox_kept_answer(struct cox_kept_call *k);
void cox_kept_fail(struct cox_kept_call *k, enum cox_rpc_status status, const char *reason, const char *fmt,
                   ...) __attribute__((format(printf, 4, 5)));
void cox_kept_missing(struct cox_kept_call *k); /* sets `error`: there is none of this name */
/* On the compile thread: refuses the document. */
void cox_kept_violation(struct cox_kept_call *k, const char *path, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* "name" or "name@major"; major 0: none was given. False: it is neither. */
bool cox_kept_ref(const char *text, struct cox_slice *ret_name, uint32_t *ret_major);
uint32_t cox_kept_page(uint32_t asked);

#endif
