/* Whose a model call is, when a worker makes it for the process of a step: said in the request's head, and
 * asked of the engine's thread. Thread: the edge's. */
#ifndef COX_ORCHESTRATOR_EDGE_CLAIM_H
#define COX_ORCHESTRATOR_EDGE_CLAIM_H

#include "internal.h"

enum claim_found { CLAIM_NONE, CLAIM_MADE, CLAIM_MALFORMED };
/* cox-attempt, cox-session and cox-tenant; each at most once. NONE: there is no cox-attempt. */
enum claim_found claim_read(const struct edge_head *h, struct cox_edge_claim *ret);

/* The answer comes as the one message: claim_answer. */
struct call *claim_ask(struct cox_edge *e, const struct cox_edge_claim *claim,
                       const struct call_events *events, void *user);
/* False: that stream does not hold that attempt, or it is not current. */
bool claim_answer(struct cox_slice message, struct cox_edge_attempt *ret);

#endif
