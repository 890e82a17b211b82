/* cox-bench: measures an orchestrator over the real wire. */
#include "bench.h"

#include "cox/base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WARM_UP_TASKS 2u
#define WARM_UP_STEPS 200u

enum { EXIT_USAGE = 2 };

static const char usage[] =
    "usage: cox-bench w1|w1t|w2|w2l|w3|w4|fanout|waiting [--spawn] [OPTION...]\n"
    "       cox-bench gateway [--spawn] [--seconds N]\n"
    "       cox-bench worker --orchestrator ADDR [--slots N] [--id ID] [--result-len N]\n"
    "       cox-bench crew --addr ADDR --workers N\n"
    "       cox-bench submit --addr ADDR --document FILE --list FILE [--tasks N] [--in-flight N]\n"
    "       cox-bench await --addr ADDR <IDS\n"
    "\n"
    "  w1   independent steps: 10 tasks of 10,000         steps_per_s, cpu_us_per_step\n"
    "  w1t  100,000 tasks of one step, in batches         tasks_per_s, cpu_us_per_task\n"
    "  w2   1,000 chains of 20 steps at once              steps_per_s\n"
    "  w2l  one such chain after the other                hop_us\n"
    "  w3   1,000 graphs 1 -> 50 -> 1                     steps_per_s\n"
    "  w4   submit one step, await it, 1,000 times        p50_us, p99_us\n"
    "  fanout   one map over 1,000,000 items              items_per_s, bytes_per_item\n"
    "  waiting  100,000 tasks wait, 1,000 are signalled   resident_bytes_per_task, signal_to_end p50, p99\n"
    "  gateway  chat completions through the router      rps, p50_us, p99_us, cpu_us_per_request, added_us\n"
    "\n"
    "  --spawn              start coxd and workers (the default without --addr)\n"
    "  --addr HOST:PORT     use a running orchestrator; its CPU time is not known then\n"
    "  --runs N             default 3, each with an orchestrator of its own\n"
    "  --steps N            steps in all, instead of the above\n"
    "  --workers N          worker processes to start; default 2\n"
    "  --slots N            of each; default 16\n"
    "  --store sqlite|memory\n"
    "  --data-dir DIR       where coxd's data goes while it runs; default TMPDIR or /var/tmp\n"
    "  --tls DIR            with the certificates that `cox admin certs DIR` made\n"
    "  --json               nothing but the results\n"
    "\n"
    "A line of JSON a run on standard output, then the medians. Exit 1: a task did not succeed, no "
    "figures.\n";

void complain(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    fputs("cox-bench: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
}

/* ---- command line ---- */

static bool read_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
    char *end;
    unsigned long long n = strtoull(text, &end, 10);

    if (*text < '0' || *text > '9' || *end || n < min || n > max)
        return false;
    *ret = n;
    return true;
}

/* One option with its value; false when it is wrong. */
static bool read_option(struct settings *s, const char *name, const char *value)
{
    uint64_t n = 0;
    bool ok = true;

    if (strcmp(name, "--addr") == 0) {
        s->address = value;
    } else if (strcmp(name, "--data-dir") == 0) {
        s->data_dir = value;
    } else if (strcmp(name, "--tls") == 0) {
        s->tls_dir = value;
    } else if (strcmp(name, "--store") == 0) {
        s->store = value;
        ok = strcmp(value, "sqlite") == 0 || strcmp(value, "memory") == 0;
    } else if (strcmp(name, "--runs") == 0) {
        ok = read_number(value, 1, RUNS_MAX, &n);
        s->runs = (uint32_t)n;
    } else if (strcmp(name, "--steps") == 0) {
        ok = read_number(value, 1, 100000000, &s->steps);
    } else if (strcmp(name, "--workers") == 0) {
        ok = read_number(value, 0, CLUSTER_WORKERS_MAX, &n);
        s->workers = (uint32_t)n;
    } else if (strcmp(name, "--slots") == 0) {
        ok = read_number(value, 1, 65536, &n);
        s->slots = (uint32_t)n;
    } else {
        complain("no such option: %s; see cox-bench --help", name);
        return false;
    }
    if (!ok)
        complain("%s: not possible: %s", name, value);
    return ok;
}

static bool read_command_line(struct settings *s, int argc, char **argv)
{
    bool spawn = false;

    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--spawn") == 0) {
            spawn = true;
        } else if (strcmp(argv[i], "--json") == 0) {
            s->quiet = true;
        } else if (i + 1 == argc) {
            complain("no such option, or no value for it: %s", argv[i]);
            return false;
        } else if (!read_option(s, argv[i], argv[i + 1])) {
            return false;
        } else {
            i++;
        }
    }
    if (spawn && s->address)
        complain("--spawn and --addr exclude each other");
    if (!s->address && s->workers == 0)
        complain("--workers 0: possible with --addr only");
    return !(spawn && s->address) && (s->address || s->workers > 0);
}

/* ---- runs ---- */

/* Connections, memory and caches are there before the clock starts. */
static enum cox_err warm_up(struct client *c, const struct workload *w)
{
    struct workload_text text;
    struct outcome o = { 0 };
    struct load load;

    bool sized = w->scales_steps || w->maps;

    workload_load(w, sized ? (uint64_t)WARM_UP_STEPS * w->n_tasks : 0, &load, &text);
    load.n_tasks = load.n_tasks < WARM_UP_TASKS ? load.n_tasks : WARM_UP_TASKS;
    enum cox_err err = client_run(c, &load, &o);

    outcome_fini(&o);
    workload_text_fini(&text);
    return err;
}

static struct cpu cpu_since(const struct cluster *c, struct cpu before)
{
    struct cpu now = cluster_cpu(c);

    return (struct cpu){ .coxd_ns = now.coxd_ns - before.coxd_ns,
                         .workers_ns = now.workers_ns - before.workers_ns,
                         .client_ns = now.client_ns - before.client_ns };
}

static enum cox_err measure(const struct settings *s, const struct workload *w, struct cluster *cluster,
                            uint32_t run, struct figures *ret)
{
    struct client client;
    struct workload_text text;
    struct outcome o = { 0 };
    struct load load;

    workload_load(w, s->steps, &load, &text);
    client_init(&client, cluster->address, tls_files_in(s->tls_dir, "client-admin"));
    enum cox_err err = client_await_workers(&client, cluster->id_prefix, cluster->n_workers);

    if (!err && w->figure != FIGURE_WAITING)
        err = warm_up(&client, w);
    struct room room = cluster_room_begin(cluster);
    struct cpu before = cluster_cpu(cluster);

    if (!err)
        err = w->figure == FIGURE_WAITING ? waiting_run(&client, cluster, &load, &o)
                                          : client_run(&client, &load, &o);
    struct cpu used = cpu_since(cluster, before);

    room = cluster_room_since(cluster, room);
    if (!err)
        report_run(s, w, &load, cluster, run, &o, &used, &room, ret);
    outcome_fini(&o);
    client_fini(&client);
    workload_text_fini(&text);
    return err;
}

static bool run_all(const struct settings *s, const struct workload *w)
{
    struct figures *figures = cox_calloc(s->runs, sizeof(*figures));
    bool well = true;

    cox_rpc_init();
    for (uint32_t i = 0; i < s->runs && well; i++) {
        struct cluster cluster;
        if (!s->quiet)
            complain("%s, run %u of %u", w->name, i + 1, s->runs);
        well = cluster_start(&cluster, s, w->result_len) == COX_OK &&
               measure(s, w, &cluster, i + 1, &figures[i]) == COX_OK;
        if (well && cluster.filesystem && strcmp(cluster.filesystem, "tmpfs") == 0)
            complain("the data was in memory: nothing was synced to a disk");
        if (!cluster_stop(&cluster))
            well = false;
    }
    if (well)
        report_median(w, figures, s->runs);
    cox_rpc_fini();
    cox_free(figures);
    return well;
}

int main(int argc, char **argv)
{
    struct settings s = { .store = "sqlite", .slots = 16, .workers = 2, .runs = 3 };
    const char *verb = argc > 1 ? argv[1] : "";
    const struct workload *w = workload_find(verb);

    if (strcmp(verb, "worker") == 0)
        return worker_main(argc - 1, argv + 1);
    if (strcmp(verb, "crew") == 0)
        return crew_main(argc - 1, argv + 1);
    if (strcmp(verb, "submit") == 0)
        return submit_main(argc - 1, argv + 1);
    if (strcmp(verb, "gateway") == 0)
        return gateway_main(argc - 1, argv + 1);
    if (strcmp(verb, "await") == 0)
        return await_main(argc - 1, argv + 1);
    if (strcmp(verb, "--help") == 0 || strcmp(verb, "help") == 0 || strcmp(verb, "-h") == 0) {
        fputs(usage, stdout);
        return EXIT_SUCCESS;
    }
    if (workload_planned(verb)) {
        complain("%s: not available in this version", verb);
        return EXIT_USAGE;
    }
    if (!w) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    s.workload = w->name;
    if (!read_command_line(&s, argc, argv))
        return EXIT_USAGE;
    return run_all(&s, w) ? EXIT_SUCCESS : EXIT_FAILURE;
}
