#include "config.h"

#include "cox/base/units.h"

#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef COX_VERSION
#error "the build says which version this is"
#endif

/* Each sets one thing from its text; a reason when it cannot. */
typedef const char *set_fn(struct config *c, const char *text);

/* ---------------------------------------------------------------- setting */

static const char *set_string(const char **ret, const char *text)
{
    *ret = text;
    return *text ? NULL : "expected a value";
}

static const char *set_ms(int64_t *ret_ms, const char *text)
{
    return cox_parse_duration_ms(cox_slice_str(text), ret_ms) == COX_OK
               ? NULL
               : "expected a duration such as 30s or 10m";
}

static const char *set_orchestrator(struct config *c, const char *text)
{
    char *copy = cox_arena_dup(&c->strings, text, strlen(text));
    char *rest = NULL;

    c->n_addresses = 0;
    for (char *p = strtok_r(copy, ",", &rest); p; p = strtok_r(NULL, ",", &rest)) {
        if (c->n_addresses == CONFIG_ADDRESSES_MAX)
            return "too many addresses";
        c->addresses[c->n_addresses++] = p;
    }
    return c->n_addresses > 0 ? NULL : "expected HOST:PORT[,HOST:PORT...]";
}

static const char *set_slots(struct config *c, const char *text)
{
    char *end;
    long n = strtol(text, &end, 10);

    if (end == text || *end || n < 1 || n > (long)COX_WORKER_SLOTS_MAX)
        return "expected a number from 1 to 65536";
    c->slots = n;
    return NULL;
}

static const char *set_label(struct config *c, const char *text)
{
    char *copy = cox_arena_dup(&c->strings, text, strlen(text));
    char *rest = NULL;

    for (char *p = strtok_r(copy, ",", &rest); p; p = strtok_r(NULL, ",", &rest)) {
        char *value = strchr(p, '=');

        if (!value || value == p || strlen(p) > COX_LABEL_LEN_MAX)
            return "expected KEY=VALUE";
        if (c->n_labels == COX_WORKER_LABELS_MAX)
            return "too many labels";
        *value = 0;
        c->labels[c->n_labels++] = (struct session_label){ .key = p, .value = value + 1 };
    }
    return NULL;
}

static const char *set_resources(struct config *c, const char *text)
{
    static const char why[] = "expected amounts such as cpu=8,memory=16Gi,disk=100Gi";
    char *copy = cox_arena_dup(&c->strings, text, strlen(text));
    char *rest = NULL;

    for (char *p = strtok_r(copy, ",", &rest); p; p = strtok_r(NULL, ",", &rest)) {
        char *value = strchr(p, '=');
        struct cox_slice amount;
        enum cox_err err = COX_ERR_INVALID;

        if (!value)
            return why;
        *value = 0;
        amount = cox_slice_str(value + 1);
        if (strcmp(p, "cpu") == 0)
            err = cox_parse_cpu_milli(amount, &c->resources.cpu_milli);
        else if (strcmp(p, "memory") == 0)
            err = cox_parse_size(amount, &c->resources.memory_bytes);
        else if (strcmp(p, "disk") == 0)
            err = cox_parse_size(amount, &c->resources.disk_bytes);
        if (err != COX_OK)
            return why;
    }
    return NULL;
}

static const char *set_sandbox(struct config *c, const char *text)
{
    (void)c;
    if (strcmp(text, "none") == 0)
        return NULL;
    return strcmp(text, "net") == 0 || strcmp(text, "strict") == 0 ? "not available yet: only none is"
                                                                   : "expected none, net or strict";
}

static const char *set_worker_id(struct config *c, const char *text)
{
    if (strlen(text) > COX_WORKER_ID_LEN_MAX || !cox_utf8_ok(cox_slice_str(text)))
        return "expected at most 128 bytes of UTF-8";
    return set_string(&c->worker_id, text);
}

static const char *set_work_dir(struct config *c, const char *text)
{
    return set_string(&c->work_dir, text);
}

static const char *set_drain_timeout(struct config *c, const char *text)
{
    return set_ms(&c->drain_timeout_ms, text);
}

static const char *set_orphan_timeout(struct config *c, const char *text)
{
    return set_ms(&c->orphan_timeout_ms, text);
}

static const char *set_idle_exit(struct config *c, const char *text)
{
    return set_ms(&c->idle_exit_ms, text);
}

static const char *set_ready_file(struct config *c, const char *text)
{
    return set_string(&c->ready_file, text);
}

static const char *set_log_level(struct config *c, const char *text)
{
    return cox_log_parse_level(text, &c->log_level) == COX_OK ? NULL : "expected debug, info, warn or error";
}

static const char *set_log_format(struct config *c, const char *text)
{
    return cox_log_parse_format(text, &c->log_format) == COX_OK ? NULL : "expected text or json";
}

/* ---------------------------------------------------------------- the table */

static const struct entry {
    const char *flag;
    const char *variable;
    set_fn *set;
    const char *help;
} entries[] = {
    { "orchestrator", "COX_ORCHESTRATOR", set_orchestrator,
      "ADDR[,ADDR...]      where to attach (127.0.0.1:7600)" },
    { "slots", "COX_SLOTS", set_slots, "N                          steps at once (the number of cores)" },
    { "label", "COX_LABEL", set_label, "K=V[,K=V...]               for `requires`; may be repeated" },
    { "resources", "COX_RESOURCES", set_resources,
      "cpu=8,memory=16Gi      what steps may ask for (not limited)" },
    { "sandbox", "COX_SANDBOX", set_sandbox,
      "none                     the weakest level it will run (none)" },
    { "worker-id", "COX_WORKER_ID", set_worker_id, "ID                     its name (the host's)" },
    { "work-dir", "COX_WORK_DIR", set_work_dir, "DIR                     steps' directories (under TMPDIR)" },
    { "drain-timeout", "COX_DRAIN_TIMEOUT", set_drain_timeout,
      "D                  SIGTERM: time for running steps to end (30s)" },
    { "orphan-timeout", "COX_ORPHAN_TIMEOUT", set_orphan_timeout,
      "D                 without an orchestrator: steps run on for so long (10m)" },
    { "idle-exit", "COX_IDLE_EXIT", set_idle_exit,
      "D                      exit after so long without work (never)" },
    { "ready-file", "COX_READY_FILE", set_ready_file, "FILE                  written once attached" },
    { "log-level", "COX_LOG_LEVEL", set_log_level,
      "LEVEL                  debug, info, warn or error (info)" },
    { "log-format", "COX_LOG_FORMAT", set_log_format, "FORMAT                text or json (text)" },
};
#define N_ENTRIES (sizeof(entries) / sizeof(entries[0]))
#define FLAG_HELP 1000
#define FLAG_VERSION 1001

static void print_help(void)
{
    printf("usage: cox-worker [--orchestrator ADDR] [flags]\n\n"
           "Attaches this host to an orchestrator and runs steps on it.\n\n");
    for (size_t i = 0; i < N_ENTRIES; i++)
        printf("  --%s %s\n", entries[i].flag, entries[i].help);
    printf("  --version\n  --help\n\n"
           "Each flag has a variable: --drain-timeout is COX_DRAIN_TIMEOUT. A flag wins.\n"
           "SIGTERM drains: queued steps go back, running ones may end; a second SIGTERM does not wait.\n");
}

static void set_defaults(struct config *c)
{
    char host[COX_WORKER_ID_LEN_MAX + 1] = { 0 };
    const char *tmp = getenv("TMPDIR");
    struct cox_buf dir = { 0 };
    cpu_set_t cpus;

    if (gethostname(host, sizeof(host) - 1) != 0 || !host[0])
        memcpy(host, "worker", sizeof("worker"));
    cox_buf_printf(&dir, "%s/cox-worker-%u", tmp && *tmp ? tmp : "/tmp", (unsigned)geteuid());
    *c = (struct config){
        .addresses = { "127.0.0.1:7600" },
        .n_addresses = 1,
        .slots = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1,
        .drain_timeout_ms = COX_AGENT_DRAIN_TIMEOUT_MS,
        .orphan_timeout_ms = COX_AGENT_ORPHAN_TIMEOUT_MS,
        .log_level = COX_LOG_INFO,
    };
    c->worker_id = cox_arena_dup(&c->strings, host, strlen(host));
    c->work_dir = cox_arena_dup(&c->strings, dir.data, dir.len);
    cox_buf_fini(&dir);
}

static bool complain(const char *name, const char *text, const char *why)
{
    if (why)
        fprintf(stderr, "cox-worker: %s: \"%s\": %s\n", name, text, why);
    return why != NULL;
}

static enum config_outcome read_flags(struct config *c, int argc, char **argv)
{
    struct option options[N_ENTRIES + 3] = { 0 };
    int flag;

    for (size_t i = 0; i < N_ENTRIES; i++)
        options[i] = (struct option){ entries[i].flag, required_argument, NULL, (int)i };
    options[N_ENTRIES] = (struct option){ "help", no_argument, NULL, FLAG_HELP };
    options[N_ENTRIES + 1] = (struct option){ "version", no_argument, NULL, FLAG_VERSION };
    while ((flag = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (flag == FLAG_HELP || flag == 'h') {
            print_help();
            return CONFIG_EXIT_OK;
        }
        if (flag == FLAG_VERSION) {
            printf("cox-worker %s\n", COX_VERSION);
            return CONFIG_EXIT_OK;
        }
        if (flag < 0 || (size_t)flag >= N_ENTRIES)
            return CONFIG_EXIT_USAGE; /* getopt has said what is wrong */
        if (complain(entries[flag].flag, optarg, entries[flag].set(c, optarg)))
            return CONFIG_EXIT_USAGE;
    }
    if (optind < argc) {
        fprintf(stderr, "cox-worker: unexpected argument \"%s\"\n", argv[optind]);
        return CONFIG_EXIT_USAGE;
    }
    return CONFIG_RUN;
}

enum config_outcome config_read(struct config *c, int argc, char **argv)
{
    set_defaults(c);
    for (size_t i = 0; i < N_ENTRIES; i++) {
        const char *text = getenv(entries[i].variable);

        if (text && *text && complain(entries[i].variable, text, entries[i].set(c, text)))
            return CONFIG_EXIT_USAGE;
    }
    return read_flags(c, argc, argv);
}

void config_fini(struct config *c)
{
    cox_arena_fini(&c->strings);
}
