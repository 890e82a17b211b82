/* One worker's conversation with its orchestrator: the agent, driven by a gRPC stream and the slots.
 * Everything runs on the loop's thread. */
#ifndef COX_WORKER_SESSION_H
#define COX_WORKER_SESSION_H

#include "catalogue.h"
#include "slots.h"

#include "cox/attach.h"
#include "cox/rpc.h"

/* Borrowed; outlives the session. */
struct session_config {
    struct cox_agent_config agent;
    const char *const *addresses; /* agent.n_addresses of them */
    const char *worker_id;
    const char *boot_id;
    const char *version;
    const struct cox_attach_label *labels;
    size_t n_labels;
    const char *const *handlers; /* built in */
    size_t n_handlers;
    const char *token_file;          /* who it is; NULL: nobody */
    const struct cox_tls_files *tls; /* read at each dialling; NULL: plaintext */
    struct catalogue *catalogue;     /* announced too, again when it changes; may be NULL */
    void (*on_attached)(void *user); /* the first Welcome has come; may be NULL */
    void *user;
};

struct session;

/* `slots` has as many as the agent's configuration, and wakes `loop` on replies. */
struct session *session_create(struct cox_rpc_loop *loop, struct slots *slots,
                               const struct session_config *config);
void session_destroy(struct session *s); /* NULL is allowed; runs the loop until the stream is gone */

/* One turn: waits for something to happen, but not beyond `until_mono_ns`; false once the agent has left. */
bool session_turn(struct session *s, int64_t until_mono_ns);

/* The same in two halves, for many sessions on one loop: when the loop is to return for this one, and what is
 * to be done once it has. */
int64_t session_wake_ns(const struct session *s);
bool session_after(struct session *s);
enum session_state { SESSION_APART, SESSION_DIALLING, SESSION_ATTACHED };
enum session_state session_state(const struct session *s);

/* As SIGTERM does. Takes effect in the next turn. */
void session_shutdown(struct session *s);

#endif
