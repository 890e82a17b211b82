/* A live view of the whole: what runs, what waits and why, who works. */
#include "select.h"
#include "verbs.h"
#include "worker.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/wire.h"

#include "coxswain/v1/stats_service.pb-c.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define WORKERS_MAX 1000
#define TASKS_SHOWN 10
#define QUEUES_SHOWN 8

const struct cli_option cli_top_options[] = {
    { "every", 0, "DURATION", "how often (default 1s)" },
    { "once", 0, NULL, "once, then end" },
    { 0 },
};
const char cli_top_help[] =
    "On a terminal a screen that is drawn again and again, until Ctrl-C; elsewhere a line each time. As "
    "JSON, an "
    "object\n"
    "each time: all statistics, and the workers.\n\n"
    "Examples:\n"
    "  cox top\n"
    "  cox top --every 10s >> load.txt\n"
    "  cox top --once -o json | jq '.samples[] | select(.name == \"cox_queue_depth\")'\n";

struct top {
    struct cli *cli;
    Coxswain__V1__GetStatsResponse *stats; /* NULL: this orchestrator has none */
    Coxswain__V1__ListWorkersResponse *workers;
    Coxswain__V1__ListTasksResponse *tasks; /* that have not ended; NULL: it does not list them */
    bool no_stats, no_tasks;
    double finished; /* of the last time */
    int64_t finished_ns;
    double rate; /* steps a second; negative: not known */
    bool screen;
};

static const char *label_of(const Coxswain__V1__Sample *s, const char *key)
{
    for (size_t i = 0; i < s->n_labels; i++) {
        if (strcmp(s->labels[i]->key, key) == 0)
            return s->labels[i]->value;
    }
    return "";
}

/* Sum of a metric over its samples, with a label of this value unless `key` is NULL. */
static double sum(const struct top *t, const char *name, const char *key, const char *value)
{
    double total = 0;

    for (size_t i = 0; t->stats && i < t->stats->n_samples; i++) {
        const Coxswain__V1__Sample *s = t->stats->samples[i];
        if (strcmp(s->name, name) == 0 && (!key || strcmp(label_of(s, key), value) == 0))
            total += s->value;
    }
    return total;
}

/* ---- reading --------------------------------------------------------------------------------------------
 */

static void drop(struct top *t)
{
    if (t->stats)
        protobuf_c_message_free_unpacked(&t->stats->base, NULL);
    if (t->workers)
        protobuf_c_message_free_unpacked(&t->workers->base, NULL);
    if (t->tasks)
        protobuf_c_message_free_unpacked(&t->tasks->base, NULL);
    t->stats = NULL;
    t->workers = NULL;
    t->tasks = NULL;
}

/* A part that this orchestrator lacks is left out of the view, said once. */
static enum cli_exit ask(struct top *t, const ProtobufCServiceDescriptor *service, const char *method,
                         const ProtobufCMessage *request, bool *lacks, ProtobufCMessage **ret)
{
    struct cox_rpc_error *error = NULL;
    enum cli_exit code = cli_try(t->cli, service, method, request, true, 60000, ret, &error);

    if (code && error && lacks && error->status == COX_RPC_UNIMPLEMENTED) {
        *lacks = true;
        cli_note(t->cli, "%s: not available in this version of coxd; the view goes without", method);
        code = CLI_OK;
    } else if (error) {
        cli_print_error(t->cli, error);
    }
    cox_rpc_error_free(error);
    return code;
}

static enum cli_exit read_all(struct top *t)
{
    Coxswain__V1__GetStatsRequest stats = COXSWAIN__V1__GET_STATS_REQUEST__INIT;
    Coxswain__V1__ListWorkersRequest workers = COXSWAIN__V1__LIST_WORKERS_REQUEST__INIT;
    struct cli_select s = { .request = COXSWAIN__V1__LIST_TASKS_REQUEST__INIT };
    ProtobufCMessage *answer = NULL;
    enum cli_exit code = CLI_OK;

    drop(t);
    s.request.statuses = s.statuses;
    s.request.page_size = TASKS_SHOWN;
    cli_select_statuses(&s, CLI_STATUSES_LIVE);
    workers.page_size = WORKERS_MAX;
    if (!t->no_stats)
        code =
            ask(t, &coxswain__v1__stats_service__descriptor, "GetStats", &stats.base, &t->no_stats, &answer);
    if (!code && !t->no_stats)
        t->stats = (Coxswain__V1__GetStatsResponse *)answer;
    if (!code)
        code = ask(t, &coxswain__v1__fleet_service__descriptor, "ListWorkers", &workers.base, NULL, &answer);
    if (!code)
        t->workers = (Coxswain__V1__ListWorkersResponse *)answer;
    if (!code && !t->no_tasks && t->screen)
        code = ask(t, &coxswain__v1__task_service__descriptor, "ListTasks", &s.request.base, &t->no_tasks,
                   &answer);
    if (!code && !t->no_tasks && t->screen)
        t->tasks = (Coxswain__V1__ListTasksResponse *)answer;
    int64_t now = cox_clock_mono_ns();
    double finished = sum(t, "cox_steps_finished_total", NULL, NULL);

    t->rate =
        t->finished_ns && t->stats ? (finished - t->finished) / ((double)(now - t->finished_ns) / 1e9) : -1;
    t->finished = finished;
    t->finished_ns = now;
    return code;
}

/* ---- showing --------------------------------------------------------------------------------------------
 */

static void count_workers(const struct top *t, unsigned *ret_slots, unsigned *ret_busy,
                          unsigned *ret_attached)
{
    *ret_slots = *ret_busy = *ret_attached = 0;
    for (size_t i = 0; i < t->workers->n_workers; i++) {
        const Coxswain__V1__Worker *w = t->workers->workers[i];
        if (w->state == COXSWAIN__V1__WORKER_STATE__WORKER_STATE_DISCONNECTED)
            continue;
        *ret_slots += w->slots;
        *ret_busy += w->assigned;
        ++*ret_attached;
    }
}

static void put_summary(struct cox_buf *out, const struct top *t)
{
    unsigned slots, busy, attached;

    count_workers(t, &slots, &busy, &attached);
    cox_put_time(out, cox_clock_wall_ms());
    cox_buf_printf(out, "  workers %u  slots %u/%u", attached, busy, slots);
    if (!t->stats)
        return;
    cox_buf_printf(out, "  queued %.0f", sum(t, "cox_queue_depth", NULL, NULL));
    if (t->rate >= 0)
        cox_buf_printf(out, "  steps/s %.1f", t->rate);
    cox_buf_printf(out, "  tasks ended %.0f (%.0f failed)", sum(t, "cox_tasks_finished_total", NULL, NULL),
                   sum(t, "cox_tasks_finished_total", "status", "FAILED"));
}

static void put_queues(struct cox_buf *out, const struct top *t)
{
    unsigned shown = 0;

    for (size_t i = 0; t->stats && i < t->stats->n_samples && shown < QUEUES_SHOWN; i++) {
        const Coxswain__V1__Sample *s = t->stats->samples[i];
        if (strcmp(s->name, "cox_queue_depth") != 0 || s->value <= 0)
            continue;
        cox_buf_printf(out, "%s  %8.0f", shown++ == 0 ? "\nQUEUED\n" : "", s->value);
        for (size_t k = 0; k < s->n_labels; k++)
            cox_buf_printf(out, "  %s=%s", s->labels[k]->key, s->labels[k]->value);
        cox_put_u8(out, '\n');
    }
}

static void print_screen(const struct top *t, bool redraw)
{
    struct cli_listing tasks = { 0 }, workers = { 0 };
    struct cox_buf out = { 0 };

    if (redraw)
        fputs("\033[H\033[2J", stdout);
    put_summary(&out, t);
    cox_put_u8(&out, '\n');
    put_queues(&out, t);
    fwrite(out.data, 1, out.len, stdout);
    cox_buf_fini(&out);
    if (t->tasks && t->tasks->n_tasks > 0) {
        fputs("\n", stdout);
        cli_add_task_heading(&tasks, t->cli);
        for (size_t i = 0; i < t->tasks->n_tasks; i++)
            cli_add_task(&tasks, t->cli, t->tasks->tasks[i], (struct cox_slice){ 0 });
        cli_listing_finish(&tasks, t->cli, "tasks");
    }
    fputs("\n", stdout);
    cli_add_worker(&workers, t->cli, NULL);
    struct winsize size;
    size_t rows =
        redraw && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 26 ? size.ws_row - 24u : 8;

    for (size_t i = 0; i < t->workers->n_workers && (!redraw || i < rows); i++)
        cli_add_worker(&workers, t->cli, t->workers->workers[i]);
    cli_listing_finish(&workers, t->cli, "workers");
    if (redraw && t->workers->n_workers > rows)
        printf("and %zu more\n", t->workers->n_workers - rows);
}

static void print_json(const struct top *t)
{
    struct cox_buf json = { 0 };

    cox_buf_append_str(&json, "{\"time\":\"");
    cox_put_time(&json, cox_clock_wall_ms());
    cox_buf_append_str(&json, "\",\"samples\":[");
    for (size_t i = 0; t->stats && i < t->stats->n_samples; i++) {
        cox_buf_append_str(&json, i > 0 ? "," : "");
        cox_wire_put_json(&json, &t->stats->samples[i]->base);
    }
    cox_buf_append_str(&json, "],\"workers\":[");
    for (size_t i = 0; i < t->workers->n_workers; i++) {
        cox_buf_append_str(&json, i > 0 ? "," : "");
        cox_wire_put_json(&json, &t->workers->workers[i]->base);
    }
    cox_buf_append_str(&json, "]}");
    cli_print_json(t->cli, cox_buf_slice(&json));
    cox_buf_fini(&json);
}

static void show(const struct top *t, bool redraw)
{
    struct cox_buf line = { 0 };

    if (cli_structured(t->cli)) {
        print_json(t);
    } else if (t->screen) {
        print_screen(t, redraw);
    } else {
        put_summary(&line, t);
        printf("%s\n", cox_buf_cstr(&line));
        cox_buf_fini(&line);
    }
    fflush(stdout);
}

enum cli_exit cli_top(struct cli *cli)
{
    const char *term = getenv("TERM");
    bool terminal = isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0 && !cli_structured(cli);
    bool once = cli_has(cli, "once");
    struct top t = { .cli = cli, .screen = (terminal || once) && !cli_structured(cli) };
    int64_t every_ms;
    enum cli_exit code = cli_get_duration(cli, "every", 1000, &every_ms);

    if (!code && every_ms < 1) {
        cli_error("--every: expected more than 0");
        code = CLI_USAGE;
    }
    if (cli->format == CLI_JSON && !once) /* objects one after the other are lines */
        cli->format = CLI_JSONL;
    while (!code) {
        code = read_all(&t);
        if (!code)
            show(&t, terminal && !once);
        if (once)
            break;
        if (!code && !cli_pause(cli, every_ms))
            code = CLI_INTERRUPTED;
    }
    drop(&t);
    return code;
}
