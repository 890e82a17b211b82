/* Agents, and plans: turns of a model and of the tools that it asks for, until there is an answer.
 *
 *     request ─> tools known ─> model asked ─> answered ─> decided ─┬─> calls ─> all returned ─┐
 *                                   ^                               ├─> told: it is no answer ─┤
 *                                   └───────────────────────────────┼──────────────────────────┘
 *                                                                   ├─> its output
 *                                                                   └─> a plan: run, its output
 *
 * Each arrow is a fact (record_agent); what is to be done next follows from the facts alone, and agent_go_on
 * does what is missing of it: live, after recovery, and when an ended agent is tried again, which goes on
 * where it was.
 *
 * A call of the model, of a tool, an approval, a list of a server's tools are instances of the agent's inner
 * steps: frames over a range of its image, told apart by AGENT_ITEM. What is said is kept by reference
 * (COX_TURN_KEPT_LEN_MIN): a turn adds what it adds, however long the conversation is.
 *
 * A plan is compiled, and is a frame with an image of its own (agent_plan.c). Once it is compiled the model's
 * part is over: a plan whose steps have failed is tried again without asking, from the answer that is kept.
 */
#ifndef ENGINE_EXPAND_AGENT_H
#define ENGINE_EXPAND_AGENT_H

#include "../state.h"

/* record_frame.item of what an agent has begun: of a turn, from 1, which of its calls; of turn 0, which list
 * of tools. */
#define AGENT_ITEM(turn, n) ((uint64_t)(turn) << 9 | (n))
#define AGENT_ITEM_TURN(item) ((uint32_t)((item) >> 9))
#define AGENT_ITEM_N(item) ((uint32_t)((item)&511u))
#define AGENT_N_APPROVAL COX_TURN_CALLS_MAX /* + the call */
#define AGENT_N_MODEL (2u * COX_TURN_CALLS_MAX)

/* What a call ran in, once it has ended. */
struct agent_ran {
    cox_task_id frame; /* archived under this id; 0: in none */
    int64_t begun_wall_ms, ended_wall_ms;
};

/* What has been said since the request, in order. */
struct agent_entry {
    struct value *value; /* ANSWER: the model step's output. RESULT: the tool's. TEXT: a string */
    char *id;            /* RESULT: of the call in the answer before it */
    char *name;          /* RESULT: of the tool */
    struct agent_ran ran;
    uint32_t turn, step; /* ANSWER, RESULT; step counts from the agent's first inner step */
    enum { AGENT_ANSWER = 1, AGENT_RESULT = 2, AGENT_TEXT = 3 } what; /* values are on disk */
    bool failed;                                                      /* RESULT */
};

/* What the model has asked for in the present turn. */
struct agent_call {
    char *id, *name;
    struct value *args;   /* NULL: answered without a step */
    struct value *result; /* once it has returned */
    struct agent_ran ran; /* the same */
    uint32_t step;        /* counted from the agent's first inner step */
    bool approve, ask, approved, failed;
    struct cox_task *frame; /* derived: of the tool, or of its approval */
};

/* values are on disk */
enum agent_room {
    AGENT_ROOM_SOME = 0, /* as far as is known */
    AGENT_ROOM_NONE = 1, /* the model's call was refused as too long: something is to be left out */
    AGENT_ROOM_MADE = 2  /* it was; refused again, the agent fails */
};
#define AGENT_LEFT_OUT_LEN_MIN 256u /* bytes: shorter results stay */

struct agent {
    /* durable */
    struct value *request; /* what its template came to: the first call of the model */
    struct value *tools;   /* NULL: not known yet */
    struct value **lists;  /* of servers' tools, [n_lists]; NULL: not there yet */
    struct agent_entry *said;
    struct agent_call *calls;
    char **heard; /* what people said since the model was last asked */
    uint32_t n_lists, n_said, cap_said, n_calls, n_heard;
    uint32_t turn;      /* from 1 */
    uint32_t n_reasks;  /* answers in a row that were none */
    bool undecided;     /* the last that was said is an answer, and what follows is not known */
    uint64_t tokens;    /* of its last call that was counted, with what was said before it; 0: unknown */
    uint32_t n_counted; /* entries of `said` in it */
    uint8_t room;       /* enum agent_room */
    /* derived */
    enum cox_code failing; /* it fails so when what it has begun has ended, and why */
    char *why;
    char *missing;                 /* which of its tools no worker offers; NULL: none */
    struct cox_task *model;        /* frame of the model's call under way */
    struct cox_task **list_frames; /* [n_lists] */
    struct cox_list in_unequipped; /* the engine's: some tool is offered by no worker */
    struct step *step;
};

/* ---- agent_state.c: durable ---- */
bool agent_untouched(const struct agent *a);
void agent_encode(struct cox_buf *b, const struct agent *a);
void agent_decode(struct cox_reader *r, struct step *s); /* sets r->bad */
void agent_free(struct agent *a);                        /* NULL is allowed */
void agent_apply(struct step *s, const struct record *r);
bool agent_fits(const struct step *s, const struct record *r); /* replay */
uint32_t agent_n_left(const struct agent *a);                  /* calls that have not returned */

/* ---- agent_spec.c: what the model is asked ---- */
/* Is this step a turn's call of the model? Its spec then, in the effects' memory: how it is put together is
 * written at the router (inference/conversation.h). */
bool agent_spec(struct cox_engine *e, const struct cox_task *t, uint32_t step, struct cox_slice *ret);
/* Bytes of what such a spec only names; 0: it is none. O(what was said). */
uint64_t agent_said_elsewhere(const struct cox_task *t, uint32_t step);

/* ---- agent_context.c: how long the conversation is ---- */
/* The model may be asked: there is room, or room was made (TRIMMED). False: the agent has failed. O(said). */
bool agent_has_room(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice config);
/* Its call was refused as too long. True: it is asked again with less (REFUSED). */
bool agent_makes_room(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice config);
void agent_leave_out(struct agent *a, uint32_t n); /* applies TRIMMED */

/* ---- agent_plan.c: the steps that a model has made ---- */
bool frame_is_plans(const struct cox_task *frame);
void plan_compile(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice plan);
void plan_compiled(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct cox_in_compiled *in);

/* ---- agent.c ---- */
bool step_is_agent(const struct cox_task *t, uint32_t step);
/* Is this frame something that an agent has begun? */
bool frame_is_agents(const struct cox_task *frame);
void agent_begin(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct cox_payload *request);
void agent_say_fact(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct record_agent *what);
void agent_go_on(struct cox_engine *e, struct cox_task *t, uint32_t step);
void agent_frame_ended(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct cox_task *frame,
                       const struct cox_payload *outputs);
void agent_fail(struct cox_engine *e, struct cox_task *t, uint32_t step, enum cox_code code,
                struct cox_slice message); /* when what it has begun has ended */
void agent_stop(struct cox_engine *e, struct cox_task *t, uint32_t step);
/* Recovery: a live frame finds the agent that it is under. */
void agent_frame_back(struct cox_task *frame);
bool agent_waits(const struct cox_task *t, uint32_t step); /* it may go on: nothing stops or fails it */
/* What it is told of its answer, which was none; an empty text: to look at what people said. */
void agent_tell(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice text);
/* Answers to TOOLS and DECIDE. */
void agent_equipped(struct cox_engine *e, const struct evaluation *ev, const struct cox_in_evaluated *in);
void agent_decided(struct cox_engine *e, const struct evaluation *ev, const struct cox_in_decided *in);
void agents_equip_more(struct cox_engine *e); /* workers have come */
/* A person's word, heard with the next turn. Errors: COX_ERR_INVALID: it does not run. */
enum cox_err agent_hear(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice text);

/* ---- agent_view.c ---- */
/* Appends ".t2.python.0": behind the agent's address, that of what it has begun. */
void agent_address(struct cox_buf *out, const struct cox_task *frame);

#endif
