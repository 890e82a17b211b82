/* cox-sim: runs histories, prints one JSON object. Exit: 0 all held, 1 an invariant broke, 2 usage. */
#include "sim.h"

#include "sim_version.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct sim *sim_current;

static const char *const plant_names[PLANT_NR] = {
#define PLANT_NAME(name, text, what) text,
    PLANT_TABLE(PLANT_NAME)
#undef PLANT_NAME
};

static void usage(FILE *to)
{
    fprintf(to,
            "usage: cox-sim [options]\n"
            "Runs the engine and the worker agent on a fake clock, network and store. What is not given is\n"
            "drawn from the seed.\n\n"
            "  --seed S           the first seed (1)\n"
            "  --runs N           that many seeds from there (1)\n"
            "  --workers N        hosts, at least 3\n"
            "  --tasks N          clients' tasks\n"
            "  --steps N          no task has more (1500)\n"
            "  --shards 1         this version has one\n"
            "  --faults on|off    (on)\n"
            "  --check each|some  check the engine's state after each input, or now and then (some)\n"
            "  --trace            tell the whole story on stderr, not just its end\n"
            "  --json             accepted; the output is always one JSON object\n"
            "  --plant NAME       break something on purpose, which must be caught:\n");
#define PLANT_HELP(name, text, what)                                                                         \
    if (PLANT_##name != PLANT_NONE)                                                                          \
        fprintf(to, "      %-18s %s\n", text, what);
    PLANT_TABLE(PLANT_HELP)
#undef PLANT_HELP
}

_Noreturn static void bad_usage(const char *what, const char *value)
{
    fprintf(stderr, "cox-sim: %s: %s\n", what, value != NULL ? value : "a value is missing");
    exit(2);
}

/* ---- the end of a history that broke ---- */

static void print_text(const char *text)
{
    putchar('"');
    for (; *text != 0; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        putchar((unsigned char)*text < ' ' ? ' ' : *text);
    }
    putchar('"');
}

static void print_again(const struct options *o)
{
    char text[256];
    int n = snprintf(text, sizeof text, "cox-sim --seed %llu --runs 1 --faults %s",
                     (unsigned long long)o->seed, o->faults ? "on" : "off");
    if (o->n_hosts > 0)
        n += snprintf(text + n, sizeof text - (size_t)n, " --workers %u", o->n_hosts);
    if (o->n_jobs > 0)
        n += snprintf(text + n, sizeof text - (size_t)n, " --tasks %u", o->n_jobs);
    if (o->n_steps_max != STEPS_DEFAULT)
        n += snprintf(text + n, sizeof text - (size_t)n, " --steps %u", o->n_steps_max);
    if (o->plant != PLANT_NONE)
        snprintf(text + n, sizeof text - (size_t)n, " --plant %s", plant_names[o->plant]);
    print_text(text);
}

void sim_broken(struct sim *s, const char *what)
{
    uint64_t from = s->n_lines > TRACE_LINES ? s->n_lines - TRACE_LINES : 0;
    for (uint64_t i = from; !s->opt.trace_all && i < s->n_lines; i++)
        fprintf(stderr, "%s\n", s->lines[i % TRACE_LINES]);
    fprintf(stderr, "%12.6f BROKEN: %s\n", (double)s->now_ns / 1e9, what);
    printf("{\"ok\":false,\"version\":\"%s\",\"seed\":%llu,\"at_ms\":%lld,\"events\":%llu,\"broken\":",
           SIM_VERSION, (unsigned long long)s->opt.seed, (long long)(s->now_ns / MS),
           (unsigned long long)s->n.events);
    print_text(what);
    printf(",\"again\":");
    print_again(&s->opt);
    printf("}\n");
    fflush(stdout);
    _exit(1);
}

/* An assertion of the engine or the agent. The process is sound enough to tell the story: the signal is
 * raised by the code that runs, not between two instructions of stdio. */
static void on_signal(int number)
{
    signal(number, SIG_DFL);
    if (sim_current != NULL)
        sim_broken(sim_current, number == SIGABRT ? "an assertion failed, see above" : "a crash");
}

/* ---- options ---- */

static uint64_t number(const char *what, const char *text, uint64_t max)
{
    char *end;
    unsigned long long v = text != NULL ? strtoull(text, &end, 10) : 0;
    if (text == NULL || *text == 0 || *end != 0 || v > max)
        bad_usage(what, text);
    return v;
}

static enum plant plant_named(const char *text)
{
    for (int i = 0; text != NULL && i < PLANT_NR; i++)
        if (strcmp(text, plant_names[i]) == 0)
            return (enum plant)i;
    bad_usage("--plant", text);
}

static bool word(const char *what, const char *text, const char *yes, const char *no)
{
    if (text == NULL || (strcmp(text, yes) != 0 && strcmp(text, no) != 0))
        bad_usage(what, text);
    return strcmp(text, yes) == 0;
}

/* True when `value` was taken. */
static bool option(struct options *o, uint64_t *runs, const char *name, const char *value)
{
    if (strcmp(name, "--seed") == 0)
        o->seed = number(name, value, UINT64_MAX);
    else if (strcmp(name, "--runs") == 0)
        *runs = number(name, value, UINT32_MAX);
    else if (strcmp(name, "--workers") == 0)
        o->n_hosts = (uint32_t)number(name, value, 1000);
    else if (strcmp(name, "--tasks") == 0)
        o->n_jobs = (uint32_t)number(name, value, 100000);
    else if (strcmp(name, "--steps") == 0)
        o->n_steps_max = (uint32_t)number(name, value, COX_TASK_STEPS_MAX);
    else if (strcmp(name, "--shards") == 0 && number(name, value, 1) != 1)
        bad_usage(name, "this version has one shard");
    else if (strcmp(name, "--faults") == 0)
        o->faults = word(name, value, "on", "off");
    else if (strcmp(name, "--check") == 0)
        o->check_each = word(name, value, "each", "some");
    else if (strcmp(name, "--plant") == 0)
        o->plant = plant_named(value);
    else if (strcmp(name, "--trace") == 0)
        o->trace_all = true;
    else if (strcmp(name, "--shards") != 0 && strcmp(name, "--json") != 0)
        bad_usage("not an option", name);
    return strcmp(name, "--trace") != 0 && strcmp(name, "--json") != 0;
}

static void print_counts(const struct options *first, uint64_t runs, const struct counts *n,
                         int64_t virtual_ms, uint64_t hash)
{
    printf("{\"ok\":true,\"version\":\"%s\",\"seed\":%llu,\"runs\":%llu,\"faults\":\"%s\",\"virtual_s\":%lld,"
           "\"trace_hash\":\"%016llx\"",
           SIM_VERSION, (unsigned long long)first->seed, (unsigned long long)runs,
           first->faults ? "on" : "off", (long long)(virtual_ms / 1000), (unsigned long long)hash);
#define PRINT(name) printf(",\"" #name "\":%llu", (unsigned long long)n->name);
    COUNTS_TABLE(PRINT)
#undef PRINT
    printf("}\n");
}

int main(int argc, char **argv)
{
    struct options o = { .seed = 1, .faults = true, .n_steps_max = STEPS_DEFAULT };
    struct counts total = { 0 };
    uint64_t runs = 1, hash = 0;
    int64_t virtual_ms = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            usage(stdout);
            return 0;
        }
        i += option(&o, &runs, argv[i], i + 1 < argc ? argv[i + 1] : NULL);
    }
    signal(SIGABRT, on_signal);
    signal(SIGSEGV, on_signal);
    const struct options first = o;
    for (uint64_t i = 0; i < runs; i++, o.seed++) {
        uint64_t parts[2] = { hash, sim_run(&o, &total, &virtual_ms) };
        hash = cox_hash64(parts, sizeof parts);
    }
    print_counts(&first, runs, &total, virtual_ms, hash);
    return 0;
}
