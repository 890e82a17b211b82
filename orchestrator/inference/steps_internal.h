/* Shared by steps.c (the stream, the agent, the turn) and step_call.c (one attempt). */
#ifndef COX_ORCHESTRATOR_INFERENCE_STEPS_INTERNAL_H
#define COX_ORCHESTRATOR_INFERENCE_STEPS_INTERNAL_H

#include "said.h"
#include "step_answer.h"
#include "step_blob.h"
#include "step_input.h"
#include "steps.h"

#include "cox/base/map.h"

/* A running attempt: one call of the router. */
struct step_call {
    struct steps *steps; /* NULL: abandoned */
    uint32_t slot;
    const struct cox_agent_assign *assign; /* the agent's, until it hears SLOT_ENDED */
    int64_t started_ns;
    struct router_call *call; /* NULL: none is under way */

    /* the call */
    struct step_answer answer;
    int http_status;
    struct cox_buf model, refusal;
    struct cox_slice schema;
    enum cox_err spoilt; /* what came is of no use: it is being cancelled */

    /* large values */
    size_t held_len;              /* ours of steps->held_len */
    struct cox_slice request;     /* of an agent's turn: its first, once that is there */
    int64_t cache_ms;             /* 0: none */
    struct step_input input;      /* that it refers to */
    struct step_fetch *fetches;   /* NULL: none was needed yet */
    uint32_t next_ref, n_fetches; /* of input.refs, to be fetched; those under way */
    size_t fetched_len;
    struct conversation conversation; /* an agent's turn; n_parts 0: it is none */
    struct said **said;               /* what its parts come to, [n_parts]; NULL: not there yet */
    uint32_t next_part;
    size_t said_len;
    struct cox_buf begun;      /* what `request` is of, where it was fetched */
    struct step_blob *keeping; /* the output is being stored; NULL: it is not */
    struct cox_hash kept;
    bool is_kept;

    /* its text, for who watches */
    bool log_wanted, log_anew;
    size_t log_sent_len;
    struct cox_list chatty; /* there may be more to send */

    /* how it ended */
    enum cox_attempt_status status;
    enum cox_code code;
    struct cox_buf message, output;
    struct cox_agent_item_result item; /* the same, of an item of a map: batches have one */
    struct cox_agent_usage usage;
    struct cox_list node; /* among those to be cancelled, or ended */
};

struct steps {
    struct steps_config config;
    struct cox_agent *agent;
    struct cox_agent_actions actions;
    struct cox_arena arena;
    struct step_call **slots;
    struct cox_list spoilt, ended, chatty; /* struct step_call */
    struct cox_list released;              /* texts of those that have ended, for their last words */
    struct event *turn;
    bool in_turn;
    char boot_id[33];
    bool is_open, welcomed;
    bool leaves; /* the agent has nothing more to say: its stream closes once others have nothing either */
    size_t unread_len;            /* sent, and not yet taken by the engine */
    struct cox_mapb programs;     /* task id -> struct step_program */
    struct cox_list program_list; /* least recently used first */
    uint64_t n_calls;
    size_t held_len; /* of all calls; see steps_config.held_len_max */
    struct said_cache said;
    bool ending; /* nothing of the port is to be called any more */
};

void steps_stir(struct steps *s); /* something has happened: a turn is due */

struct step_call *step_call_start(struct steps *s, uint32_t slot, const struct cox_agent_assign *assign);
void step_call_kill(struct step_call *c);
void step_call_destroy(struct step_call *c); /* whose call is over */
void step_call_abandon(struct step_call *c); /* it is cancelled, and freed when it has ended */

/* ---- within an attempt: step_call.c ---- */

/* How it ends, unless it is told otherwise. */
void step_call_fail(struct step_call *c, enum cox_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void step_call_end(struct step_call *c); /* the call is over, or never began */
void step_call_ask(struct step_call *c, struct cox_slice request);
void step_call_send(struct step_call *c, struct cox_buf *body); /* the same, as it goes out; taken over */

/* ---- step_values.c: what is too large for a message ---- */

/* Asks with the request, once it has in it what it refers to; or fails. */
void step_values_fetch(struct step_call *c);
/* The same of an agent's turn. */
void step_values_converse(struct step_call *c, struct cox_slice conversation);
/* Ends with the output, once it is stored if it is too large for a result; or fails. */
void step_values_keep(struct step_call *c);
/* It holds so many bytes now. False: all calls together hold too many, and it has got more. */
bool step_values_hold(struct step_call *c, size_t len);
bool step_values_stop(struct step_call *c); /* false: nothing was being fetched or stored */
void step_values_fini(struct step_call *c);

/* ---- */

/* What is told of one in steps->ended; borrowed. */
struct cox_agent_result step_call_result(struct step_call *c);

#endif
