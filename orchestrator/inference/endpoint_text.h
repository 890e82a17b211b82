/* Endpoints as they are written. */
#ifndef COX_ORCHESTRATOR_INFERENCE_ENDPOINT_TEXT_H
#define COX_ORCHESTRATOR_INFERENCE_ENDPOINT_TEXT_H

#include "catalogue_text.h"
#include "config_reader.h"

/* The keys of an endpoint. The first is its URL: what is found by discovery gets the rest from its model. Key
 * files are read. */
#define ENDPOINT_FIELDS 5u
extern const struct config_field endpoint_fields[ENDPOINT_FIELDS];

/* A list of URLs, or of objects of those keys. */
bool endpoints_read(struct config_reader *r, struct cox_slice value, struct endpoint_text **ret,
                    size_t *ret_n);

#endif
