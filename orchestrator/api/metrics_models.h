/* Metrics of models and their endpoints, rows of the table in metrics.c. */
#ifndef COX_ORCHESTRATOR_API_METRICS_MODELS_H
#define COX_ORCHESTRATOR_API_METRICS_MODELS_H

#include "metrics.h"

typedef void cox_metric_read(const struct cox_metric *m, const struct cox_metric_source *src,
                             cox_on_sample *fn, void *user);
cox_metric_read cox_metric_model_queue_depth, cox_metric_model_in_flight, cox_metric_model_calls;
cox_metric_read cox_metric_model_retries, cox_metric_model_fallbacks, cox_metric_model_cache_answers;
cox_metric_read cox_metric_model_ttft, cox_metric_model_tokens, cox_metric_model_cached,
    cox_metric_model_wasted;
cox_metric_read cox_metric_model_cost, cox_metric_endpoint_up, cox_metric_endpoint_in_flight;

#endif
