/* The thread for documents: parsing, hashing, checking and evaluating what is too large for the engine's
 * thread, which must never stall.
 *
 * A piece of work is a struct with two functions: `work` runs on the thread, `done` on the owner's when it
 * drains. Its author embeds it. Place for the answer is taken before the work leaves, so an answer always
 * fits. Thread: one owner for every call.
 */
#ifndef COX_ORCHESTRATOR_COMPILE_H
#define COX_ORCHESTRATOR_COMPILE_H

#include "cox/base/list.h"

#include <stddef.h>

struct cox_compile;

struct cox_work {
    struct cox_list node;
    void (*work)(struct cox_work *w); /* compile thread: touches only what belongs to `w` */
    void (*done)(struct cox_work *w); /* owner's thread */
    size_t len;                       /* bytes it holds, for the bound */
};

#define COX_COMPILE_LEN_MAX ((size_t)256 << 20)

/* `wake` is called from the thread when an answer waits and the owner may be asleep. */
struct cox_compile *cox_compile_create(void (*wake)(void *user), void *user);
/* Finishes what was submitted, without calling `done` for it; that memory goes with the process. */
void cox_compile_destroy(struct cox_compile *c);

/* Never refused: what does not fit the ring waits in order on the owner's side. The owner asks
 * cox_compile_full before it takes in more. */
void cox_compile_submit(struct cox_compile *c, struct cox_work *w);
bool cox_compile_full(const struct cox_compile *c);

/* Calls `done` of whatever is ready. */
void cox_compile_drain(struct cox_compile *c);

#endif
