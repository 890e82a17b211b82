/* The models that coxd is told of: --model, and `models` of the configuration file. */
#ifndef COX_ORCHESTRATOR_MODELS_H
#define COX_ORCHESTRATOR_MODELS_H

#include "config.h"
#include "inference/catalogue.h"

/* For catalogue_apply. Errors: COX_ERR_INVALID and COX_ERR_IO; `error` names the place, with the line of the
 * file where it is there: "line 12: models[1].endpoints[0].url: ...". */
COX_MUST_CHECK enum cox_err coxd_models_read(const struct coxd_config *config,
                                             const struct cox_config *settings, struct catalogue_text **ret,
                                             struct cox_buf *error);

#endif
