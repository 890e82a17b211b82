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

/* What the program was asked for beside a history's options. */
static bool shortens;        /* a history that broke */
static bool shortens_is_set; /* said so */

static void usage(FILE *to)
{
    fprintf(
        to,
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
        "  --without A,B,..   these do not happen, see below\n"
        "  --skip-tasks 0,3,..  these are not submitted\n"
        "  --faults-until N   faults stop after so many events, if not earlier\n"
        "  --events-max N     give up after so many, with exit 3\n"
        "  --salt N           another course of what is not drawn beforehand (0)\n"
        "  --save-log FILE    writes log and state as a crash leaves them, and ends\n"
        "  --save-crash N     after which crash (1)\n"
        "  --shorten on|off   look for a smaller history that breaks the same (on, unless --runs is given)\n"
        "  --check each|some  check the engine's state after each input, or now and then (some)\n"
        "  --trace            tell the whole story on stderr, not just its end\n"
        "  --json             accepted; the output is always one JSON object\n"
        "  --plant NAME       break something on purpose, which must be caught:\n");
#define PLANT_HELP(name, text, what)                                                                         \
    if (PLANT_##name != PLANT_NONE)                                                                          \
        fprintf(to, "      %-18s %s\n", text, what);
    PLANT_TABLE(PLANT_HELP)
#undef PLANT_HELP
    fprintf(to, "\nWhat happens, and can be left out:\n");
#define KIND_HELP(name, text, fault, what)                                                                   \
    fprintf(to, "      %-18s %s%s\n", text, what, fault ? " (a fault)" : "");
    KIND_TABLE(KIND_HELP)
#undef KIND_HELP
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

/* "0,3": the bits that are set; or their names. */
static void put_bits(struct cox_buf *b, const char *option, const uint64_t *bits, size_t n,
                     const char *const *names)
{
    const char *before = option;
    for (size_t i = 0; i < n; i++) {
        if ((bits[i / 64] >> i % 64 & 1) == 0)
            continue;
        cox_buf_append_str(b, before);
        if (names != NULL)
            cox_buf_append_str(b, names[i]);
        else
            cox_buf_printf(b, "%zu", i);
        before = ",";
    }
}

static void put_number(struct cox_buf *b, const char *option, uint64_t value, uint64_t usual)
{
    if (value != usual)
        cox_buf_printf(b, " %s %llu", option, (unsigned long long)value);
}

void options_text(const struct options *o, struct cox_buf *ret)
{
    cox_buf_printf(ret, "--seed %llu", (unsigned long long)o->seed);
    put_number(ret, "--salt", o->salt, 0);
    cox_buf_append_str(ret, o->faults ? "" : " --faults off");
    put_number(ret, "--workers", o->n_hosts, 0);
    put_number(ret, "--tasks", o->n_jobs, 0);
    put_number(ret, "--steps", o->n_steps_max, STEPS_DEFAULT);
    put_number(ret, "--faults-until", o->faults_until, 0);
    put_bits(ret, " --without ", &o->without, KIND_NR, kind_names);
    put_bits(ret, " --skip-tasks ", o->skip, 64 * sizeof o->skip / sizeof o->skip[0], NULL);
    cox_buf_append_str(ret, o->check_each ? " --check each" : "");
    if (o->plant != PLANT_NONE)
        cox_buf_printf(ret, " --plant %s", plant_names[o->plant]);
}

static void print_command(const char *name, const struct options *o, bool shorten_off)
{
    struct cox_buf text = { 0 };
    cox_buf_append_str(&text, "cox-sim ");
    options_text(o, &text);
    cox_buf_append_str(&text, shorten_off ? " --shorten off" : "");
    cox_put_u8(&text, 0);
    printf(",\"%s\":", name);
    print_text((const char *)text.data);
    cox_buf_fini(&text);
}

static void print_shortened(const struct options *o, const char *invariant, uint64_t events)
{
    struct options small = *o;
    uint32_t n_tried;
    uint64_t n = shorten(&small, invariant, events, &n_tried);
    printf(",\"shortened_events\":%llu,\"shortened_tries\":%u", (unsigned long long)n, n_tried);
    print_command("shortened", &small, true);
}

void sim_broken(struct sim *s, const char *invariant, const char *what)
{
    uint64_t from = s->n_lines > TRACE_LINES ? s->n_lines - TRACE_LINES : 0;
    for (uint64_t i = from; !s->opt.trace_all && i < s->n_lines; i++)
        fprintf(stderr, "%s\n", s->lines[i % TRACE_LINES]);
    fprintf(stderr, "%12.6f BROKEN: %s\n", (double)s->now_ns / 1e9, what);
    fflush(stderr);
    printf("{\"ok\":false,\"version\":\"%s\",\"seed\":%llu,\"at_ms\":%lld,\"events\":%llu,\"broken\":",
           SIM_VERSION, (unsigned long long)s->opt.seed, (long long)(s->now_ns / MS),
           (unsigned long long)s->n.events);
    print_text(what);
    printf(",\"invariant\":");
    print_text(invariant);
    print_command("again", &s->opt, false);
    fflush(stdout);
    if (shortens)
        print_shortened(&s->opt, invariant, s->n.events);
    printf("}\n");
    fflush(stdout);
    _exit(1);
}

/* An assertion of the engine or the agent. The process is sound enough to tell the story: the signal is
 * raised by the code that runs, not between two instructions of stdio. */
static void on_signal(int number)
{
    signal(number, SIG_DFL);
    const char *what = number == SIGABRT ? "an assertion failed, see above" : "a crash";
    if (sim_current != NULL)
        sim_broken(sim_current, what, what);
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

static void kinds_named(const char *option, const char *text, uint64_t *bits)
{
    if (text == NULL)
        bad_usage(option, text);
    while (*text != 0) {
        size_t len = strcspn(text, ","), k = 0;
        while (k < KIND_NR && (strlen(kind_names[k]) != len || memcmp(kind_names[k], text, len) != 0))
            k++;
        if (k == KIND_NR)
            bad_usage(option, text);
        *bits |= UINT64_C(1) << k;
        text += len + (text[len] == ',');
    }
}

static void tasks_numbered(const char *option, const char *text, struct options *o)
{
    if (text == NULL)
        bad_usage(option, text);
    while (*text != 0) {
        char *end;
        unsigned long long v = strtoull(text, &end, 10);
        if (end == text || (*end != 0 && *end != ',') || v >= 64 * sizeof o->skip / sizeof o->skip[0])
            bad_usage(option, text);
        o->skip[v / 64] |= UINT64_C(1) << v % 64;
        text = end + (*end == ',');
    }
}

/* What names a part of a history. */
static bool part_option(struct options *o, const char *name, const char *value)
{
    if (strcmp(name, "--without") == 0)
        kinds_named(name, value, &o->without);
    else if (strcmp(name, "--skip-tasks") == 0)
        tasks_numbered(name, value, o);
    else if (strcmp(name, "--faults-until") == 0)
        o->faults_until = number(name, value, UINT64_MAX);
    else if (strcmp(name, "--events-max") == 0)
        o->events_max = number(name, value, UINT64_MAX);
    else if (strcmp(name, "--save-log") == 0)
        o->save_log = value;
    else if (strcmp(name, "--save-crash") == 0)
        o->save_crash = number(name, value, UINT32_MAX);
    else if (strcmp(name, "--salt") == 0)
        o->salt = number(name, value, UINT64_MAX);
    else
        return false;
    return true;
}

/* True when `value` was taken. */
static bool option(struct options *o, uint64_t *runs, const char *name, const char *value)
{
    if (part_option(o, name, value))
        return true;
    if (strcmp(name, "--shorten") == 0) {
        shortens = word(name, value, "on", "off");
        shortens_is_set = true;
    } else if (strcmp(name, "--seed") == 0)
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
    for (size_t i = 0; i < KIND_NR; i++)
        printf("%s\"%s\":%llu", i == 0 ? ",\"kinds\":{" : ",", kind_names[i],
               (unsigned long long)n->kinds[i]);
    printf("}}\n");
}

int main(int argc, char **argv)
{
    struct options o = { .seed = 1, .faults = true, .n_steps_max = STEPS_DEFAULT, .save_crash = 1 };
    struct counts total = { 0 };
    uint64_t runs = 0, hash = 0;
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
    if (!shortens_is_set)
        shortens = runs == 0;
    runs = runs > 0 ? runs : 1;
    const struct options first = o;
    for (uint64_t i = 0; i < runs; i++, o.seed++) {
        uint64_t parts[2] = { hash, sim_run(&o, &total, &virtual_ms) };
        hash = cox_hash64(parts, sizeof parts);
    }
    print_counts(&first, runs, &total, virtual_ms, hash);
    return 0;
}
