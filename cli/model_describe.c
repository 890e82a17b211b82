#include "model.h"
#include "verbs.h"

#include "cox/wire.h"

#include <inttypes.h>

const struct cli_option cli_model_describe_options[] = { { 0 } };
const char cli_model_describe_help[] =
    "Endpoints, and what calls came to, are shown to who may see all tenants.\n\n"
    "Example:\n"
    "  cox model describe llama-3.1-8b\n";

#define COLUMNS 6
#define COLUMNS_WIDE 12
#define ENDPOINT_COLUMNS 10

void cli_put_money(struct cox_buf *out, int64_t micros, const char *currency)
{
    if (*currency)
        cox_buf_printf(out, "%" PRId64 ".%06" PRId64 " %s", micros / 1000000, micros % 1000000, currency);
}

static void put_price(struct cox_buf *out, const Coxswain__V1__Price *p)
{
    if (!p)
        return;
    const int64_t amounts[] = { p->input_micros, p->cached_input_micros, p->output_micros };

    for (int i = 0; i < 3; i++)
        cox_buf_printf(out, "%s%g", i > 0 ? "/" : "", (double)amounts[i] / 1e6);
    cox_buf_printf(out, " %s per %" PRId64, p->currency, p->per_tokens);
}

static void put_seconds(struct cox_buf *out, double seconds)
{
    if (seconds > 0)
        cox_buf_printf(out, "%gs", seconds);
}

static void put_traffic(struct cox_buf out[5], const Coxswain__V1__ModelTraffic *t)
{
    if (!t)
        return;
    cox_buf_printf(&out[0], "%" PRId64, t->calls);
    cox_buf_printf(&out[1], "%" PRId64, t->failed_calls);
    put_seconds(&out[2], t->ttft_p50_seconds);
    put_seconds(&out[3], t->ttft_p99_seconds);
    if (t->usage && t->usage->cost)
        cli_put_money(&out[4], t->usage->cost->micros, t->usage->cost->currency);
}

void cli_add_model(struct cli_listing *l, const struct cli *cli, const Coxswain__V1__Model *model)
{
    static const char *const heading[] = { "NAME",  "UP",     "QUEUED",  "IN FLIGHT", "ALIASES", "CONTEXT",
                                           "CALLS", "FAILED", "TTFT 50", "TTFT 99",   "COST",    "PRICE" };
    bool wide = cli->format == CLI_WIDE || cli->verb->args_max == 1; /* one model is shown whole */
    struct cox_buf b[11] = { 0 }, json = { 0 };
    const char *cells[COLUMNS_WIDE];

    if (!model) {
        cli_table_row(&l->table, wide ? COLUMNS_WIDE : COLUMNS, heading);
        return;
    }
    cox_buf_printf(&b[0], "%u/%u", model->endpoints_up, model->endpoints);
    cox_buf_printf(&b[1], "%u", model->queue_depth);
    cox_buf_printf(&b[2], "%u", model->in_flight);
    for (size_t i = 0; i < model->n_aliases; i++)
        cox_buf_printf(&b[3], "%s%s", i > 0 ? "," : "", model->aliases[i]);
    if (model->context_tokens > 0)
        cox_buf_printf(&b[4], "%" PRId64, model->context_tokens);
    put_traffic(&b[5], model->traffic);
    put_price(&b[10], model->price);
    cells[0] = model->name;
    for (int i = 0; i < 11; i++)
        cells[i + 1] = cox_buf_cstr(&b[i]);
    if (cli_structured(cli))
        cox_wire_put_json(&json, &model->base);
    cli_listing_add(l, cli, model->name, cox_buf_slice(&json), wide ? COLUMNS_WIDE : COLUMNS, cells);
    cox_buf_fini(&json);
    for (int i = 0; i < 11; i++)
        cox_buf_fini(&b[i]);
}

/* ---- endpoints ---- */

static void put_said(struct cox_buf *out, int32_t n)
{
    if (n >= 0)
        cox_buf_printf(out, "%d", n);
}

static void add_endpoint(struct cli_table *table, const Coxswain__V1__Endpoint *e)
{
    struct cox_buf b[6] = { 0 };

    cox_buf_printf(&b[0], "%u", e->in_flight);
    put_said(&b[1], e->running);
    put_said(&b[2], e->waiting);
    if (e->kv_used >= 0)
        cox_buf_printf(&b[3], "%.0f%%", e->kv_used * 100);
    cox_buf_printf(&b[4], "%" PRId64, e->calls);
    cox_buf_printf(&b[5], "%" PRId64, e->failed_calls);
    const char *cells[ENDPOINT_COLUMNS] = { e->name,
                                            e->gate,
                                            e->engine,
                                            cox_buf_cstr(&b[0]),
                                            cox_buf_cstr(&b[1]),
                                            cox_buf_cstr(&b[2]),
                                            cox_buf_cstr(&b[3]),
                                            cox_buf_cstr(&b[4]),
                                            cox_buf_cstr(&b[5]),
                                            e->why };

    cli_table_row(table, ENDPOINT_COLUMNS, cells);
    for (int i = 0; i < 6; i++)
        cox_buf_fini(&b[i]);
}

static void print_endpoints(const Coxswain__V1__DescribeModelResponse *d)
{
    static const char *const heading[ENDPOINT_COLUMNS] = { "ENDPOINT", "GATE",    "ENGINE", "IN FLIGHT",
                                                           "RUNNING",  "WAITING", "KV",     "CALLS",
                                                           "FAILED",   "WHY" };
    struct cli_table table = { 0 };

    if (d->n_endpoints == 0)
        return;
    printf("\n");
    cli_table_row(&table, ENDPOINT_COLUMNS, heading);
    for (size_t i = 0; i < d->n_endpoints; i++)
        add_endpoint(&table, d->endpoints[i]);
    cli_table_print(&table, stdout);
}

enum cli_exit cli_model_describe(struct cli *cli)
{
    Coxswain__V1__DescribeModelRequest request = COXSWAIN__V1__DESCRIBE_MODEL_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    struct cli_listing l = { 0 };

    request.name = (char *)(uintptr_t)cli->args[0];
    enum cli_exit code = cli_call(cli, &coxswain__v1__model_service__descriptor, "DescribeModel",
                                  &request.base, true, &response);

    if (code)
        return code;
    const Coxswain__V1__DescribeModelResponse *d = (const Coxswain__V1__DescribeModelResponse *)response;

    if (cli_structured(cli)) {
        cli_print_message(cli, response);
    } else if (cli->format == CLI_NAME) {
        printf("%s\n", d->model->name);
    } else {
        cli_add_model(&l, cli, NULL);
        cli_add_model(&l, cli, d->model);
        cli_listing_finish(&l, cli, "models");
        print_endpoints(d);
    }
    protobuf_c_message_free_unpacked(response, NULL);
    return CLI_OK;
}
