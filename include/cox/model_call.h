/* What the engine knows of model calls: what they used, what they may use, and those that processes of
 * attempts make. Part of engine.h's contract, and read through it.
 */
#ifndef COX_MODEL_CALL_H
#define COX_MODEL_CALL_H

#include "cox/types.h"

/* What model calls used. */
struct cox_usage {
    uint64_t model_calls;
    uint64_t input_tokens, output_tokens;
    uint64_t cached_tokens; /* of the input */
    uint64_t wasted_tokens; /* beside them: of calls that nothing came of */
    uint64_t cost_micros;
    char currency[8]; /* NUL-terminated; "": nothing was charged */
};

/* ---- inputs ---- */

/* A call that the orchestrator's own edge lets in for a process of an attempt. It is under way, and so its
 * task stays, until a SPEND says that it has ended; a restart of the engine ends it. */
struct cox_in_call {
    struct cox_ref ref;
    uint64_t reserved, guessed; /* tokens */
};
struct cox_in_spend {
    uint32_t session; /* who is told when it is to stop */
    struct cox_ref ref;
    struct cox_usage usage; /* since the last word */
    uint32_t n_ended;       /* calls of it that have ended since, and what they had reserved */
    uint64_t released, released_guess;
};

/* ---- what is said of them ---- */

/* What the graph says of a model call; zeroes for other attempts. */
struct cox_call_hint {
    int32_t priority;
    uint64_t critical_path_ms; /* of what can only follow it; 0: nothing, or not known */
    uint64_t deadline_ms;      /* from now; 0: none */
    uint64_t tokens_left;      /* of the budget; 0: no such budget */
    uint64_t output_tokens;    /* the budget lets it answer with no more than so many; 0: any number */
    uint32_t siblings;         /* steps that those after it wait for as well */
    bool idempotent;
    bool spent,
        waits; /* of a process's call: a budget has nothing left, or has only what others have reserved */
};
/* A model call that a process of an attempt asks for. */
struct cox_call_asked {
    uint64_t len;           /* bytes of the request */
    uint64_t output_tokens; /* that the answer may have in all; 0: it does not say */
};

#endif
