/* The router: every model call of this coxd, from the steps of tasks and from the OpenAI edge, to an endpoint
 * and back.
 *
 *     admitted -> waits for credit (placement) -> sent (upstream) -> streams -> done
 *                      ^--- retried elsewhere while nothing has reached the caller ---'
 *
 * What the caller gets is what the endpoint said, byte by byte; only tool calls without ids get one. A call
 * ends exactly once, also when it is cancelled; its books (charged, wasted) are part of the end. Retries and
 * fallbacks happen before the first content only, within a budget of a tenth of the calls.
 *
 * Thread: one, the edge's; router_stats may be called from any.
 */
#ifndef COX_ORCHESTRATOR_INFERENCE_ROUTER_H
#define COX_ORCHESTRATOR_INFERENCE_ROUTER_H

#include "catalogue.h"
#include "chat.h"
#include "placement.h"
#include "tape.h"

#include "cox/types.h"

struct router;
struct router_call;

struct router_config {
    struct event_base *base;
    enum placement_policy policy;
    uint64_t seed;
    int64_t scrape_ms;                 /* as health_config */
    size_t cache_len_max;              /* answers kept for identical idempotent calls; 0: 64 MiB */
    uint32_t calls_max;                /* admitted at once; 0: 20,000 */
    struct tape *tape;                 /* answers are recorded there, or come from it alone. NULL: neither */
    struct upstream_timeouts timeouts; /* zeros: defaults; first_ms is the least, beyond it what is predicted
                                          counts */
};
struct router *router_create(const struct router_config *config);
void router_destroy(struct router *r); /* callers' calls have been cancelled by then. NULL is allowed */
struct catalogue *router_catalogue(struct router *r);

/* ---- who calls ---- */

struct router_who {
    struct cox_slice tenant;
    struct cox_slice program; /* the task's id, or what groups calls outside of tasks; empty: none */
    bool outside;             /* a program of no task: it is listed by itself */
    enum placement_band band;
    int64_t deadline_ns;      /* monotonic; INT64_MAX: none */
    int64_t critical_path_ms; /* of the task's graph behind this call; 0: unknown */
    int64_t cache_ms;         /* an answer so old will do; 0: none */
};

/* ---- a call ---- */

struct router_books {                                    /* tokens and money of one call, all its tries */
    uint64_t input_tokens, output_tokens, cached_tokens; /* charged: the try whose answer counts */
    uint64_t wasted_tokens;                              /* of tries that were lost or given up */
    uint64_t cost_micros;                                /* charged and wasted */
    char currency[8];
    uint32_t tries;
    bool estimated; /* the endpoint did not say: counted here */
    bool from_cache;
};

enum router_end {
    ROUTER_ANSWERED, /* the endpoint's answer has been passed on; its status may be a 4xx, and then error is
                        there too, and says what a step makes of it */
    ROUTER_REFUSED,  /* before it was sent anywhere: error says why */
    ROUTER_FAILED,   /* tries are used up, or there is no time left */
    ROUTER_BROKEN,   /* it ended after content had begun */
    ROUTER_CANCELLED /* by router_cancel */
};
struct router_error {
    int http_status;    /* for the edge: 404, 429, 502, 504 ... */
    enum cox_code code; /* for a step: UNAVAILABLE, RESOURCE_EXHAUSTED, MODEL_ERROR, CONTEXT_LENGTH, ... */
    bool retryable;
    int64_t retry_ms;                    /* Retry-After; 0: none */
    const char *type, *api_code, *param; /* of OpenAI's error; static or NULL */
    const char *message;                 /* lives for the callback */
    bool told;                           /* BROKEN: the stream itself has said so, in an event */
};
struct router_head {
    int status; /* of the endpoint's answer */
    bool is_stream;
    struct cox_slice content_type, request_id;
    const char *model, *endpoint; /* that answer */
    int64_t waited_us;            /* from the start of the call until it was sent, the last time */
    uint32_t tries;
};

/* Never from inside a router function. on_head at most once, then on_data, then on_end exactly once. */
struct router_sink {
    void (*on_head)(void *user, const struct router_head *head);
    void (*on_data)(void *user, struct cox_slice piece);
    /* A stream's event, or a whole answer, as read; beside on_data, before it. NULL: not wanted. */
    void (*on_answer)(void *user, const struct chat_answer *answer);
    void (*on_end)(void *user, enum router_end end, const struct router_error *error,
                   const struct router_books *books);
};
struct router_request {
    enum chat_api api;
    struct cox_buf *body;       /* taken over */
    struct router_who who;      /* copied */
    const char *const *headers; /* passed on: "traceparent: ...", copied */
    size_t n_headers;
    const char *request_id; /* copied; NULL: one is made */
    const struct router_sink *sink;
    void *user;
};
/* Never fails: what is wrong comes by on_end. */
struct router_call *router_start(struct router *r, const struct router_request *request);
/* Its upstream connection is closed now; on_end(CANCELLED) follows with the books. Idempotent. */
void router_cancel(struct router_call *c);
void router_pause(struct router_call *c, bool pause); /* the reader is slow */
const char *router_request_id(const struct router_call *c);

/* Words about programs, from the engine. */
void router_expect(struct router *r, struct cox_slice tenant, struct cox_slice program, int64_t return_ms);
void router_program_end(struct router *r, struct cox_slice tenant, struct cox_slice program);

/* ---- numbers: a copy made four times a second; any thread ---- */

struct router_endpoint_stats {
    char *name, *url;
    bool up;
    const char *gate, *why, *engine;
    uint32_t in_flight;
    uint64_t credit_tokens, charged_tokens;
    uint64_t n_calls, n_failures;
    int32_t running, waiting, kv_used_permille;
};
#define ROUTER_TTFT_BUCKETS 16u
extern const double router_ttft_bounds_s[ROUTER_TTFT_BUCKETS - 1];
struct router_model_stats {
    char *name;
    char **aliases;
    size_t n_aliases;
    struct model_price price;
    uint64_t context_tokens;
    uint32_t queue_depth, in_flight;
    uint64_t n_calls, n_errors, n_retries, n_fallbacks, n_cache_answers;
    uint64_t input_tokens, output_tokens, cached_tokens, wasted_tokens, cost_micros;
    uint64_t ttft[ROUTER_TTFT_BUCKETS];
    double ttft_sum_s;
    struct router_endpoint_stats *endpoints;
    size_t n_endpoints;
};
struct router_program_stats { /* the most recent */
    char *tenant, *program;
    bool outside; /* of tasks */
    uint64_t n_calls, input_tokens, output_tokens, cached_tokens, wasted_tokens, cost_micros;
    char currency[8];
    int64_t last_wall_ms;
};
#define ROUTER_TENANTS_MAX 200u /* the others are "(other)" */
struct router_tenant_stats {
    char *tenant;
    uint64_t n_calls, input_tokens, output_tokens, cached_tokens, wasted_tokens, cost_micros;
    char currency[8];
    int64_t last_wall_ms;
};
struct router_stats {
    struct router_model_stats *models;
    size_t n_models;
    struct router_program_stats *programs;
    size_t n_programs;
    struct router_tenant_stats *tenants;
    size_t n_tenants;
    int64_t since_wall_ms; /* the router's beginning */
};
struct router_stats *router_stats(struct router *r); /* a copy of the caller's; O(models + programs) */
void router_stats_free(struct router_stats *s);

#endif
