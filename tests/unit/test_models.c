/* ModelService over a router whose numbers the test writes: who sees what, and metrics of models. */
#include "api/internal.h"
#include "models.h"

#include "check.h"

#include "cox/base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- calls without a wire ---- */

static struct cox_caller caller;
static ProtobufCMessage *answer; /* of the last call; NULL: it failed */
static struct cox_rpc_error refusal;
static char refusal_text[256];

const struct cox_caller *__wrap_cox_access_caller(const struct cox_rpc_call *call);
void __wrap_cox_rpc_reply(struct cox_rpc_call *call, const ProtobufCMessage *message);
void __wrap_cox_rpc_fail(struct cox_rpc_call *call, const struct cox_rpc_error *error);

const struct cox_caller *__wrap_cox_access_caller(const struct cox_rpc_call *call)
{
    (void)call;
    return &caller;
}

void __wrap_cox_rpc_reply(struct cox_rpc_call *call, const ProtobufCMessage *message)
{
    uint8_t *bytes = cox_alloc(protobuf_c_message_get_packed_size(message));
    size_t len = protobuf_c_message_pack(message, bytes);

    (void)call;
    answer = protobuf_c_message_unpack(message->descriptor, NULL, len, bytes);
    cox_free(bytes);
}

void __wrap_cox_rpc_fail(struct cox_rpc_call *call, const struct cox_rpc_error *error)
{
    (void)call;
    refusal = *error;
    snprintf(refusal_text, sizeof(refusal_text), "%s", error->message);
}

static struct cox_api *api;

static void ask(cox_api_method *method, const ProtobufCMessage *request)
{
    if (answer)
        protobuf_c_message_free_unpacked(answer, NULL);
    answer = NULL;
    refusal = (struct cox_rpc_error){ 0 };
    method(NULL, request, api);
    assert_true((answer == NULL) == (refusal.status != COX_RPC_OK));
}

/* ---- the router ---- */

static struct router_stats *read_numbers(void *user)
{
    struct router_stats *s = COX_NEW(struct router_stats);

    s->since_wall_ms = 1700000000000;
    (void)user;
    s->models = cox_calloc(3, sizeof(*s->models));
    s->n_models = 2;
    for (size_t i = 0; i < 2; i++) {
        struct router_model_stats *m = &s->models[i];

        m->name = cox_asprintf("model-%zu", i);
        m->aliases = cox_calloc(1, sizeof(*m->aliases));
        m->aliases[m->n_aliases++] = cox_asprintf("alias-%zu", i);
        m->endpoints = cox_calloc(2, sizeof(*m->endpoints));
        m->n_endpoints = 2;
        for (size_t k = 0; k < 2; k++)
            m->endpoints[k] = (struct router_endpoint_stats){ .name = cox_asprintf("h:%zu", k),
                                                              .url = cox_asprintf("http://h:%zu/v1", k),
                                                              .up = k == 0,
                                                              .gate = k == 0 ? "open" : "closed",
                                                              .why = k == 0 ? "" : "5 failures in a row",
                                                              .engine = "vllm",
                                                              .running = 3,
                                                              .waiting = -1,
                                                              .kv_used_permille = 250 };
        m->price = (struct model_price){ 150000, 600000, 75000, 1000000, "USD" };
        m->n_calls = 100;
        m->n_errors = 7;
        m->input_tokens = 1000;
        m->cost_micros = 33;
        m->queue_depth = 5;
        m->ttft[3] = 98;
        m->ttft[7] = 2;
        m->ttft_sum_s = 5.5;
    }
    s->programs = cox_calloc(3, sizeof(*s->programs));
    for (; s->n_programs < 3; s->n_programs++)
        s->programs[s->n_programs] = (struct router_program_stats){
            .tenant = cox_strdup(s->n_programs == 1 ? "beta" : "alpha"),
            .program = cox_asprintf("p%zu", s->n_programs),
            .outside = s->n_programs != 2,
            .n_calls = 10 + s->n_programs,
            .cost_micros = 7,
            .currency = "USD",
            .last_wall_ms = 1000,
        };
    s->tenants = cox_calloc(2, sizeof(*s->tenants));
    for (; s->n_tenants < 2; s->n_tenants++)
        s->tenants[s->n_tenants] =
            (struct router_tenant_stats){ .tenant = cox_strdup(s->n_tenants ? "beta" : "alpha"),
                                          .n_calls = 20 };

    return s;
}

static struct cox_api *fresh(void **state)
{
    (void)state;
    api = cox_api_create();
    cox_api_set_router(api, read_numbers, NULL);
    caller = (struct cox_caller){ .name = "x", .tenant = "alpha", .whole = true };
    return api;
}

static void done(void)
{
    if (answer)
        protobuf_c_message_free_unpacked(answer, NULL);
    answer = NULL;
    cox_api_destroy(api);
}

/* ---- tests ---- */

static void pages_of_models(void **state)
{
    Coxswain__V1__ListModelsRequest q = COXSWAIN__V1__LIST_MODELS_REQUEST__INIT;
    char token[24];

    fresh(state);
    q.page_size = 1;
    ask(cox_api_list_models, &q.base);
    const Coxswain__V1__ListModelsResponse *page = (const Coxswain__V1__ListModelsResponse *)answer;

    assert_int_equal(page->n_models, 1);
    const Coxswain__V1__Model *m = page->models[0];

    assert_string_equal(m->name, "model-0");
    assert_string_equal(m->aliases[0], "alias-0");
    assert_int_equal(m->endpoints, 2);
    assert_int_equal(m->endpoints_up, 1);
    assert_int_equal(m->queue_depth, 5);
    assert_int_equal(m->price->cached_input_micros, 75000);
    assert_int_equal(m->traffic->calls, 100);
    assert_int_equal(m->traffic->failed_calls, 7);
    assert_true(m->traffic->ttft_p50_seconds == router_ttft_bounds_s[3]);
    assert_true(m->traffic->ttft_p99_seconds == router_ttft_bounds_s[7]);
    assert_int_equal(m->traffic->usage->cost->micros, 33);
    assert_string_equal(page->next_page_token, "1");
    snprintf(token, sizeof(token), "%s", page->next_page_token);
    q.page_token = token;
    ask(cox_api_list_models, &q.base);
    page = (const Coxswain__V1__ListModelsResponse *)answer;
    assert_int_equal(page->n_models, 1);
    assert_string_equal(page->models[0]->name, "model-1");
    assert_string_equal(page->next_page_token, "");
    q.page_token = "x";
    ask(cox_api_list_models, &q.base);
    assert_int_equal(refusal.status, COX_RPC_INVALID_ARGUMENT);
    done();
}

static void one_model_by_its_alias(void **state)
{
    Coxswain__V1__DescribeModelRequest q = COXSWAIN__V1__DESCRIBE_MODEL_REQUEST__INIT;

    fresh(state);
    q.name = "alias-1";
    ask(cox_api_describe_model, &q.base);
    const Coxswain__V1__DescribeModelResponse *d = (const Coxswain__V1__DescribeModelResponse *)answer;

    assert_string_equal(d->model->name, "model-1");
    assert_int_equal(d->n_endpoints, 2);
    assert_string_equal(d->endpoints[1]->gate, "closed");
    assert_string_equal(d->endpoints[1]->why, "5 failures in a row");
    assert_int_equal(d->endpoints[1]->waiting, -1);
    assert_true(d->endpoints[1]->kv_used == 0.25);
    q.name = "nothing";
    ask(cox_api_describe_model, &q.base);
    assert_int_equal(refusal.status, COX_RPC_NOT_FOUND);
    done();
}

static void who_has_one_tenant_sees_neither_servers_nor_others(void **state)
{
    Coxswain__V1__DescribeModelRequest describe = COXSWAIN__V1__DESCRIBE_MODEL_REQUEST__INIT;
    Coxswain__V1__GetUsageRequest q = COXSWAIN__V1__GET_USAGE_REQUEST__INIT;

    fresh(state);
    caller.whole = false;
    describe.name = "model-0";
    ask(cox_api_describe_model, &describe.base);
    const Coxswain__V1__DescribeModelResponse *d = (const Coxswain__V1__DescribeModelResponse *)answer;

    assert_int_equal(d->model->endpoints_up, 1);
    assert_int_equal(d->n_endpoints, 0);
    assert_null(d->model->traffic);

    ask(cox_api_get_usage, &q.base);
    const Coxswain__V1__GetUsageResponse *u = (const Coxswain__V1__GetUsageResponse *)answer;

    assert_int_equal(u->n_rows, 2);
    assert_string_equal(u->rows[0]->program, "p0");
    assert_string_equal(u->rows[1]->program, "p2");
    q.tenant = "beta";
    ask(cox_api_get_usage, &q.base);
    assert_int_equal(((const Coxswain__V1__GetUsageResponse *)answer)->n_rows, 0);
    q.tenant = "";
    q.by = COXSWAIN__V1__USAGE_BY__USAGE_BY_TENANT;
    ask(cox_api_get_usage, &q.base);
    u = (const Coxswain__V1__GetUsageResponse *)answer;
    assert_int_equal(u->n_rows, 1);
    assert_string_equal(u->rows[0]->tenant, "alpha");
    q.by = COXSWAIN__V1__USAGE_BY__USAGE_BY_MODEL;
    ask(cox_api_get_usage, &q.base);
    assert_int_equal(refusal.status, COX_RPC_PERMISSION_DENIED);
    done();
}

static void usage_is_added_up_as_asked(void **state)
{
    Coxswain__V1__GetUsageRequest q = COXSWAIN__V1__GET_USAGE_REQUEST__INIT;

    fresh(state);
    ask(cox_api_get_usage, &q.base);
    const Coxswain__V1__GetUsageResponse *u = (const Coxswain__V1__GetUsageResponse *)answer;

    assert_int_equal(u->n_rows, 3);
    assert_int_equal(u->since->seconds, 1700000000);
    assert_int_equal(u->rows[1]->usage->model_calls, 11);
    assert_string_equal(u->rows[1]->usage->cost->currency, "USD");
    assert_false(u->rows[1]->is_task);
    q.tenant = "beta";
    ask(cox_api_get_usage, &q.base);
    assert_int_equal(((const Coxswain__V1__GetUsageResponse *)answer)->n_rows, 1);
    q.tenant = "";
    q.by = COXSWAIN__V1__USAGE_BY__USAGE_BY_TASK;
    ask(cox_api_get_usage, &q.base);
    u = (const Coxswain__V1__GetUsageResponse *)answer;
    assert_int_equal(u->n_rows, 1);
    assert_true(u->rows[0]->is_task);
    q.by = COXSWAIN__V1__USAGE_BY__USAGE_BY_PROGRAM;
    q.program = "p1";
    ask(cox_api_get_usage, &q.base);
    assert_int_equal(((const Coxswain__V1__GetUsageResponse *)answer)->n_rows, 1);
    q.by = COXSWAIN__V1__USAGE_BY__USAGE_BY_MODEL;
    ask(cox_api_get_usage, &q.base);
    u = (const Coxswain__V1__GetUsageResponse *)answer;
    assert_int_equal(u->n_rows, 2);
    assert_string_equal(u->rows[1]->model, "model-1");
    assert_int_equal(u->rows[1]->usage->input_tokens, 1000);
    q.by = (Coxswain__V1__UsageBy)77;
    ask(cox_api_get_usage, &q.base);
    assert_int_equal(refusal.status, COX_RPC_INVALID_ARGUMENT);
    done();
}

static void without_a_router_there_is_nothing(void **state)
{
    Coxswain__V1__ListModelsRequest list = COXSWAIN__V1__LIST_MODELS_REQUEST__INIT;
    Coxswain__V1__GetUsageRequest usage = COXSWAIN__V1__GET_USAGE_REQUEST__INIT;

    fresh(state);
    cox_api_set_router(api, NULL, NULL);
    ask(cox_api_list_models, &list.base);
    assert_int_equal(((const Coxswain__V1__ListModelsResponse *)answer)->n_models, 0);
    ask(cox_api_get_usage, &usage.base);
    assert_int_equal(((const Coxswain__V1__GetUsageResponse *)answer)->n_rows, 0);
    done();
}

/* ---- metrics ---- */

static void put_sample(void *user, const struct cox_sample *s)
{
    struct cox_buf *out = user;

    cox_buf_append_str(out, s->name);
    for (size_t i = 0; i < s->n_labels; i++)
        cox_buf_printf(out, " %.*s=%.*s", (int)s->labels[i].name.len, (const char *)s->labels[i].name.data,
                       (int)s->labels[i].value.len, (const char *)s->labels[i].value.data);
    cox_buf_printf(out, " %g\n", s->value);
}

static void metrics_have_models_and_endpoints(void **state)
{
    static const char *const lines[] = {
        "cox_model_queue_depth model=model-0 5\n",
        "cox_model_calls_total model=model-0 status=ok 93\n",
        "cox_model_calls_total model=model-1 status=error 7\n",
        "cox_model_tokens_total model=model-0 direction=input 1000\n",
        "cox_model_cost_micros_total model=model-0 currency=USD 33\n",
        "cox_endpoint_up model=model-0 endpoint=h:0 1\n",
        "cox_endpoint_up model=model-1 endpoint=h:1 0\n",
        "cox_model_ttft_seconds_bucket model=model-0 le=+Inf 100\n",
        "cox_model_ttft_seconds_sum model=model-0 5.5\n",
        "cox_model_ttft_seconds_count model=model-0 100\n",
    };
    struct cox_metric_source src = { 0 };
    struct router_stats *s = read_numbers(NULL);
    struct cox_buf text = { 0 };

    (void)state;
    src.router = s;
    cox_metrics_read(&src, "cox_model_", put_sample, &text);
    cox_metrics_read(&src, "cox_endpoint_", put_sample, &text);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        if (!strstr(cox_buf_cstr(&text), lines[i]))
            fail_msg("not there: %s", lines[i]);
    router_stats_free(s);
    cox_buf_fini(&text);
}

/* ---- where the models come from ---- */

static void an_error_names_its_line(void **state)
{
    char path[] = "/tmp/cox-models-XXXXXX";
    static const char text[] =
        "log_level: info\nmodels:\n  - name: a\n    endpoints:\n      - url: ftp://x\n";
    int fd = mkstemp(path);
    char *argv[] = { "coxd", "--config", path, "--model", "b=http://h:1", NULL };
    struct cox_config *settings = NULL;
    struct catalogue_text *ret = NULL;
    struct coxd_config config;
    struct cox_buf error = { 0 };

    (void)state;
    assert_true(fd >= 0 && write(fd, text, sizeof(text) - 1) == (ssize_t)sizeof(text) - 1 && close(fd) == 0);
    assert_int_equal(coxd_config_read(&config, 5, argv, stderr, &settings), COX_CONFIG_RUN);
    assert_int_equal(coxd_models_read(&config, settings, &ret, &error), COX_ERR_INVALID);
    assert_non_null(
        strstr(cox_buf_cstr(&error), "line 5: models[0].endpoints[0].url: \"ftp://x\"; expected a URL"));
    cox_buf_fini(&error);
    cox_config_destroy(settings);
    unlink(path);
    argv[1] = NULL;
    assert_int_equal(coxd_config_read(&config, 1, argv, stderr, &settings), COX_CONFIG_RUN);
    assert_int_equal(coxd_models_read(&config, settings, &ret, &error), COX_OK);
    catalogue_text_free(ret);
    cox_config_destroy(settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_of_models),
        cmocka_unit_test(one_model_by_its_alias),
        cmocka_unit_test(who_has_one_tenant_sees_neither_servers_nor_others),
        cmocka_unit_test(usage_is_added_up_as_asked),
        cmocka_unit_test(without_a_router_there_is_nothing),
        cmocka_unit_test(metrics_have_models_and_endpoints),
        cmocka_unit_test(an_error_names_its_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
