/* Model calls of steps' processes, on their way from the gateway to the orchestrator's HTTP port: with the
 * worker's own token, and with what proves for which attempt it asks. Bodies pass in pieces, both ways, as
 * fast as the slower side goes. Everything belongs to the thread of the event base, unless it says otherwise.
 */
#ifndef COX_WORKER_GATEWAY_MODELS_H
#define COX_WORKER_GATEWAY_MODELS_H

#include "cox/base/buf.h"
#include "cox/tls.h"
#include "cox/types.h"

#include <event2/event.h>

struct models;
struct model_call;

/* All of it outlives the models. */
struct models_config {
    struct event_base *base;
    const char *token_file;          /* who the worker is; NULL: nobody */
    const struct cox_tls_files *tls; /* with it nothing is sent in plaintext; NULL: the system's CAs */
};
struct models *models_create(const struct models_config *config);
void models_destroy(struct models *m); /* after its calls; NULL is allowed */

/* Which orchestrator was dialled ("host:port"), and what its Welcome says: session_key, models_url. New calls
 * go there. Thread: any. */
void models_aim(struct models *m, const char *address, const char *session, const char *url);
/* Whether there is anywhere to send them. Thread: any. */
bool models_served(struct models *m);

/* ---- a call ---- */

struct model_head {
    int status;
    struct cox_slice fields; /* lines with CRLF; none about the connection or the length */
    bool has_len;
    uint64_t len;
};
/* None of them from inside a function below, except on_data from models_resume and on_room from models_feed;
 * none may call models_cancel. on_head at most once, before on_data; on_end once and last. */
struct model_events {
    void (*on_head)(void *user, const struct model_head *head);
    bool (*on_data)(void *user, struct cox_slice piece); /* false: not now; models_resume repeats it */
    void (*on_room)(void *user);                         /* more of the body may be fed */
    void (*on_end)(void *user, const char *why);         /* NULL: all of it came; else why not */
};
struct model_request {
    const char *method; /* "GET", "POST" */
    const char *path;   /* "/v1/..." */
    const char *tenant; /* "": the default one */
    struct cox_ref attempt;
    struct cox_slice fields; /* of the process: lines with CRLF, to be passed on */
    uint64_t len;            /* of the body; of a POST */
};
struct model_call *models_start(struct models *m, const struct model_request *request,
                                const struct model_events *events, void *user);
/* A piece of the body. False: enough, until on_room. */
bool models_feed(struct model_call *c, struct cox_slice piece);
void models_resume(struct model_call *c);
/* Its connection is closed at once, and nothing more is told. */
void models_cancel(struct model_call *c);

#endif
