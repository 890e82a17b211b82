#include "task.h"

#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/wire.h"

#include <string.h>

#define STDERR_LINES 20
#define FAILURES_MAX 5
#define OUTPUT_TIMEOUT_MS 10000

const char *cli_task_status(Coxswain__V1__TaskStatus status)
{
    const char *text = cox_wire_enum_text(&coxswain__v1__task_status__descriptor, (int)status);

    return text ? text : "?";
}

bool cli_task_ended(const Coxswain__V1__Task *task)
{
    return task->status == COXSWAIN__V1__TASK_STATUS__TASK_STATUS_SUCCEEDED ||
           task->status == COXSWAIN__V1__TASK_STATUS__TASK_STATUS_FAILED ||
           task->status == COXSWAIN__V1__TASK_STATUS__TASK_STATUS_CANCELLED;
}

enum cli_exit cli_task_exit(const Coxswain__V1__Task *task)
{
    return task->status == COXSWAIN__V1__TASK_STATUS__TASK_STATUS_SUCCEEDED ? CLI_OK : CLI_TASK_FAILED;
}

uint32_t cli_steps_in(const Coxswain__V1__Task *task, const char *status)
{
    for (size_t i = 0; task->steps && i < task->steps->n_by_status; i++) {
        if (strcmp(task->steps->by_status[i]->key, status) == 0)
            return task->steps->by_status[i]->value;
    }
    return 0;
}

void cli_put_between(struct cox_buf *out, const Google__Protobuf__Timestamp *from,
                     const Google__Protobuf__Timestamp *to)
{
    if (!from)
        return;
    int64_t start = from->seconds * 1000 + from->nanos / 1000000;
    int64_t end = to ? to->seconds * 1000 + to->nanos / 1000000 : cox_clock_wall_ms();

    int64_t ms = end > start ? end - start : 0;

    cox_put_duration(out, ms < 1000 ? ms : ms < 10000 ? ms / 10 * 10 : ms / 100 * 100);
}

const char *cli_step_name(const Coxswain__V1__Step *step)
{
    const char *slash = strchr(step->address, '/');

    return slash ? slash + 1 : step->address;
}

void cli_put_line(struct cox_buf *out, struct cox_slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        cox_put_u8(out, c == '\n' || c == '\t' ? ' ' : c < 0x20 || c == 0x7f ? '?' : c);
    }
}

/* ---- one task --------------------------------------------------------------------------------------- */

static void put_labels(struct cox_buf *out, const Coxswain__V1__Task *task)
{
    for (size_t i = 0; i < task->n_labels; i++)
        cox_buf_printf(out, "%s%s=%s", i > 0 ? "," : "", task->labels[i]->key, task->labels[i]->value);
}

void cli_put_cost(struct cox_buf *out, const Coxswain__V1__Money *cost)
{
    if (cost && cost->micros > 0)
        cox_buf_printf(out, "%.6g %s", (double)cost->micros / 1e6, cost->currency);
    else
        cox_put_u8(out, '-');
}

/* What models were asked, in and out, wasted included. */
static void put_usage(const Coxswain__V1__Usage *u, struct cox_buf *calls, struct cox_buf *tokens,
                      struct cox_buf *cost)
{
    if (u && (u->model_calls > 0 || u->wasted_tokens > 0)) {
        cox_buf_printf(calls, "%lld", (long long)u->model_calls);
        cox_buf_printf(tokens, "%lld", (long long)(u->input_tokens + u->output_tokens + u->wasted_tokens));
    } else {
        cox_put_u8(calls, '-');
        cox_put_u8(tokens, '-');
    }
    cli_put_cost(cost, u ? u->cost : NULL);
}

#define COLUMNS 7
#define COLUMNS_WIDE 12

void cli_add_task_heading(struct cli_listing *l, const struct cli *cli)
{
    static const char *const heading[COLUMNS_WIDE] = { "ID",     "NAME",   "STATUS",   "STEPS",
                                                       "FAILED", "AGE",    "DURATION", "TENANT",
                                                       "CALLS",  "TOKENS", "COST",     "LABELS" };

    cli_table_row(&l->table, cli->format == CLI_WIDE ? COLUMNS_WIDE : COLUMNS, heading);
}

void cli_add_task(struct cli_listing *l, const struct cli *cli, const Coxswain__V1__Task *task,
                  struct cox_slice json)
{
    struct cox_buf steps = { 0 }, failed = { 0 }, age = { 0 }, duration = { 0 }, labels = { 0 };
    struct cox_buf calls = { 0 }, tokens = { 0 }, cost = { 0 };
    uint32_t done = cli_steps_in(task, "SUCCEEDED") + cli_steps_in(task, "FAILED") +
                    cli_steps_in(task, "SKIPPED") + cli_steps_in(task, "CANCELLED");

    if (task->steps && task->steps->total > 0) {
        cox_buf_printf(&steps, "%u/%u", done, task->steps->total);
        cox_buf_printf(&failed, "%u", cli_steps_in(task, "FAILED"));
    } else { /* lists do not know it of tasks that are out of memory */
        cox_put_u8(&steps, '-');
        cox_put_u8(&failed, '-');
    }
    cli_put_between(&age, task->created_at, NULL);
    cli_put_between(&duration, task->created_at, task->finished_at);
    put_labels(&labels, task);
    put_usage(task->usage, &calls, &tokens, &cost);
    const char *cells[COLUMNS_WIDE] = { task->id,
                                        task->name,
                                        cli_task_status(task->status),
                                        cox_buf_cstr(&steps),
                                        cox_buf_cstr(&failed),
                                        cox_buf_cstr(&age),
                                        cox_buf_cstr(&duration),
                                        task->tenant,
                                        cox_buf_cstr(&calls),
                                        cox_buf_cstr(&tokens),
                                        cox_buf_cstr(&cost),
                                        cox_buf_cstr(&labels) };

    cli_listing_add(l, cli, task->id, json, cli->format == CLI_WIDE ? COLUMNS_WIDE : COLUMNS, cells);
    cox_buf_fini(&steps);
    cox_buf_fini(&failed);
    cox_buf_fini(&age);
    cox_buf_fini(&duration);
    cox_buf_fini(&labels);
    cox_buf_fini(&calls);
    cox_buf_fini(&tokens);
    cox_buf_fini(&cost);
}

void cli_print_task(const struct cli *cli, const Coxswain__V1__Task *task)
{
    struct cli_listing l = { 0 };

    if (cli_structured(cli)) {
        cli_print_message(cli, &task->base);
        return;
    }
    cli_add_task_heading(&l, cli);
    cli_add_task(&l, cli, task, (struct cox_slice){ 0 });
    cli_listing_finish(&l, cli, "tasks");
}

/* ---- failures --------------------------------------------------------------------------------------- */

/* Appends the last lines of `text`, each indented. */
static void put_tail(struct cox_buf *out, struct cox_slice text)
{
    size_t start = text.len, lines = 0;

    while (text.len > 0 && text.data[text.len - 1] == '\n')
        text.len--;
    for (start = text.len; start > 0; start--) {
        if (text.data[start - 1] == '\n' && ++lines == STDERR_LINES)
            break;
    }
    while (start < text.len) {
        const uint8_t *end = memchr(text.data + start, '\n', text.len - start);
        size_t len = end ? (size_t)(end - text.data) - start : text.len - start;
        cox_buf_append_str(out, "    ");
        cli_put_line(out, cox_slice(text.data + start, len));
        cox_put_u8(out, '\n');
        start += len + 1;
    }
}

/* The string member "stderr" of an output; false when it has none, or an empty one. */
static bool put_stderr_of(struct cox_buf *out, struct cox_slice output)
{
    struct cox_slice raw;
    struct cox_buf text = { 0 };
    bool found = output.len > 0 && cox_json_check(output, NULL) == COX_OK &&
                 cox_json_member(output, "stderr", &raw) && cox_json_kind(raw) == COX_JSON_STRING &&
                 raw.len > 2;

    if (found) {
        cox_json_unquote(&text, raw);
        cox_buf_printf(out, "  last lines of stderr:\n");
        put_tail(out, cox_buf_slice(&text));
    }
    cox_buf_fini(&text);
    return found;
}

/* Output too large to be shown with the step is read by itself. */
static bool put_stored_stderr(struct cli *cli, struct cox_buf *out, const char *task_id, const char *step)
{
    Coxswain__V1__GetOutputRequest request = COXSWAIN__V1__GET_OUTPUT_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    struct cox_rpc_error *error = NULL;
    bool found = false;

    request.id = (char *)(uintptr_t)task_id;
    request.step = (char *)(uintptr_t)step;
    if (cli_try(cli, &coxswain__v1__task_service__descriptor, "GetOutput", &request.base, false,
                OUTPUT_TIMEOUT_MS, &response, &error) == CLI_OK) {
        const ProtobufCBinaryData *json = &((Coxswain__V1__GetOutputResponse *)response)->json;
        found = put_stderr_of(out, cox_slice(json->data, json->len));
        protobuf_c_message_free_unpacked(response, NULL);
    }
    cox_rpc_error_free(error);
    return found;
}

static void put_next_command(struct cox_buf *out, const char *code, const char *task_id, const char *step)
{
    if (strcmp(code, "WORKER_LOST") == 0 || strcmp(code, "PREEMPTED") == 0)
        cox_buf_printf(out, "  next: cox worker list\n");
    else if (strcmp(code, "TIMEOUT") == 0)
        cox_buf_printf(out, "  next: cox task logs %s %s   (a longer `timeout:` gives it more time)\n",
                       task_id, step);
    else if (strcmp(code, "INPUT_INVALID") == 0)
        cox_buf_printf(out, "  next: cox task get %s -o json   (its inputs, and the outputs that %s reads)\n",
                       task_id, step);
    else
        cox_buf_printf(out, "  next: cox task logs %s %s\n", task_id, step);
}

void cli_put_failure(struct cli *cli, struct cox_buf *out, const char *task_id,
                     const Coxswain__V1__Step *step)
{
    const char *name = cli_step_name(step), *code = step->error ? step->error->code : "";

    cox_buf_printf(out, "step %s FAILED", name);
    if (step->error) {
        cox_buf_printf(out, ": %s: ", code);
        cli_put_line(out, cox_slice_str(step->error->message));
    }
    cox_put_u8(out, '\n');
    for (size_t i = 0; i < step->n_attempts; i++) {
        const Coxswain__V1__Attempt *a = step->attempts[i];
        if (step->n_attempts > 10 && i >= 3 && i + 3 < step->n_attempts) {
            if (i == 3)
                cox_buf_append_str(out, "  ...\n");
            continue;
        }
        const char *status = cox_wire_enum_text(&coxswain__v1__attempt_status__descriptor, (int)a->status);
        cox_buf_printf(out, "  attempt %u%s%s: %s", a->number, *a->worker ? " on " : "", a->worker,
                       status ? status : "?");
        if (a->exit_code)
            cox_buf_printf(out, ", exit code %d", a->exit_code->value);
        if (a->finished_at) {
            cox_buf_append_str(out, ", after ");
            cli_put_between(out, a->started_at, a->finished_at);
        }
        if (a->fallback)
            cox_buf_append_str(out, ", the fallback");
        cox_put_u8(out, '\n');
    }
    if (!put_stderr_of(out, cox_slice_str(step->output_json)) && step->n_attempts > 0)
        put_stored_stderr(cli, out, task_id, name);
    put_next_command(out, code, task_id, name);
}

void cli_report_failures(struct cli *cli, const Coxswain__V1__Task *task)
{
    Coxswain__V1__DescribeTaskRequest request = COXSWAIN__V1__DESCRIBE_TASK_REQUEST__INIT;
    ProtobufCMessage *response = NULL;
    struct cox_buf out = { 0 };
    unsigned shown = 0;

    cox_buf_printf(&out, "task %s %s", task->id, cli_task_status(task->status));
    if (task->error && *task->error->code) {
        cox_buf_printf(&out, ": %s: ", task->error->code);
        cli_put_line(&out, cox_slice_str(task->error->message));
    }
    cox_put_u8(&out, '\n');
    request.id = task->id;
    if (task->status == COXSWAIN__V1__TASK_STATUS__TASK_STATUS_FAILED &&
        cli_call(cli, &coxswain__v1__task_service__descriptor, "DescribeTask", &request.base, true,
                 &response) == CLI_OK) {
        const Coxswain__V1__DescribeTaskResponse *d = (const Coxswain__V1__DescribeTaskResponse *)response;
        for (size_t i = 0; i < d->n_steps; i++) {
            if (d->steps[i]->status == COXSWAIN__V1__STEP_STATUS__STEP_STATUS_FAILED &&
                shown++ < FAILURES_MAX)
                cli_put_failure(cli, &out, task->id, d->steps[i]);
        }
        protobuf_c_message_free_unpacked(response, NULL);
    }
    if (shown > FAILURES_MAX)
        cox_buf_printf(&out, "and %u more failed steps: cox task describe %s\n", shown - FAILURES_MAX,
                       task->id);
    fflush(stdout);
    fwrite(out.data, 1, out.len, stderr);
    cox_buf_fini(&out);
}
