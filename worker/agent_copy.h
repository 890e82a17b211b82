/* Copies of what passes through the agent, each in one buffer. Pure. */
#ifndef COX_WORKER_AGENT_COPY_H
#define COX_WORKER_AGENT_COPY_H

#include "cox/agent.h"

/* Makes *ret equal to *src with every slice and array in `body`, which must be empty and is grown once; its
 * length is what the copy costs. */
void agent_copy_assign(struct cox_buf *body, struct cox_agent_assign *ret,
                       const struct cox_agent_assign *src);
void agent_copy_result(struct cox_buf *body, struct cox_agent_result *ret,
                       const struct cox_agent_result *src);

#endif
