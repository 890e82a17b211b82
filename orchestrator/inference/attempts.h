/* Model calls that the processes of attempts make by themselves: whose they are, what they have spent, and
 * how they end when their attempt is not current any more.
 *
 *     begin -> admit -> ... -> end(books) -> take (a Spend for the engine)
 *        |        '- fence: cancelled, and the key is worth nothing
 *        '- refuse: the engine does not let it in
 *
 * A call begins before the engine is asked whether it lets it in: so no fence is missed that the engine says
 * after that, whichever of its two answers comes first.
 *
 * What a call has spent is to be taken in the same turn in which it ended, so that it reaches the engine
 * before the result of a process that has read its answer. While calls are under way each of their attempts
 * is named ATTEMPTS_LOOK_MS after it was named last, with nothing spent: the engine says which of them are
 * fenced. At most ATTEMPTS_LOOKS_MAX are, in ATTEMPTS_TICK_MS: with more than 10,000 it takes longer.
 *
 * Thread: one, the edge's.
 */
#ifndef COX_ORCHESTRATOR_INFERENCE_ATTEMPTS_H
#define COX_ORCHESTRATOR_INFERENCE_ATTEMPTS_H

#include "cox/base/list.h"
#include "cox/types.h"

#include <event2/event.h>

struct attempts;
struct router_books;

#define ATTEMPTS_LOOK_MS 1000
#define ATTEMPTS_TICK_MS 50
#define ATTEMPTS_LOOKS_MAX 512u

struct attempts_config {
    struct event_base *base;
    /* There is something to take. From the loop, once until attempts_take has said that there is not. */
    void (*on_spend)(void *user);
    void *user;
};
struct attempts *attempts_create(const struct attempts_config *config);
void attempts_destroy(struct attempts *a); /* after its calls. NULL is allowed */

/* Tokens that the engine has reserved for a call, and would take it to have used. */
struct attempts_promise {
    uint64_t reserved, guessed;
};

/* A call; the caller's memory. Private. */
struct attempt_call {
    struct cox_list node;
    struct attempt *attempt; /* NULL: not begun, or ended */
    bool admitted, fenced;
    struct attempts_promise promise;
    void (*on_fenced)(void *user);
    void *user;
};
/* on_fenced: the attempt is not current any more, the call is to be cancelled; at most once, once it was
 * admitted. What it has spent is told by `end` all the same. */
void attempts_begin(struct attempts *a, struct attempt_call *c, struct cox_ref ref,
                    void (*on_fenced)(void *user), void *user);
/* The engine lets it in, and waits for its end. False: it has been fenced meanwhile, and is over. */
bool attempts_admit(struct attempts *a, struct attempt_call *c, struct attempts_promise promise);
/* It does not, or nobody wants to know any more: it is over, and nothing of it is told. */
void attempts_refuse(struct attempts *a, struct attempt_call *c);
void attempts_end(struct attempts *a, struct attempt_call *c, const struct router_books *books);

/* ---- to and from the engine ---- */

struct attempts_spend {
    struct cox_ref ref;
    uint64_t n_calls, input_tokens, output_tokens, cached_tokens, wasted_tokens, cost_micros;
    char currency[8];
    uint32_t n_ended; /* calls, also those that were refused; `released` was theirs */
    struct attempts_promise released;
};
/* What is to be told next; it is ours no more. False: nothing. */
bool attempts_take(struct attempts *a, struct attempts_spend *ret);
/* Calls are under way, or something is to be told. */
bool attempts_any(const struct attempts *a);
/* The engine said so: its calls are told, and it spends nothing more. */
void attempts_fence(struct attempts *a, struct cox_ref ref);

#endif
