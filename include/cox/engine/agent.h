/* What is seen of agents: where they are, and what they have begun that has ended. Thread: the engine's; of
 * thawed tasks any. */
#ifndef COX_ENGINE_AGENT_H
#define COX_ENGINE_AGENT_H

#include "cox/engine.h"

struct cox_agent_view {
    uint32_t turn;            /* the present, from 1 */
    uint32_t n_places;        /* of cox_agent_next */
    uint32_t n_heard;         /* words of people that the model has not been told */
    uint32_t n_calls;         /* of the present turn; 0: the model is asked, or is to be */
    uint32_t n_left;          /* of these: have not returned */
    bool asks_model;          /* its call is under way */
    bool undecided;           /* it has answered: that is being read, or what it planned runs */
    struct cox_slice missing; /* not empty: which of its tools no worker offers */
};
/* False: no agent, or not begun. */
bool cox_agent_view(const struct cox_task *t, uint32_t step, struct cox_agent_view *ret);
/* A call of the model that was answered, or of a tool that returned. */
struct cox_agent_entry_view {
    bool is_model;     /* else a tool */
    bool failed;       /* `value` is {"error": ...} */
    uint32_t step;     /* of the image: what it was; COX_IMAGE_NONE: it was answered without a step */
    cox_task_id frame; /* it ran in this one, archived under this id; 0: in none */
    int64_t begun_wall_ms, ended_wall_ms;
    struct cox_payload value;
};
/* Those that have ended, oldest first: *it starts at 0, or at a place before `n_places`; false at the end.
 * Appends the address ("a.t2.look.0"). */
bool cox_agent_next(const struct cox_task *t, uint32_t step, uint32_t *it, struct cox_agent_entry_view *ret,
                    struct cox_buf *address);
/* The frame that has ended and is in the archive, in which the step of this address was; *ret_rest is what
 * names it there, by cox_engine_find_step of the thawed frame. `t`: a root, with frames in memory, or what
 * was thawed. 0: there is none. O(what its agents have said). */
cox_task_id cox_engine_find_ended(const struct cox_engine *e, const struct cox_task *t,
                                  struct cox_slice address, struct cox_slice *ret_rest);

#endif
