/* Model steps of tasks. To the engine the router is a worker, "router", that offers the handler `model` with
 * thousands of slots: it attaches with the same messages as any other (cox/attach.h, decided by the agent of
 * cox/agent.h), over whatever the port carries them with. So it may live in a process of its own.
 *
 * An attempt is a call of the router, always streamed: its text goes to whoever watches it as it comes
 * (LOG_STREAM_TOKENS), and what was put together is the step's output:
 *
 *     {"content", "tool_calls", "finish_reason", "model", "usage"}
 *
 * What is too large for a message is exchanged with the orchestrator's blobs: outputs, and values that a
 * request refers to (step_input.h).
 *
 * Thread: one, the edge's. Nothing of the port is called from inside steps_create, _on_message, _on_closed
 * or _on_read; what they cause happens in the loop's next turn.
 */
#ifndef COX_ORCHESTRATOR_INFERENCE_STEPS_H
#define COX_ORCHESTRATOR_INFERENCE_STEPS_H

#include "attempts.h"
#include "router.h"

#include "cox/attach.h"

#define STEPS_SLOTS 4096u
#define STEPS_HELD_LEN_MAX                                                                                   \
    ((size_t)256 << 20)                        /* of answers being put together, and values being exchanged  \
                                                */
#define STEPS_SAID_LEN_MAX ((size_t)256 << 20) /* of what agents' turns have rendered */

struct steps;

/* Of a call of a service: from the loop, not from inside a function of the port. */
struct steps_call; /* the port's */
struct steps_call_events {
    void (*on_message)(void *user, struct cox_slice packed);
    void (*on_read)(void *user, size_t len); /* so much of what was sent has been taken; NULL: not told */
    /* Once and last, and the call is gone. NONE: it ended well; else `why` is for people. */
    void (*on_closed)(void *user, enum cox_code code, const char *why);
};

/* The stream to the engine: one at a time. */
struct steps_port {
    void (*open)(void *user);
    void (*send)(void *user, struct cox_slice packed); /* AttachRequest; copied */
    void (*close)(void *user);                         /* steps_on_closed still comes */

    /* Calls of other services, for a tenant. */
    struct steps_call *(*call)(void *user, const char *path, struct cox_slice tenant,
                               const struct steps_call_events *events, void *events_user);
    void (*call_send)(struct steps_call *c, struct cox_slice packed); /* copied */
    void (*call_half_close)(struct steps_call *c);
    void (*call_drop)(struct steps_call *c); /* cancels; nothing more is told. It is gone */
};

struct steps_config {
    struct event_base *base;
    struct router *router;
    uint32_t slots;      /* 0: STEPS_SLOTS */
    size_t held_len_max; /* 0: STEPS_HELD_LEN_MAX; the first 64 KiB of each call do not count */
    size_t said_len_max; /* 0: STEPS_SAID_LEN_MAX */
    const char *version; /* outlives this */
    const struct steps_port *port;
    void *port_user;
    /* The calls of attempts' own processes: what they spend is told to the engine, and what that fences is
     * told to them. Outlives this. NULL: there are none. */
    struct attempts *attempts;
    int64_t drain_ms; /* that what runs may go on at a shutdown; 0: STEPS_DRAIN_MS */
};
struct steps *steps_create(const struct steps_config *config);
/* Takes nothing new and lets what runs end, for at most drain_ms; closes the stream once nothing is left to
 * be told on it, of the calls of attempts' processes either. */
void steps_shutdown(struct steps *s);
#define STEPS_DRAIN_MS 1000
/* Cancels what is under way: before router_destroy, which tells the calls' ends. The stream is the caller's
 * to close; nothing of the port is called any more. NULL is allowed. */
void steps_destroy(struct steps *s);

/* From the port. */
void steps_on_message(struct steps *s, struct cox_slice packed); /* AttachResponse */
void steps_on_read(struct steps *s, size_t len);                 /* of what was sent has been taken */
void steps_on_closed(struct steps *s, bool superseded);

/* attempts_config.on_spend. */
void steps_on_spend(struct steps *s);

struct steps_stats {
    struct cox_agent_stats agent;
    uint64_t n_calls;
};
void steps_stats(const struct steps *s, struct steps_stats *ret);

#endif
