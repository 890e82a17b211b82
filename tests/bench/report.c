/* One JSON object a run: enough to know later what was measured, where and of what. */
#include "bench.h"

#include "cox/base/units.h"
#include "cox/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static void put_string(struct cox_buf *out, const char *name, const char *value)
{
    cox_buf_printf(out, "\"%s\":", name);
    if (value)
        cox_json_quote(out, cox_slice_str(value));
    else
        cox_buf_append_str(out, "null");
}

/* ---- the machine ---- */

/* The first "model name" of /proc/cpuinfo. */
static void cpu_model(char *out, size_t cap)
{
    FILE *in = fopen("/proc/cpuinfo", "r");
    char line[256], *value;

    snprintf(out, cap, "unknown");
    while (in && fgets(line, sizeof(line), in)) {
        if (strncmp(line, "model name", strlen("model name")) != 0 || !(value = strchr(line, ':')))
            continue;
        value[strcspn(value, "\n")] = '\0';
        snprintf(out, cap, "%s", value + strspn(value, ": "));
        break;
    }
    if (in)
        fclose(in);
}

static void put_machine(struct cox_buf *out, const char *filesystem)
{
    char model[128];
    struct utsname system;

    cpu_model(model, sizeof(model));
    cox_buf_printf(out, "\"machine\":{\"cores\":%ld,", sysconf(_SC_NPROCESSORS_ONLN));
    put_string(out, "model", model);
    cox_put_u8(out, ',');
    put_string(out, "kernel", uname(&system) == 0 ? system.release : "unknown");
    cox_put_u8(out, ',');
    put_string(out, "filesystem", filesystem);
    cox_put_u8(out, '}');
}

/* ---- figures ---- */

static void add(struct figures *f, const char *name, double value)
{
    COX_ASSERT(f->n < FIGURES_MAX);
    f->items[f->n].name = name;
    f->items[f->n++].value = value;
}

/* Nearest rank: the smallest value that at least `percent` of all are not above. */
static double percentile_us(const struct outcome *o, size_t percent)
{
    size_t rank = (o->n_latencies * percent + 99) / 100;

    return o->n_latencies > 0 ? (double)o->latencies_ns[rank > 0 ? rank - 1 : 0] / 1e3 : 0;
}

/* CPU is counted over coxd and the workers, never the client; without coxd's there is no such figure. */
static struct figures figures_of(const struct workload *w, const struct load *load, const struct outcome *o,
                                 const struct cpu *used, const struct room *taken, bool coxd_known)
{
    struct figures f = { 0 };
    double seconds = (double)o->elapsed_ns / 1e9, tasks = (double)load->n_tasks;
    double steps = tasks * load->steps_a_task, cpu_us = (double)(used->coxd_ns + used->workers_ns) / 1e3;

    switch (w->figure) {
    case FIGURE_STEPS:
        add(&f, "steps_per_s", steps / seconds);
        break;
    case FIGURE_TASKS:
        add(&f, "tasks_per_s", tasks / seconds);
        break;
    case FIGURE_HOP:
        add(&f, "hop_us", seconds * 1e6 / steps);
        break;
    case FIGURE_LATENCY:
        add(&f, "p50_us", percentile_us(o, 50));
        add(&f, "p99_us", percentile_us(o, 99));
        break;
    case FIGURE_WAITING:
        add(&f, "resident_bytes_per_task", (double)o->resident_len / tasks);
        add(&f, "signal_to_end_p50_us", percentile_us(o, 50));
        add(&f, "signal_to_end_p99_us", percentile_us(o, 99));
        return f;
    case FIGURE_ITEMS:
        add(&f, "items_per_s", tasks * load->n_items / seconds);
        break;
    }
    if (coxd_known && w->figure == FIGURE_ITEMS) {
        double items = tasks * load->n_items;
        add(&f, "cpu_us_per_item", cpu_us / items);
        add(&f, "bytes_per_item", (double)taken->peak_len / items);
        add(&f, "written_bytes_per_item", (double)taken->written_len / items);
    } else if (coxd_known) {
        add(&f, w->figure == FIGURE_TASKS ? "cpu_us_per_task" : "cpu_us_per_step",
            cpu_us / (w->figure == FIGURE_TASKS ? tasks : steps));
    }
    return f;
}

static void put_figures(struct cox_buf *out, const struct figures *f)
{
    for (size_t i = 0; i < f->n; i++)
        cox_buf_printf(out, "%s\"%s\":%.2f", i > 0 ? "," : "", f->items[i].name, f->items[i].value);
}

/* ---- lines ---- */

static void print_line(struct cox_buf *line)
{
    cox_put_u8(line, '\n');
    fwrite(line->data, 1, line->len, stdout);
    fflush(stdout);
    cox_buf_fini(line);
}

static void put_settings(struct cox_buf *out, const struct settings *s, const struct load *load)
{
    cox_buf_append_str(out, "\"settings\":{");
    put_string(out, "store", s->address ? NULL : s->store);
    cox_put_u8(out, ',');
    put_string(out, "addr", s->address);
    if (load->n_items > 0)
        cox_buf_printf(out, ",\"items\":%" PRIu32, load->n_items);
    cox_buf_printf(out,
                   ",\"workers\":%" PRIu32 ",\"slots\":%" PRIu32 ",\"tasks\":%zu,\"steps_per_task\":%" PRIu32
                   ",\"tasks_per_call\":%zu,\"calls_in_flight\":%zu}",
                   s->workers, s->slots, load->n_tasks, load->steps_a_task, load->batch_len, load->n_flights);
}

static void put_cpu(struct cox_buf *out, const struct cpu *used, bool coxd_known)
{
    cox_buf_append_str(out, "\"cpu_s\":{\"coxd\":");
    if (coxd_known)
        cox_buf_printf(out, "%.3f", (double)used->coxd_ns / 1e9);
    else
        cox_buf_append_str(out, "null");
    cox_buf_printf(out, ",\"workers\":%.3f,\"client\":%.3f}", (double)used->workers_ns / 1e9,
                   (double)used->client_ns / 1e9);
}

void report_run(const struct settings *s, const struct workload *w, const struct load *load,
                const struct cluster *c, uint32_t run, const struct outcome *o, const struct cpu *used,
                const struct room *taken, struct figures *ret)
{
    struct cox_buf line = { 0 };
    bool coxd_known = c->coxd.pid > 0;

    *ret = figures_of(w, load, o, used, taken, coxd_known);
    cox_put_u8(&line, '{');
    put_string(&line, "workload", w->name);
    cox_buf_printf(&line, ",\"run\":%" PRIu32 ",", run);
    put_figures(&line, ret);
    cox_buf_printf(&line, ",\"elapsed_s\":%.3f,", (double)o->elapsed_ns / 1e9);
    put_cpu(&line, used, coxd_known);
    cox_put_u8(&line, ',');
    put_settings(&line, s, load);
    cox_put_u8(&line, ',');
    put_machine(&line, c->filesystem);
    cox_put_u8(&line, '}');
    print_line(&line);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

void report_median(const struct workload *w, const struct figures *runs, size_t n_runs)
{
    struct cox_buf line = { 0 };
    struct figures median = runs[0];
    double values[RUNS_MAX];

    for (size_t k = 0; k < median.n; k++) {
        for (size_t i = 0; i < n_runs; i++)
            values[i] = runs[i].items[k].value;
        qsort(values, n_runs, sizeof(*values), by_value);
        median.items[k].value = (values[(n_runs - 1) / 2] + values[n_runs / 2]) / 2;
    }
    cox_put_u8(&line, '{');
    put_string(&line, "workload", w->name);
    cox_buf_append_str(&line, ",\"median\":{");
    put_figures(&line, &median);
    cox_buf_printf(&line, "},\"runs\":%zu}", n_runs);
    print_line(&line);
}
