/* Server-sent events, taken apart as they arrive, in pieces of any size. Pure. Thread: one.
 * Source: WHATWG HTML, "Server-sent events", parsing an event stream. */
#ifndef COX_ORCHESTRATOR_INFERENCE_SSE_H
#define COX_ORCHESTRATOR_INFERENCE_SSE_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

/* Zero-initialised. */
struct sse {
    struct cox_buf line, data;
    bool cr;    /* the last byte was one: a line feed that follows belongs to it */
    bool begun; /* past a byte order mark */
    uint64_t n_events;
};
void sse_fini(struct sse *s);

#define SSE_EVENT_LEN_MAX (16u << 20)

/* `on_event` gets the data of each whole event (lines joined by LF) and how many bytes of `piece` it has
 * ended at, so that those who pass bytes through know where an event ends. False from it: stop, the rest is
 * not looked at. Errors: COX_ERR_FULL, an event longer than SSE_EVENT_LEN_MAX. Data that arrives whole in one
 * piece is not copied. */
typedef bool sse_on_event(void *user, struct cox_slice data, size_t end);
COX_MUST_CHECK enum cox_err sse_feed(struct sse *s, struct cox_slice piece, sse_on_event *on_event,
                                     void *user);

#endif
