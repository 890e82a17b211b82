/* coxd in one thread: its own services, sessions, driver and engine, over calls without a wire, a store in
 * memory, a compile thread that is none and a clock that is a number. Nothing in it depends on chance. */
#ifndef COX_FUZZ_COXD_H
#define COX_FUZZ_COXD_H

#include "fuzz.h"

#include "cox/base/list.h"
#include "cox/rpc.h"

struct fuzz_coxd;

/* history: of metrics, once a second. slow: time passes in few steps, for each is dear. */
struct fuzz_coxd *fuzz_coxd_create(bool history, bool slow);
/* Stops it as SIGTERM does, checks what must hold then, and frees it. */
void fuzz_coxd_destroy(struct fuzz_coxd *c);
/* As destroy, then recovers from what was stored. */
void fuzz_coxd_restart(struct fuzz_coxd *c);
void fuzz_coxd_checkpoint(struct fuzz_coxd *c);
void fuzz_coxd_pass(struct fuzz_coxd *c, int64_t ms); /* time, with all that falls due */

/* A method by its name; false: there is none. */
struct fuzz_method {
    const struct cox_rpc_service *service;
    const struct cox_rpc_method *method;
    const ProtobufCMessageDescriptor *input, *output;
    bool takes_many, gives_many;
};
bool fuzz_coxd_find(struct fuzz_coxd *c, struct cox_slice name, struct fuzz_method *ret);

/* Calls are numbered from 0 as they begin. What names a call that has ended does nothing. */
void fuzz_coxd_call(struct fuzz_coxd *c, const struct fuzz_method *m);
uint32_t fuzz_coxd_n_calls(const struct fuzz_coxd *c);
const struct fuzz_method *fuzz_coxd_method(const struct fuzz_coxd *c, uint32_t call); /* NULL: ended */
void fuzz_coxd_send(struct fuzz_coxd *c, uint32_t call, const ProtobufCMessage *message);
void fuzz_coxd_half_close(struct fuzz_coxd *c, uint32_t call);
void fuzz_coxd_cancel(struct fuzz_coxd *c, uint32_t call); /* the caller leaves */
/* Until nothing is left to do at this moment. */
void fuzz_coxd_settle(struct fuzz_coxd *c);

/* ---- fuzz_store.c: include/cox/store.h in memory ---- */
struct cox_store;
struct cox_store *fuzz_store_create(void);
void fuzz_store_free(struct cox_store *s);
void fuzz_store_use(struct cox_store *s); /* what the next cox_store_open opens */
struct cox_slice fuzz_store_log(const struct cox_store *s, uint64_t *ret_n); /* every record ever */
bool fuzz_store_idle(const struct cox_store *s);

/* ---- fuzz_rpc.c: cox/rpc.h without a wire ---- */
struct cox_rpc_call {
    struct fuzz_method m;
    void *user;
    bool opened, said, half_closed; /* by the caller */
    bool ended;                     /* by the service */
    bool left;                      /* the caller has */
    bool closed;                    /* on_closed was */
    enum cox_rpc_status status;
    uint32_t n_sent;
    size_t outbox_len;
};
bool fuzz_rpc_turn(struct cox_rpc_call *call); /* drained, closed; true: something was */

#endif
