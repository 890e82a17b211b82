/* The gRPC services that users call, except the workers' own.
 *
 * Reads show durable state only: a view is taken from the engine at once, and held until the log is durable
 * up to that moment. What has left the engine is read from the archive. Thread: the engine's.
 */
#ifndef COX_ORCHESTRATOR_API_H
#define COX_ORCHESTRATOR_API_H

#include "../access/access.h"
#include "../fleet/fleet.h"
#include "../inference/router.h"

struct cox_api;

struct cox_api *cox_api_create(void);
void cox_api_destroy(struct cox_api *a); /* after its server; NULL is allowed */
void cox_api_start(struct cox_api *a, struct cox_driver *d, struct cox_fleet *f, struct cox_access *access);

/* Where the router's numbers come from; without it there are no models. `stats` is router_stats, or stands
 * for it. */
typedef struct router_stats *cox_api_router_stats(void *user);
void cox_api_set_router(struct cox_api *a, cox_api_router_stats *stats, void *user);

/* Every service beside the workers' own; lives as long as the api. */
const struct cox_rpc_service *cox_api_services(struct cox_api *a, size_t *ret_n);

/* The driver's hooks. */
void cox_api_act(struct cox_api *a, const struct cox_action *action);     /* REPLY */
void cox_api_changed(struct cox_api *a, const struct cox_action *action); /* CHANGED */
void cox_api_turn(struct cox_api *a);
void cox_api_put_in_use(const struct cox_api *a,
                        struct cox_buf *out); /* retried or forked from the archive */

/* When the next wait runs out; INT64_MAX: none. */
int64_t cox_api_wake_ns(const struct cox_api *a);

/* All metrics in Prometheus' text format. Other threads ask by a local call of
 * /coxswain.v1.StatsService/GetMetrics. */
void cox_metrics_text(struct cox_api *a, struct cox_buf *out);

/* Ends everything that waits with UNAVAILABLE and refuses what comes. */
void cox_api_drain(struct cox_api *a);

#endif
