/* grpc.health.v1.Health. The server and all its services share one state: they start and drain together. */
#include "rpc_internal.h"

#include "cox/base/alloc.h"

#include <grpc/health/v1/health.pb-c.h>

#define SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

struct rpc_health {
    const struct cox_rpc_service *services;
    size_t n_services;
    bool serving;
    struct cox_list watchers;
};

struct watcher {
    struct cox_list node;
    struct cox_rpc_call *call;
    bool known;
    Grpc__Health__V1__HealthCheckResponse__ServingStatus told;
};

static bool has_service(const struct rpc_health *health, const char *name)
{
    struct cox_slice wanted = cox_slice_str(name);

    if (wanted.len == 0)
        return true;
    for (size_t i = 0; i < health->n_services; i++)
        if (cox_slice_is(wanted, health->services[i].descriptor->name))
            return true;
    return false;
}

static Grpc__Health__V1__HealthCheckResponse__ServingStatus state(const struct rpc_health *health)
{
    return health->serving ? SERVING : NOT_SERVING;
}

static void check(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Grpc__Health__V1__HealthCheckRequest *request = (const void *)message;
    const struct rpc_health *health = user;
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

    if (!has_service(health, request->service)) {
        cox_rpc_fail(call,
                     &(struct cox_rpc_error){ .status = COX_RPC_NOT_FOUND, .message = "unknown service" });
        return;
    }
    response.status = state(health);
    cox_rpc_reply(call, &response.base);
}

/* A watcher that does not read is told the newest state once it does: the outbox holds one state at most. */
static void tell(struct watcher *w, const struct rpc_health *health)
{
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

    response.status = w->known ? state(health) : SERVICE_UNKNOWN;
    if (response.status == w->told || cox_rpc_outbox_len(w->call) > 0)
        return;
    if (cox_rpc_send(w->call, &response.base) == COX_OK)
        w->told = response.status;
}

static void watch(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Grpc__Health__V1__HealthCheckRequest *request = (const void *)message;
    struct rpc_health *health = user;
    struct watcher *w = COX_NEW(struct watcher);

    w->call = call;
    w->known = has_service(health, request->service);
    cox_list_push_back(&health->watchers, &w->node);
    cox_rpc_call_set_user(call, w);
    tell(w, health);
}

static void watch_drained(struct cox_rpc_call *call, void *user)
{
    tell(cox_rpc_call_user(call), user);
}

static void watch_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    struct watcher *w = cox_rpc_call_user(call);

    (void)status, (void)user;
    if (!w)
        return;
    cox_list_remove(&w->node);
    cox_free(w);
}

static const struct cox_rpc_method methods[] = {
    { "Check", { .on_message = check } },
    { "Watch", { .on_message = watch, .on_drained = watch_drained, .on_closed = watch_closed } },
};

struct rpc_health *rpc_health_create(const struct cox_rpc_service *services, size_t n_services)
{
    struct rpc_health *health = COX_NEW(struct rpc_health);

    health->services = services;
    health->n_services = n_services;
    cox_list_init(&health->watchers);
    return health;
}

void rpc_health_destroy(struct rpc_health *health)
{
    cox_free(health);
}

void rpc_health_set_serving(struct rpc_health *health, bool serving)
{
    health->serving = serving;
    COX_LIST_FOR_EACH (it, &health->watchers) {
        tell(COX_CONTAINER_OF(it, struct watcher, node), health);
    }
}

struct cox_rpc_service rpc_health_service(struct rpc_health *health)
{
    return (struct cox_rpc_service){ &grpc__health__v1__health__descriptor, methods,
                                     sizeof(methods) / sizeof(methods[0]), health };
}
