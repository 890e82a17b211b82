/* Whether endpoints live, and what they say of themselves: breakers fed by calls, probes of those that are
 * out, and /metrics scraped from all, under the names of vLLM, SGLang, llama.cpp, TGI and TensorRT-LLM.
 *
 * A breaker opens after 5 failures in a row or half of at least 20 calls in 10 s; it is tried again after 5
 * s, twice as long each time, up to 60 s, first by a probe (GET /health, or /v1/models) and then by one call
 * at a time. Never more than 30 % of a pool's endpoints are out for failures of calls at once, but always may
 * one; so are those to which no connection can be made, which scrapes notice, without that bound. The last
 * one stays in. What is no fault of the endpoint (4xx but 429 and 408, and but a 404 to what
 * others serve; a 500 that other endpoints give to the
 * same request too) does not count. Who says 429 gets nothing for as long as it said, then one call, and more
 * with each that ends well.
 *
 * Every endpoint is scraped every 200 ms, a tenth more or less; of more than 400 so that all together are
 * 2,000 a second, of more than 3,600 every 1.8 s, of more than 10,800 so that they are 6,000 a second. One
 * that has nothing to say, up to once a minute. Signals that are older than 2 s, or three scrapes, become
 * "not said". Thread: the loop's.
 */
#ifndef COX_ORCHESTRATOR_INFERENCE_HEALTH_H
#define COX_ORCHESTRATOR_INFERENCE_HEALTH_H

#include "catalogue.h"
#include "placement.h"

struct health;
struct health_config {
    struct event_base *base;
    struct upstream *upstream;
    int64_t scrape_ms; /* 0: 200; negative: never */
    /* Also from inside health_tell. */
    void (*on_signals)(void *user, struct endpoint *e, const struct placement_signals *signals);
    void (*on_gate)(void *user, struct endpoint *e, enum placement_gate gate, bool forget);
    /* It asked for a pause, which is over: `room` calls more than it has now, or has had when this came last
     * without having been closed between; 0: as many as it takes. */
    void (*on_room)(void *user, struct endpoint *e, uint32_t room, bool from_now);
    void *user;
};
struct health *health_create(const struct health_config *config);
void health_destroy(struct health *h); /* its endpoints have been removed. NULL is allowed */
void health_add(struct health *h, struct endpoint *e);
void health_remove(struct health *h, struct endpoint *e);

enum health_word {
    HEALTH_GOOD,
    HEALTH_BAD,
    HEALTH_DENIED, /* 401: it refuses our key, and would each time. Out at once, though still not the last one
                    */
    HEALTH_SLOW_DOWN /* 429, 503 with Retry-After: not its breaker's */
};
void health_tell(struct health *h, struct endpoint *e, enum health_word word, int64_t retry_after_ms);

struct health_view {
    enum placement_gate gate;
    const char *why; /* of a closed one: "5 failures in a row"; static */
    uint64_t n_calls, n_failures;
    bool scraped;                     /* something of its /metrics could be read lately */
    const char *engine;               /* "vllm", "sglang", "llama.cpp", "tgi", "trtllm", or "" */
    struct placement_signals signals; /* the last */
};
void health_view(const struct endpoint *e, struct health_view *ret);

#endif
