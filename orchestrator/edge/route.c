#include "route.h"

#include "coxswain/v1/blob_service.pb-c.h"
#include "coxswain/v1/fleet_service.pb-c.h"
#include "coxswain/v1/model_service.pb-c.h"
#include "coxswain/v1/schedule_service.pb-c.h"
#include "coxswain/v1/stats_service.pb-c.h"
#include "coxswain/v1/task_service.pb-c.h"
#include "coxswain/v1/template_service.pb-c.h"

#include <string.h>

#define TASKS &coxswain__v1__task_service__descriptor
#define TEMPLATES &coxswain__v1__template_service__descriptor
#define SCHEDULES &coxswain__v1__schedule_service__descriptor
#define FLEET &coxswain__v1__fleet_service__descriptor
#define STATS &coxswain__v1__stats_service__descriptor
#define BLOBS &coxswain__v1__blob_service__descriptor
#define MODELS &coxswain__v1__model_service__descriptor
#define API "/api/v1"
#define TASK API "/tasks/{id}"

const struct route routes[] = {
    { "GET", API "/tasks", TASKS, "ListTasks", NULL, NULL, ROUTE_UNARY, 0 },
    { "POST", API "/tasks", TASKS, "SubmitTask", NULL, NULL, ROUTE_UNARY, 0 },
    { "POST", API "/tasks:batch", TASKS, "SubmitTasks", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", API "/tasks:batch", TASKS, "BatchGetTasks", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", TASK, TASKS, "GetTask", NULL, NULL, ROUTE_UNARY, 0 },
    { "DELETE", TASK, TASKS, "DeleteTask", NULL, NULL, ROUTE_UNARY, 0 },
    { "POST", TASK ":cancel", TASKS, "CancelTask", NULL, NULL, ROUTE_UNARY, 0 },
    { "POST", TASK ":pause", TASKS, "PauseTask", NULL, NULL, ROUTE_UNARY, 0 },
    { "POST", TASK ":resume", TASKS, "ResumeTask", NULL, NULL, ROUTE_UNARY, 0 },
    { "POST", TASK ":retry", TASKS, "RetryTask", NULL, NULL, ROUTE_UNARY, 0 },
    { "POST", TASK ":fork", TASKS, "ForkTask", NULL, NULL, ROUTE_UNARY, 0 },
    { "POST", TASK ":approve", TASKS, "ApproveStep", "approve=true", NULL, ROUTE_UNARY, 0 },
    { "POST", TASK ":reject", TASKS, "ApproveStep", "approve=false", NULL, ROUTE_UNARY, 0 },
    { "POST", TASK ":signal", TASKS, "SignalTask", NULL, NULL, ROUTE_UNARY, 0 },
    { "POST", TASK ":message", TASKS, "MessageTask", NULL, NULL, ROUTE_UNARY, 0 },
    { "POST", TASK ":token", TASKS, "CreateTaskToken", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", TASK ":explain", TASKS, "Explain", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", TASK "/events", TASKS, "WatchTask", NULL, NULL, ROUTE_EVENTS, 0 },
    { "GET", TASK "/output", TASKS, "GetOutput", NULL, "json", ROUTE_UNARY, 0 },
    { "GET", TASK "/logs", TASKS, "GetLogs", NULL, NULL, ROUTE_LOGS, 0 },
    { "GET", TASK "/steps", TASKS, "DescribeTask", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", TASK "/steps/{step}", TASKS, "DescribeTask", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", TASK "/steps/{step}:explain", TASKS, "Explain", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", TASK "/steps/{step}/output", TASKS, "GetOutput", NULL, "json", ROUTE_UNARY, 0 },
    { "GET", TASK "/steps/{step}/logs", TASKS, "GetLogs", NULL, NULL, ROUTE_LOGS, 0 },
    { "GET", API "/blobs/{+hash}", BLOBS, "GetBlob", NULL, NULL, ROUTE_BLOB, 0 },
    { "PUT", API "/blobs/{+hash}", BLOBS, "PutBlob", NULL, NULL, ROUTE_UPLOAD, 0 },
    { "GET", API "/templates", TEMPLATES, "ListTemplates", NULL, NULL, ROUTE_UNARY, 0 },
    { "POST", API "/templates", TEMPLATES, "ApplyTemplate", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", API "/templates/{ref}", TEMPLATES, "GetTemplate", NULL, NULL, ROUTE_UNARY, 0 },
    { "DELETE", API "/templates/{ref}", TEMPLATES, "DeleteTemplate", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", API "/schedules", SCHEDULES, "ListSchedules", NULL, NULL, ROUTE_UNARY, 0 },
    { "POST", API "/schedules", SCHEDULES, "ApplySchedule", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", API "/schedules/{name}", SCHEDULES, "GetSchedule", NULL, NULL, ROUTE_UNARY, 0 },
    { "DELETE", API "/schedules/{name}", SCHEDULES, "DeleteSchedule", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", API "/workers", FLEET, "ListWorkers", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", API "/workers/{id}", FLEET, "DescribeWorker", NULL, NULL, ROUTE_UNARY, 0 },
    { "POST", API "/workers/{id}:cordon", FLEET, "CordonWorker", "uncordon=false", NULL, ROUTE_UNARY, 0 },
    { "POST", API "/workers/{id}:uncordon", FLEET, "CordonWorker", "uncordon=true", NULL, ROUTE_UNARY, 0 },
    { "POST", API "/workers/{id}:drain", FLEET, "DrainWorker", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", API "/models", MODELS, "ListModels", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", API "/models/{+name}", MODELS, "DescribeModel", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", API "/usage", MODELS, "GetUsage", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", API "/stats", STATS, "GetStats", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", API "/stats/history", STATS, "GetHistory", NULL, NULL, ROUTE_UNARY, 0 },
    { "GET", API "/stats/events", STATS, "WatchStats", NULL, NULL, ROUTE_EVENTS, 0 },
    { "GET", "/healthz", NULL, NULL, NULL, NULL, ROUTE_LIVENESS, 0 },
    { "GET", "/readyz", NULL, NULL, NULL, NULL, ROUTE_READINESS, 0 },
    { "GET", "/metrics", NULL, NULL, NULL, NULL, ROUTE_METRICS, 0 },
    { "GET", "/openapi.json", NULL, NULL, NULL, NULL, ROUTE_OPENAPI, 0 },
    { "POST", "/v1/chat/completions", NULL, NULL, NULL, NULL, ROUTE_COMPLETE, CHAT_COMPLETIONS },
    { "POST", "/v1/completions", NULL, NULL, NULL, NULL, ROUTE_COMPLETE, CHAT_TEXT_COMPLETIONS },
    { "POST", "/v1/embeddings", NULL, NULL, NULL, NULL, ROUTE_COMPLETE, CHAT_EMBEDDINGS },
    { "GET", "/v1/models", NULL, NULL, NULL, NULL, ROUTE_MODELS, 0 },
    { "GET", "/v1/models/{+model}", NULL, NULL, NULL, NULL, ROUTE_MODEL, 0 },
};
const size_t n_routes = sizeof(routes) / sizeof(routes[0]);

/* ---- matching ---- */

static struct cox_slice take_segment(struct cox_slice *path)
{
    struct cox_slice rest = cox_slice(path->data + 1, path->len - 1); /* behind the '/' */
    const uint8_t *slash = rest.len > 0 ? memchr(rest.data, '/', rest.len) : NULL;
    size_t len = slash ? (size_t)(slash - rest.data) : rest.len;

    *path = cox_slice(rest.data + len, rest.len - len);
    return cox_slice(rest.data, len);
}

/* A segment of a path against one of a pattern; *ret_value is what stands for {field}. */
static bool match_segment(struct cox_slice pattern, struct cox_slice text, struct cox_slice *ret_field,
                          struct cox_slice *ret_value)
{
    *ret_field = cox_slice(NULL, 0);
    if (pattern.len == 0 || pattern.data[0] != '{')
        return cox_slice_eq(pattern, text);
    const uint8_t *close = memchr(pattern.data, '}', pattern.len);
    bool any = pattern.data[1] == '+';
    size_t word_len = (size_t)(pattern.data + pattern.len - close) - 1;

    *ret_field = cox_slice(pattern.data + 1 + any, (size_t)(close - pattern.data) - 1 - any);
    if (text.len <= word_len || memcmp(text.data + text.len - word_len, close + 1, word_len) != 0)
        return false;
    *ret_value = cox_slice(text.data, text.len - word_len);
    return any || !memchr(ret_value->data, ':', ret_value->len);
}

static bool match_path(const struct route *r, struct cox_slice path, struct cox_buf *memory,
                       struct edge_param params[ROUTE_PARAMS_MAX], size_t *ret_n)
{
    struct cox_slice pattern = cox_slice_str(r->pattern), field, value;

    *ret_n = 0;
    cox_buf_clear(memory);
    cox_buf_reserve(memory, path.len + 1);
    while (pattern.len > 0 && path.len > 0) {
        if (!match_segment(take_segment(&pattern), take_segment(&path), &field, &value))
            return false;
        if (!field.data)
            continue;
        size_t at = memory->len;
        if (!edge_decode(value, false, memory))
            return false;
        params[(*ret_n)++] = (struct edge_param){ field, cox_slice(memory->data + at, memory->len - at) };
    }
    return pattern.len == 0 && path.len == 0;
}

static void allow(struct cox_buf *list, const char *verb)
{
    if (list->len > 0)
        cox_buf_append_str(list, ", ");
    cox_buf_append_str(list, verb);
    if (strcmp(verb, "GET") == 0)
        cox_buf_append_str(list, ", HEAD");
}

const struct route *route_find(struct cox_slice verb, struct cox_slice path, struct cox_buf *memory,
                               struct edge_param params[ROUTE_PARAMS_MAX], size_t *ret_n_params,
                               struct cox_buf *ret_allowed)
{
    bool head = cox_slice_is(verb, "HEAD");

    cox_buf_clear(ret_allowed);
    for (size_t i = 0; i < n_routes; i++) {
        if (!match_path(&routes[i], path, memory, params, ret_n_params))
            continue;
        if (cox_slice_is(verb, routes[i].verb) || (head && strcmp(routes[i].verb, "GET") == 0))
            return &routes[i];
        allow(ret_allowed, routes[i].verb);
    }
    return NULL;
}

/* ---- what a route carries ---- */

static const ProtobufCMethodDescriptor *method_of(const struct route *r)
{
    return r->service ? protobuf_c_service_descriptor_get_method_by_name(r->service, r->method) : NULL;
}

const ProtobufCMessageDescriptor *route_input(const struct route *r)
{
    const ProtobufCMethodDescriptor *m = method_of(r);

    return m ? m->input : NULL;
}

const ProtobufCMessageDescriptor *route_output(const struct route *r)
{
    const ProtobufCMethodDescriptor *m = method_of(r);

    return m ? m->output : NULL;
}

bool route_has_body(const struct route *r)
{
    return strcmp(r->verb, "POST") == 0 || strcmp(r->verb, "PUT") == 0;
}
