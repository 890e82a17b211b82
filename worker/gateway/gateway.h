/* What the process of a step may ask its worker for, over HTTP/1.1, with the key of its attempt
 * (Authorization: Bearer KEY):
 *
 *   GET  /blobs/sha256:HEX   a blob that the attempt's input refers to
 *   POST /blobs              stores the body: 201, {"$blob": "sha256:HEX", "size": N}, for its output to name
 *   /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models
 *                            what the orchestrator's models answer, as OpenAI's API has it
 *
 * A process that has the host's network asks at a port of the host's loopback; one that has none, at
 * GATEWAY_PORT of its own, where only its own key is good. Nothing is kept longer than the attempt: with its
 * key go its connections, and what they were about.
 *
 * Answers say why; to a key that is none, to none, to a dead one and to one of another sandbox they are the
 * same. Files are sent and received in pieces, as fast as the other side goes. Everything belongs to the
 * thread of the event base. */
#ifndef COX_WORKER_GATEWAY_H
#define COX_WORKER_GATEWAY_H

#include "../courier.h"
#include "models.h"

#include "cox/agent.h"

#include <event2/event.h>

#define GATEWAY_PORT 7602 /* inside a sandbox without a network */
#define GATEWAY_URL_MAX 40
#define GATEWAY_HEADS_MAX                                                                                    \
    32u                         /* connections of a listener that have not shown a key; the oldest gives way \
                                 */
#define GATEWAY_REQUESTS_MAX 8u /* of an attempt at once */
#define GATEWAY_CALLS_MAX 64u   /* model calls of an attempt at once */
#define GATEWAY_CALL_LEN_MAX (16u << 20) /* of a model call's body */
#define GATEWAY_STORED_MAX 256u          /* blobs of an attempt, in all */
#define GATEWAY_HEAD_MS 10000            /* from the connection to the end of the head */
#define GATEWAY_SILENCE_MS 30000         /* a body that does not move for so long is given up */
#define GATEWAY_LINGER_MS 2000           /* for the other side to read its answer */

struct gateway;
struct gateway_attempt;

/* `spool_dir`: where files without a name are made; outlives it. courier NULL: nothing can be stored. models
 * NULL: no model can be called. */
struct gateway *gateway_create(struct event_base *base, struct courier *courier, struct models *models,
                               const char *spool_dir);
void gateway_destroy(struct gateway *g); /* after its attempts; NULL is allowed */

/* A new key. */
struct gateway_attempt *gateway_admit(struct gateway *g, const struct cox_agent_assign *assign);
/* At least 128 random bits; dies with the attempt, wiped. */
const char *gateway_key(const struct gateway_attempt *a);
/* What it may read: files named by their digits, ended by NULL; may be NULL. And what must not be in what it
 * stores; may be NULL. Both outlive the revocation. */
void gateway_offer(struct gateway_attempt *a, const char *const *blobs, struct redactor *redactor);
/* Where a process asks. False: nowhere, the host's loopback could not be had. */
bool gateway_url(const struct gateway_attempt *a, bool own_network, char ret[GATEWAY_URL_MAX]);
/* The same for model calls, OPENAI_BASE_URL; nowhere also where the orchestrator serves no models. */
bool gateway_models_url(const struct gateway_attempt *a, bool own_network, char ret[GATEWAY_URL_MAX]);
/* From now on it asks at a listener of its own sandbox, which comes through `channel` (sandbox.h); takes it
 * over. */
void gateway_listen(struct gateway_attempt *a, int channel);

/* The key is worth nothing any more, and what it began is given up. Idempotent. */
void gateway_revoke(struct gateway_attempt *a);
/* What was stored with it, also after its revocation. */
size_t gateway_stored(const struct gateway_attempt *a, const struct cox_hash **ret);
void gateway_attempt_free(struct gateway_attempt *a); /* revokes it; NULL is allowed */

#endif
