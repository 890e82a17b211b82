#include "model.h"
#include "task.h"
#include "verbs.h"

#include "cox/wire.h"

#include <inttypes.h>
#include <string.h>

const struct cli_option cli_usage_options[] = {
    { "by", 0, "WHAT", "program (default), task, tenant or model" },
    { "program", 0, "NAME", "of this task or session only" },
    { 0 },
};
const char cli_usage_help[] =
    "What model calls used since the orchestrator was started; the last line says when that was. A program "
    "is "
    "a task,\n"
    "or a session of a client of /v1; the 1,000 that called last are shown. --tenant NAME (or that of the "
    "context) shows\n"
    "one tenant's. Usage by model is of all tenants together. All that a task used stands in\n"
    "`cox task get TASK -o json`.\n\n"
    "Examples:\n"
    "  cox usage\n"
    "  cox usage --by tenant\n"
    "  cox usage --by model -o wide\n"
    "  cox usage --program t0-00000k -o json\n";

#define COLUMNS_MAX 9

static const struct {
    const char *word;
    Coxswain__V1__UsageBy by;
} words[] = {
    { "program", COXSWAIN__V1__USAGE_BY__USAGE_BY_PROGRAM },
    { "task", COXSWAIN__V1__USAGE_BY__USAGE_BY_TASK },
    { "tenant", COXSWAIN__V1__USAGE_BY__USAGE_BY_TENANT },
    { "model", COXSWAIN__V1__USAGE_BY__USAGE_BY_MODEL },
};

static bool read_by(const char *word, Coxswain__V1__UsageBy *ret)
{
    *ret = words[0].by;
    for (size_t i = 0; word && i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(words[i].word, word) == 0) {
            *ret = words[i].by;
            return true;
        }
    }
    if (word)
        cli_error("--by %s: expected program, task, tenant or model", word);
    return !word;
}

/* What tells the row from others: columns before the numbers. */
static size_t put_key(Coxswain__V1__UsageBy by, const Coxswain__V1__UsageRow *row, const char **cells)
{
    switch (by) {
    case COXSWAIN__V1__USAGE_BY__USAGE_BY_MODEL:
        cells[0] = row ? row->model : "MODEL";
        return 1;
    case COXSWAIN__V1__USAGE_BY__USAGE_BY_TENANT:
        cells[0] = row ? row->tenant : "TENANT";
        return 1;
    case COXSWAIN__V1__USAGE_BY__USAGE_BY_TASK:
    case COXSWAIN__V1__USAGE_BY__USAGE_BY_PROGRAM:
    default:
        cells[0] = row ? row->tenant : "TENANT";
        cells[1] = row ? row->program : by == COXSWAIN__V1__USAGE_BY__USAGE_BY_TASK ? "TASK" : "PROGRAM";
        return 2;
    }
}

static void add_row(struct cli_listing *l, const struct cli *cli, Coxswain__V1__UsageBy by,
                    const Coxswain__V1__UsageRow *row)
{
    static const char *const heading[] = {
        "CALLS", "INPUT", "CACHED", "OUTPUT", "WASTED", "COST", "LAST CALL"
    };
    const Coxswain__V1__Usage *u = row ? row->usage : NULL;
    struct cox_buf b[7] = { 0 }, json = { 0 };
    const char *cells[COLUMNS_MAX] = { 0 };
    size_t n_keys = put_key(by, row, cells);
    size_t n =
        by == COXSWAIN__V1__USAGE_BY__USAGE_BY_MODEL ? 6 : 7; /* of a model the last call is not known */

    if (!row) {
        memcpy(cells + n_keys, heading, n * sizeof(*cells));
        cli_table_row(&l->table, n_keys + n, cells);
        return;
    }
    const int64_t numbers[] = { u->model_calls, u->input_tokens, u->cached_input_tokens, u->output_tokens,
                                u->wasted_tokens };

    for (int i = 0; i < 5; i++)
        cox_buf_printf(&b[i], "%" PRId64, numbers[i]);
    cli_put_money(&b[5], u->cost ? u->cost->micros : 0, u->cost ? u->cost->currency : "");
    if (row->last_call_at) {
        cli_put_between(&b[6], row->last_call_at, NULL);
        cox_buf_append_str(&b[6], " ago");
    }
    for (size_t i = 0; i < n; i++)
        cells[n_keys + i] = cox_buf_cstr(&b[i]);
    if (cli_structured(cli))
        cox_wire_put_json(&json, &row->base);
    cli_listing_add(l, cli, cells[n_keys - 1], cox_buf_slice(&json), n_keys + n, cells);
    cox_buf_fini(&json);
    for (int i = 0; i < 7; i++)
        cox_buf_fini(&b[i]);
}

/* What ended before the orchestrator was started last is not in the rows. An older one does not say when. */
static void finish(struct cli_listing *l, const struct cli *cli, const Google__Protobuf__Timestamp *since)
{
    struct cox_buf json = { 0 };
    bool is_table = cli->format == CLI_TABLE || cli->format == CLI_WIDE;

    if (since) {
        cox_wire_put_json(&json, &since->base);
        cox_buf_printf(&l->beside, "\"since\":%s", cox_buf_cstr(&json));
    }
    cli_listing_finish(l, cli, "rows");
    if (since && is_table)
        printf("since %.*s\n", (int)json.len - 2, cox_buf_cstr(&json) + 1);
    cox_buf_fini(&json);
}

enum cli_exit cli_usage(struct cli *cli)
{
    Coxswain__V1__GetUsageRequest request = COXSWAIN__V1__GET_USAGE_REQUEST__INIT;
    const char *program = cli_get(cli, "program");
    ProtobufCMessage *response = NULL;
    struct cli_listing l = { 0 };

    if (!read_by(cli_get(cli, "by"), &request.by))
        return CLI_USAGE;
    if (program)
        request.program = (char *)(uintptr_t)program;
    if (cli->tenant)
        request.tenant = (char *)(uintptr_t)cli->tenant;
    enum cli_exit code =
        cli_call(cli, &coxswain__v1__model_service__descriptor, "GetUsage", &request.base, true, &response);

    if (code)
        return code;
    const Coxswain__V1__GetUsageResponse *answer = (const Coxswain__V1__GetUsageResponse *)response;

    add_row(&l, cli, request.by, NULL);
    for (size_t i = 0; i < answer->n_rows; i++)
        add_row(&l, cli, request.by, answer->rows[i]);
    finish(&l, cli, answer->since);
    protobuf_c_message_free_unpacked(response, NULL);
    return CLI_OK;
}
