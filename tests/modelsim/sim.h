/* The simulated inference server, inside: endpoints, their calls, and what is counted of them. Thread: one.
 */
#ifndef COX_MODELSIM_SIM_H
#define COX_MODELSIM_SIM_H

#include "engine.h"
#include "fault.h"
#include "http.h"
#include "reply.h"
#include "script.h"

#include "cox/base/rng.h"

#define SIM_IDENTITY "cox-modelsim (a simulator, not a model)"
#define SIM_RECORDS_MAX 65536u /* calls that /sim/calls remembers */
#define SIM_ENDPOINTS_MAX 10000u

enum sim_engine { SIM_VLLM, SIM_SGLANG, SIM_LLAMACPP, SIM_TGI };

struct sim_options {
    const char *listen, *admin, *ready_file, *script_file, *faults, *profile, *require_key;
    char *models[64];
    uint32_t n_models;
    enum sim_engine names;
    uint64_t n_endpoints, seed, output_tokens, tool_turns, dimensions, max_model_len, speed_permille;
    struct engine_config engine;
    bool no_prefix_caching;
    bool fast, events_coalesced;
    uint64_t fast_events;
};
enum options_outcome { OPTIONS_RUN, OPTIONS_OK, OPTIONS_BAD };
struct cox_config;
/* `keep` holds the texts; cox_config_destroy it at the end. */
enum options_outcome options_read(struct sim_options *o, int argc, char **argv, struct cox_config **keep);

struct sim_record { /* a call that has ended */
    uint64_t id;
    uint32_t endpoint;
    char request_id[64];
    const char *outcome;                  /* "answered", "cancelled", "refused", or the fault's name */
    int64_t begun_ns, first_ns, ended_ns; /* CLOCK_MONOTONIC; first_ns 0: no token */
    uint32_t input_tokens, cached_tokens, output_tokens;
    bool stream;
};

struct counts {
    uint64_t calls, answered, cancelled, refused, faulted;
    uint32_t in_flight, in_flight_max;
    int64_t last_cancel_ns;
};

struct sim;
struct endpoint {
    struct sim *sim;
    uint32_t index;
    struct http_server *http;
    char url[64];
    struct engine *engine;
    struct event *timer;
    struct faults faults;
    struct cox_rng rng;
    struct counts counts;
    struct cox_list calls, ended; /* ended: in an engine's callback, so their memory goes later */
    struct cox_buf stale;         /* what /metrics last said */
    uint64_t n_success;
};

struct sim {
    struct event_base *base;
    struct sim_options options;
    struct reply_config replies;
    struct endpoint *endpoints;
    uint32_t n_endpoints;
    struct http_server *admin;
    struct script *script;
    struct counts counts;
    uint64_t n_calls;
    struct sim_record *records;
    uint64_t n_records;
    struct cox_buf fast_whole, fast_stream, fast_head, fast_tail;
    struct cox_buf scratch;
    int64_t created_s;
};

/* call.c: POST /v1/... */
void call_begin(struct endpoint *e, struct http_conn *c, const struct http_request *q, enum ask_api api);
void endpoint_pump(struct endpoint *e); /* after anything done to its engine from outside of a callback */
extern const struct engine_events call_engine_events;

/* render.c: bodies */
struct call;
void render_error(struct cox_buf *out, int status, struct cox_slice message, const char *type,
                  const char *code, const char *param);
void render_float_list(struct cox_buf *out, uint64_t seed, uint64_t dimensions, bool base64);

/* metrics.c, admin.c */
void metrics_put(struct cox_buf *out, const struct endpoint *e);
bool admin_request(struct sim *s, struct endpoint *e, struct http_conn *c, const struct http_request *q);
COX_MUST_CHECK enum cox_err admin_set_faults(struct sim *s, struct endpoint *e, struct cox_slice json,
                                             struct cox_buf *error);

/* fast.c */
void fast_prepare(struct sim *s);
void fast_request(struct sim *s, struct http_conn *c, const struct http_request *q);

#endif
