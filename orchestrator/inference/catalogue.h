/* The catalogue: which models there are, what they cost, and where they are served.
 *
 * Read from --model NAME=URL,... and from `models:` of the configuration file; endpoints also from files and
 * names (DNS) that are looked at again. A reload makes the catalogue anew and keeps what is the same: an
 * endpoint is its model, its URL and its upstream model; a call that holds one keeps it through any reload.
 * Of a model that stays, all but its name may be another after a reload, and so may keys and CA files in
 * targets: whoever starts a request copies them.
 *
 * Thread: one, the edge's, except catalogue_parse.
 */
#ifndef COX_ORCHESTRATOR_INFERENCE_CATALOGUE_H
#define COX_ORCHESTRATOR_INFERENCE_CATALOGUE_H

#include "upstream.h"

#include "cox/base/list.h"

struct catalogue;
struct catalogue_text; /* a parsed configuration, not yet in force */

struct model_price { /* millionths of the currency for per_tokens tokens */
    uint64_t input_micros, output_micros, cached_input_micros;
    uint64_t per_tokens; /* 1000000 when not said */
    char currency[8];    /* "USD"; empty: nothing is charged */
};

struct endpoint {
    struct cox_list node; /* of its model's */
    struct model *model;
    uint32_t refs;        /* the catalogue's, and one a call */
    bool gone;            /* in no catalogue any more: no new calls */
    char *url;            /* as configured, without a trailing slash: "http://10.0.0.7:8000/v1" */
    char *upstream_model; /* NULL: the name that the client says */
    char *name;           /* for metrics and people: host:port, and the path where that tells them apart */
    uint32_t max_in_flight;
    struct upstream_target targets[4]; /* by enum chat_api, and /models */
    char *bearer, *ca_file;
    uint32_t place;       /* its id in placement */
    uint32_t room, had;   /* router.c's: after a pause, `room` calls more than it had then; 0: any */
    bool no_usage_option; /* the router's: it refuses stream_options */
    struct endpoint_health *health; /* health.c's */
    void *owner_data;
};

struct model {
    struct cox_list node;
    uint32_t refs;
    bool gone;
    char *name;
    char **aliases;
    size_t n_aliases;
    struct model_price price;
    uint64_t context_tokens; /* 0: not said */
    char **fallbacks;        /* names of models to try when this one cannot answer, in order */
    size_t n_fallbacks;
    struct cox_list endpoints;
    size_t n_endpoints;
    size_t n_out, n_out_for_calls; /* health.c's: of those */
    uint32_t pool;                 /* its id in placement */
    void *owner_data;
};

/* Parses what the configuration says: `flags` are the values of --model, `models_json` the member `models` of
 * the file (empty: none). Reads key files. Errors: COX_ERR_INVALID and COX_ERR_IO, `error` names the place
 * ("models[1].endpoints[0].url: ...") and what was expected. Thread: any. */
COX_MUST_CHECK enum cox_err catalogue_parse(const char *const *flags, size_t n_flags,
                                            struct cox_slice models_json, struct catalogue_text **ret,
                                            struct cox_buf *error);
size_t catalogue_text_models(const struct catalogue_text *t); /* how many */
void catalogue_text_free(struct catalogue_text *t);           /* NULL is allowed */

struct catalogue_events {
    void (*on_model)(void *user, struct model *m, bool added);       /* or changed (price, limits) */
    void (*on_endpoint)(void *user, struct endpoint *e, bool added); /* false: gone, do not send there */
    void (*on_endpoint_changed)(void *user, struct endpoint *e);     /* its max_in_flight. NULL: not wanted */
};
struct catalogue *catalogue_create(struct event_base *base, const struct catalogue_events *events,
                                   void *user);
void catalogue_destroy(struct catalogue *c);
/* In force from now on; takes the text over. */
void catalogue_apply(struct catalogue *c, struct catalogue_text *text);

struct model *catalogue_find(const struct catalogue *c, struct cox_slice name); /* or an alias; NULL: none */
struct model *catalogue_next(const struct catalogue *c, const struct model *after); /* NULL: the first */

void endpoint_ref(struct endpoint *e);
void endpoint_unref(struct endpoint *e);
void model_ref(struct model *m);
void model_unref(struct model *m);

/* Millionths of the price's currency for a call, rounded up; cached tokens are a part of input. */
uint64_t model_cost_micros(const struct model_price *price, uint64_t input_tokens, uint64_t cached_tokens,
                           uint64_t output_tokens);

#endif
