/* A configuration of models as parsed: what catalogue_parse makes and catalogue_apply takes apart. */
#ifndef COX_ORCHESTRATOR_INFERENCE_CATALOGUE_TEXT_H
#define COX_ORCHESTRATOR_INFERENCE_CATALOGUE_TEXT_H

#include "catalogue.h"

#define CATALOGUE_MODELS_MAX 10000u
#define CATALOGUE_ENDPOINTS_MAX 10000u /* of a model */
#define CATALOGUE_NAMES_MAX 100u       /* aliases of a model; fallbacks */
#define CATALOGUE_NAME_LEN_MAX 200u
#define CATALOGUE_KEY_LEN_MAX 8192u
#define CATALOGUE_IN_FLIGHT_MAX 1000000u

struct endpoint_text {
    char *url;            /* in its one spelling; see endpoint_url.h */
    char *upstream_model; /* NULL: the name that the client says; so the next two */
    char *bearer, *ca_file;
    uint32_t max_in_flight; /* 0: not said */
};

enum discovery_kind { DISCOVERY_NONE, DISCOVERY_FILE, DISCOVERY_DNS };

struct model_text {
    char *name;
    char **aliases, **fallbacks;
    size_t n_aliases, n_fallbacks;
    struct model_price price;
    uint64_t context_tokens;
    struct endpoint_text *endpoints;
    size_t n_endpoints;
    enum discovery_kind discovery;
    char *source;               /* the file, or what is asked of the DNS */
    struct endpoint_text found; /* what endpoints that are found get; without a URL */
};

struct catalogue_text {
    struct model_text *models;
    size_t n_models;
};

void endpoint_text_fini(struct endpoint_text *e); /* keys are overwritten */
void model_text_fini(struct model_text *m);

/* The endpoints that a discovery file names: a JSON list of URLs or of {url, upstream_model, max_in_flight},
 * or a URL a line, with # for comments. Errors: COX_ERR_INVALID; `error` says where and what was expected.
 * Pure. */
COX_MUST_CHECK enum cox_err endpoints_parse(struct cox_slice text, struct endpoint_text **ret, size_t *ret_n,
                                            struct cox_buf *error);
void endpoints_free(struct endpoint_text *endpoints, size_t n);

#endif
