/* Routes, and what becomes of a request's path, query and body. */
#include "check.h"

#include "edge/map.h"
#include "edge/route.h"

#include "cox/wire.h"

#include "coxswain/v1/fleet_service.pb-c.h"
#include "coxswain/v1/stats_service.pb-c.h"
#include "coxswain/v1/task_service.pb-c.h"

#include <string.h>

static const struct route *find(const char *verb, const char *path, char *ret_params, struct cox_buf *allowed)
{
    struct edge_param params[ROUTE_PARAMS_MAX];
    struct cox_buf memory = { 0 }, text = { 0 };
    size_t n = 0;
    const struct route *r =
        route_find(cox_slice_str(verb), cox_slice_str(path), &memory, params, &n, allowed);

    for (size_t i = 0; r && i < n; i++)
        cox_buf_printf(&text, "%.*s=%.*s;", (int)params[i].name.len, (const char *)params[i].name.data,
                       (int)params[i].value.len, (const char *)params[i].value.data);
    strncpy(ret_params, cox_buf_cstr(&text), 99);
    cox_buf_fini(&memory);
    cox_buf_fini(&text);
    return r;
}

static void test_routes(void **state)
{
    static const struct {
        const char *verb, *path, *method, *params; /* method NULL: no route, and params is Allow */
    } cases[] = {
        { "GET", "/api/v1/tasks", "ListTasks", "" },
        { "HEAD", "/api/v1/tasks", "ListTasks", "" },
        { "POST", "/api/v1/tasks", "SubmitTask", "" },
        { "POST", "/api/v1/tasks:batch", "SubmitTasks", "" },
        { "GET", "/api/v1/tasks/t0-1", "GetTask", "id=t0-1;" },
        { "POST", "/api/v1/tasks/t0-1:cancel", "CancelTask", "id=t0-1;" },
        { "POST", "/api/v1/tasks/t0%2f1%3acancel:cancel", "CancelTask", "id=t0/1:cancel;" },
        { "GET", "/api/v1/tasks/t0-1/steps/a%5B3%5D/output", "GetOutput", "id=t0-1;step=a[3];" },
        { "GET", "/api/v1/tasks/t0-1/steps/a:explain", "Explain", "id=t0-1;step=a;" },
        { "PUT", "/api/v1/blobs/sha256:ab", "PutBlob", "hash=sha256:ab;" },
        { "POST", "/api/v1/workers/w%3A1:uncordon", "CordonWorker", "id=w:1;" },
        { "GET", "/api/v1/stats/history", "GetHistory", "" },
        { "POST", "/api/v1/tasks/t0-1", NULL, "GET, HEAD, DELETE" },
        { "GET", "/api/v1/tasks/t0-1:cancel", NULL, "POST" },
        { "GET", "/api/v1/tasks/t0-1:nothing", NULL, "" },
        { "GET", "/api/v1/tasks/", NULL, "" },
        { "GET", "/api/v1/tasks/:cancel", NULL, "" },
        { "GET", "/api/v1/tasks//steps", NULL, "" },
        { "GET", "/api/v1/tasks/t0-1/", NULL, "" },
        { "GET", "/api/v1/tasks/%ff", NULL, "" },
        { "GET", "/", NULL, "" },
        { "get", "/healthz", NULL, "GET, HEAD" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct cox_buf allowed = { 0 };
        char params[100] = "";
        const struct route *r = find(cases[i].verb, cases[i].path, params, &allowed);
        if ((r != NULL) != (cases[i].method != NULL))
            fail_msg("%s %s", cases[i].verb, cases[i].path);
        if (r)
            assert_string_equal(r->method, cases[i].method);
        assert_string_equal(r ? params : cox_buf_cstr(&allowed), cases[i].params);
        cox_buf_fini(&allowed);
    }
}

static bool has_field(const struct route *r, const char *name)
{
    const ProtobufCMessageDescriptor *d = route_input(r);

    for (unsigned i = 0; i < d->n_fields; i++)
        if (cox_slice_is(cox_wire_name(&d->fields[i]), name))
            return true;
    return false;
}

/* A slip in the table would be a route that refuses everything. */
static void test_the_table_fits_the_contract(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_routes; i++) {
        const struct route *r = &routes[i];
        if (!r->service)
            continue;
        assert_non_null(route_input(r));
        assert_non_null(route_output(r));
        for (const char *p = strchr(r->pattern, '{'); p; p = strchr(p + 1, '{')) {
            char name[32] = "";
            memcpy(name, p + 1 + (p[1] == '+'), strcspn(p + 1 + (p[1] == '+'), "}"));
            if (!has_field(r, name))
                fail_msg("%s: %s has no field %s", r->pattern, route_input(r)->name, name);
        }
        if (r->fixed) {
            char name[32] = "";
            memcpy(name, r->fixed, strcspn(r->fixed, "="));
            assert_true(has_field(r, name));
        }
        if (r->result)
            assert_non_null(protobuf_c_message_descriptor_get_field_by_name(route_output(r), r->result));
    }
}

/* Every unary method of the services that users call has a route. */
static void test_no_method_is_forgotten(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_routes; i++) {
        const ProtobufCServiceDescriptor *s = routes[i].service;
        for (unsigned m = 0; s && m < s->n_methods; m++) {
            bool found = strcmp(s->methods[m].name, "GetMetrics") == 0; /* /metrics is that */
            for (size_t k = 0; k < n_routes; k++)
                found |= routes[k].service == s && strcmp(routes[k].method, s->methods[m].name) == 0;
            if (!found)
                fail_msg("%s/%s has no route", s->name, s->methods[m].name);
        }
    }
}

/* Maps and shows the message as JSON, or "FIELD: DESCRIPTION". */
static void shown(const ProtobufCMessageDescriptor *type, const char *path, const char *query,
                  const char *body, const char *key, struct cox_buf *out)
{
    struct edge_param fixed[8], params[EDGE_PARAMS_MAX];
    struct cox_buf fixed_memory = { 0 }, memory = { 0 }, packed = { 0 };
    struct map_error error = { { 0 }, { 0 } };
    struct map_input in = { .type = type, .fixed = fixed, .query = params, .body = cox_slice_str(body) };

    in.n_fixed = edge_parse_query(cox_slice_str(path), &fixed_memory, fixed);
    in.n_query = edge_parse_query(cox_slice_str(query), &memory, params);
    if (key)
        in.key = cox_slice_str(key);
    if (map_request(&in, &packed, &error)) {
        cox_buf_printf(out, "%s: %s", cox_buf_cstr(&error.field), cox_buf_cstr(&error.description));
    } else {
        ProtobufCMessage *m = protobuf_c_message_unpack(type, NULL, packed.len, packed.data);
        assert_non_null(m);
        cox_wire_put_json(out, m);
        protobuf_c_message_free_unpacked(m, NULL);
    }
    map_error_fini(&error);
    cox_buf_fini(&packed);
    cox_buf_fini(&memory);
    cox_buf_fini(&fixed_memory);
}

#define LIST &coxswain__v1__list_tasks_request__descriptor
#define SUBMIT &coxswain__v1__submit_task_request__descriptor
#define GET &coxswain__v1__get_task_request__descriptor
#define SIGNAL &coxswain__v1__signal_task_request__descriptor
#define APPROVE &coxswain__v1__approve_step_request__descriptor
#define LOGS &coxswain__v1__get_logs_request__descriptor

static void test_mapping(void **state)
{
    static const struct {
        const ProtobufCMessageDescriptor *type;
        const char *path, *query, *body, *key, *shown; /* of `shown`: a part */
    } cases[] = {
        { GET, "id=t0-1", "wait=30s", "", NULL, "{\"id\":\"t0-1\",\"wait\":\"30s\"}" },
        { GET, "id=t0-1", "wait=soon", "", NULL, "wait: expected a duration" },
        { GET, "id=t0-1", "id=t0-2", "", NULL, "id: given more than once" },
        { GET, "id=t0-1", "wiat=1s", "", NULL, "wiat: unknown parameter; expected one of wait" },
        { LIST, "", "status=RUNNING&statuses=TASK_STATUS_FAILED", "", NULL,
          "\"statuses\":[\"RUNNING\",\"FAILED\"]" },
        { LIST, "", "status=DONE", "", NULL, "statuses[0]: expected one of PENDING" },
        { LIST, "", "label=a=b%3Dc&labels.x.y=z", "", NULL, "\"labels\":{\"a\":\"b=c\",\"x.y\":\"z\"}" },
        { LIST, "", "label=a", "", NULL, "label: expected NAME=VALUE" },
        { LIST, "", "label=a=b&label=a=c", "", NULL, "labels.a: expected each name once" },
        { LIST, "", "page_size=7&min_seq=18446744073709551615", "", NULL,
          "\"page_size\":7,\"page_token\":\"\",\"min_seq\":\"18446744073709551615\"" },
        { LIST, "", "page_size=4294967296", "", NULL, "page_size: expected an integer of at most 32 bits" },
        { LIST, "", "page_size=1&page_size=2", "", NULL, "page_size: given more than once" },
        { LIST, "", "created_after=2026-01-02T03:04:05Z", "", NULL,
          "\"created_after\":\"2026-01-02T03:04:05.000Z\"" },
        { LOGS, "id=a", "follow&attempt=2", "", NULL, "\"attempt\":2,\"follow\":true" },
        { LOGS, "id=a", "follow=0", "", NULL, "\"follow\":false" },
        { LOGS, "id=a", "follow=maybe", "", NULL, "follow: expected true or false" },
        { SIGNAL, "id=a", "", "{\"name\":\"go\",\"payload\":{\"n\":1.50}}", NULL,
          "{\"id\":\"a\",\"name\":\"go\",\"payload\":{\"n\":1.50}}" },
        { SIGNAL, "id=a", "payload=[1]&name=go", "", NULL, "\"payload\":[1]}" },
        { SIGNAL, "id=a", "payload=[", "", NULL, "payload: expected JSON" },
        { SIGNAL, "id=a", "", "{\"id\":\"b\"}", NULL, "id: expected each name once" },
        { SIGNAL, "id=a", "", "{\"name\":1}", NULL, "name: expected a string" },
        { SIGNAL, "id=a", "", "{\"nom\":\"x\"}", NULL, "nom: unknown field" },
        { SIGNAL, "id=a", "", "{\n\"name\":}", NULL, ": line 2, column 8: expected" },
        { SIGNAL, "id=a", "", "[1]", NULL, ": expected a JSON object" },
        { SIGNAL, "id=a", "", " { } ", NULL, "{\"id\":\"a\",\"name\":\"\"" },
        { APPROVE, "approve=false&id=a", "", "{\"step\":\"s\"}", NULL, "\"step\":\"s\",\"approve\":false" },
        { SUBMIT, "", "", "{\"api_version\": \"v1\", \"n\": 1.0}", "k1",
          "{\"document\":{\"api_version\":\"v1\",\"n\":1.0},\"inputs\":null,\"labels\":{},\"key\":\"k1\"" },
        { SUBMIT, "", "dry_run=true", "{\"document\":{\"a\":1},\"labels\":{\"x\":\"y\"}}", NULL,
          "{\"document\":{\"a\":1},\"inputs\":null,\"labels\":{\"x\":\"y\"},\"key\":\"\",\"dry_run\":true}" },
        { SUBMIT, "", "", "{\"key\":\"a\"}", "b", "key: expected each name once" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct cox_buf out = { 0 };
        shown(cases[i].type, cases[i].path, cases[i].query, cases[i].body, cases[i].key, &out);
        if (!strstr(cox_buf_cstr(&out), cases[i].shown))
            fail_msg("case %zu: %s\nexpected: %s", i, cox_buf_cstr(&out), cases[i].shown);
        cox_buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_the_table_fits_the_contract),
        cmocka_unit_test(test_no_method_is_forgotten),
        cmocka_unit_test(test_mapping),
    };

    return cmocka_run_group_tests_name("edge_map", tests, NULL, NULL);
}
