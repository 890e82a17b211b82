/* What a turn has to say, as one AttachRequest. The message lives in the arena; bytes in it are borrowed. */
#ifndef COX_WORKER_SESSION_PACK_H
#define COX_WORKER_SESSION_PACK_H

#include "session.h"

#include "cox/base/arena.h"

#include <coxswain/v1/worker_service.pb-c.h>

/*   programs      announced by Hello; may be NULL
 *   acts[n_acts]  the agent's; those that are not SEND_* are skipped
 *   logs[n_logs]  SLOTS_LOG replies
 * Returns NULL when there is nothing to say. */
Coxswain__V1__AttachRequest *session_pack(struct cox_arena *arena, const struct session_config *config,
                                          const struct catalogue_view *programs,
                                          const struct cox_agent_action *acts, size_t n_acts,
                                          struct slots_reply *const *logs, size_t n_logs);

#endif
