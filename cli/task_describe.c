#include "tree.h"
#include "verbs.h"

#include "cox/base/alloc.h"
#include "cox/json.h"
#include "cox/wire.h"

#include <string.h>

#define MAP_CELLS 16
#define ITEM_ERRORS_MAX 5 /* shown; JSON has them all */

const struct cli_option cli_task_describe_options[] = { { 0 } };
const char cli_task_describe_help[] =
    "As JSON: the task as `task get` has it, but `steps` is the list of steps (the counts are in "
    "`step_counts`).\n\n"
    "Examples:\n"
    "  cox task describe t0-00000k\n"
    "  cox task describe t0-00000k scan\n"
    "  cox task describe t0-00000k -o json | jq '.steps[] | {address, status}'\n";

static void print_structured(const struct cli *cli, const Coxswain__V1__DescribeTaskResponse *d)
{
    struct cox_buf task = { 0 }, out = { 0 };
    struct cox_slice counts = cox_slice_str("null");

    cox_wire_put_json(&task, &d->task->base);
    struct cox_json_walk w = cox_json_walk(cox_buf_slice(&task));

    cox_put_u8(&out, '{');
    while (cox_json_next(&w)) {
        if (cox_slice_is(w.key, "\"steps\"")) {
            counts = w.value;
            continue;
        }
        cox_buf_append_slice(&out, w.key);
        cox_put_u8(&out, ':');
        cox_buf_append_slice(&out, w.value);
        cox_put_u8(&out, ',');
    }
    cox_buf_append_str(&out, "\"step_counts\":");
    cox_buf_append_slice(&out, counts);
    cox_buf_append_str(&out, ",\"steps\":[");
    for (size_t i = 0; i < d->n_steps; i++) {
        cox_buf_append_str(&out, i > 0 ? "," : "");
        cox_wire_put_json(&out, &d->steps[i]->base);
    }
    cox_buf_append_str(&out, "]}");
    cli_print_json(cli, cox_buf_slice(&out));
    cox_buf_fini(&task);
    cox_buf_fini(&out);
}

static void add_step(struct cli_table *table, const Coxswain__V1__Step *step, const struct cli_branch *branch)
{
    const Coxswain__V1__Attempt *first = step->n_attempts > 0 ? step->attempts[0] : NULL;
    const Coxswain__V1__Attempt *last = step->n_attempts > 0 ? step->attempts[step->n_attempts - 1] : NULL;
    const char *status = cox_wire_enum_text(&coxswain__v1__step_status__descriptor, (int)step->status);
    struct cox_buf name = { 0 }, attempts = { 0 }, duration = { 0 }, reason = { 0 };

    cox_buf_printf(&name, "%*s%s", (int)(2 * branch->depth), "", cli_step_name(step) + branch->leaf);
    cox_buf_printf(&attempts, "%u", last ? last->number : 0); /* of many, not all are kept */
    if (first)
        cli_put_between(&duration, first->started_at, last->finished_at);
    cli_put_map(&reason, step, MAP_CELLS);
    cox_buf_append_str(&reason, reason.len > 0 ? "  " : "");
    if (step->error && *step->error->code)
        cox_buf_printf(&reason, "%s: %s", step->error->code, step->error->message);
    else if (*step->via)
        cox_buf_printf(&reason, "via %s", step->via);
    else
        cox_buf_append_str(&reason, step->reason);
    const char *cells[] = { cox_buf_cstr(&name),
                            step->kind,
                            status,
                            cox_buf_cstr(&attempts),
                            last ? last->worker : "",
                            cox_buf_cstr(&duration),
                            cox_buf_cstr(&reason) };

    cli_table_row(table, 7, cells);
    cox_buf_fini(&name);
    cox_buf_fini(&attempts);
    cox_buf_fini(&duration);
    cox_buf_fini(&reason);
}

/* A map can succeed though some of its items failed: what became of those stands nowhere else. */
static void put_item_errors(struct cox_buf *out, const char *task_id, const Coxswain__V1__Step *step)
{
    struct cox_slice errors = cox_slice_str(step->errors_json);
    struct cox_buf lines = { 0 };
    size_t n = 0;

    if (errors.len == 0 || cox_json_check(errors, NULL) != COX_OK || cox_json_kind(errors) != COX_JSON_ARRAY)
        return;
    for (struct cox_json_walk w = cox_json_walk(errors); cox_json_next(&w); n++) {
        struct cox_slice index = { 0 }, code = { 0 }, message = { 0 };
        struct cox_buf text = { 0 };
        if (n >= ITEM_ERRORS_MAX || !cox_json_member(w.value, "index", &index) ||
            !cox_json_member(w.value, "code", &code) || !cox_json_member(w.value, "message", &message))
            continue;
        cox_json_unquote(&text, code);
        cox_buf_append_str(&text, ": ");
        cox_json_unquote(&text, message);
        cox_buf_printf(&lines, "  item %.*s: ", (int)index.len, (const char *)index.data);
        cli_put_line(&lines, cox_buf_slice(&text));
        cox_put_u8(&lines, '\n');
        cox_buf_fini(&text);
    }
    if (n > 0)
        cox_buf_printf(out, "\nstep %s: %zu item%s failed\n%s", cli_step_name(step), n, n == 1 ? "" : "s",
                       cox_buf_cstr(&lines));
    if (n > ITEM_ERRORS_MAX)
        cox_buf_printf(out, "  next: cox task describe %s %s -o json | jq '.steps[].errors'\n", task_id,
                       cli_step_name(step));
    cox_buf_fini(&lines);
}

static void print_usage(const Coxswain__V1__Usage *u)
{
    struct cox_buf cost = { 0 };

    if (!u || (u->model_calls == 0 && u->wasted_tokens == 0))
        return;
    cli_put_cost(&cost, u->cost);
    printf("models: %lld calls, %lld tokens in (%lld of them cached), %lld out, %lld wasted, cost %s\n",
           (long long)u->model_calls, (long long)u->input_tokens, (long long)u->cached_input_tokens,
           (long long)u->output_tokens, (long long)u->wasted_tokens, cox_buf_cstr(&cost));
    cox_buf_fini(&cost);
}

static void print_text(struct cli *cli, const Coxswain__V1__DescribeTaskResponse *d)
{
    static const char *const heading[] = { "STEP",   "KIND",     "STATUS", "ATTEMPTS",
                                           "WORKER", "DURATION", "REASON" };
    struct cli_table table = { 0 };
    struct cox_buf failures = { 0 };

    cli_print_task(cli, d->task);
    if (d->task->error && *d->task->error->code) {
        cox_buf_printf(&failures, "error: %s: ", d->task->error->code);
        cli_put_line(&failures, cox_slice_str(d->task->error->message));
        printf("%s\n", cox_buf_cstr(&failures));
        cox_buf_clear(&failures);
    }
    print_usage(d->task->usage);
    fputc('\n', stdout);
    cli_table_row(&table, 7, heading);
    const char **names = cox_calloc(d->n_steps + 1, sizeof(*names));

    for (size_t i = 0; i < d->n_steps; i++)
        names[i] = cli_step_name(d->steps[i]);
    struct cli_branch *order = cli_tree_order(d->n_steps, names);

    for (size_t i = 0; i < d->n_steps; i++) {
        const Coxswain__V1__Step *step = d->steps[order[i].step];
        add_step(&table, step, &order[i]);
        if (step->status == COXSWAIN__V1__STEP_STATUS__STEP_STATUS_FAILED) {
            cox_put_u8(&failures, '\n');
            cli_put_failure(cli, &failures, d->task->id, step);
        }
        put_item_errors(&failures, d->task->id, step);
    }
    cox_free(names);
    cox_free(order);
    cli_table_print(&table, stdout);
    fwrite(failures.data, 1, failures.len, stdout);
    cox_buf_fini(&failures);
}

enum cli_exit cli_task_describe(struct cli *cli)
{
    Coxswain__V1__DescribeTaskRequest request = COXSWAIN__V1__DESCRIBE_TASK_REQUEST__INIT;
    ProtobufCMessage *response = NULL;

    request.id = (char *)(uintptr_t)cli->args[0];
    if (cli->n_args > 1)
        request.step = (char *)(uintptr_t)cli->args[1];
    enum cli_exit code = cli_call(cli, &coxswain__v1__task_service__descriptor, "DescribeTask", &request.base,
                                  true, &response);

    if (code)
        return code;
    const Coxswain__V1__DescribeTaskResponse *d = (const Coxswain__V1__DescribeTaskResponse *)response;

    if (cli_structured(cli)) {
        print_structured(cli, d);
    } else if (cli->format == CLI_NAME) {
        for (size_t i = 0; i < d->n_steps; i++)
            printf("%s\n", d->steps[i]->address);
    } else {
        print_text(cli, d);
    }
    protobuf_c_message_free_unpacked(response, NULL);
    return CLI_OK;
}
