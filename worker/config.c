#include "config.h"

#include "cox/base/units.h"
#include "cox/json.h"

#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef COX_VERSION
#error "the build says which version this is"
#endif

/* ---------------------------------------------------------------- setting; each says what was expected */

static const char *set_orchestrator(void *config, char *text)
{
    static const char expected[] = "HOST:PORT[,HOST:PORT...]";
    struct config *c = config;
    char *rest = NULL;

    c->n_addresses = 0;
    for (char *p = strtok_r(text, ",", &rest); p; p = strtok_r(NULL, ",", &rest)) {
        if (c->n_addresses == CONFIG_ADDRESSES_MAX)
            return "at most 64 addresses";
        c->addresses[c->n_addresses++] = p;
    }
    return c->n_addresses > 0 ? NULL : expected;
}

static const char *set_slots(void *field, char *text)
{
    char *end;
    long n = strtol(text, &end, 10);

    if (end == text || *end || n < 1 || n > (long)COX_WORKER_SLOTS_MAX)
        return "a number from 1 to 65536";
    *(int64_t *)field = n;
    return NULL;
}

static const char *set_label(void *config, char *text)
{
    struct config *c = config;
    char *rest = NULL;

    c->n_labels = 0;
    for (char *p = strtok_r(text, ",", &rest); p; p = strtok_r(NULL, ",", &rest)) {
        char *value = strchr(p, '=');

        if (!value || value == p || strlen(p) > COX_LABEL_LEN_MAX)
            return "KEY=VALUE";
        if (strncmp(p, SANDBOX_LABEL, strlen(SANDBOX_LABEL)) == 0)
            return "KEY=VALUE; a KEY that begins with sandbox. is the worker's own";
        if (c->n_labels == COX_WORKER_LABELS_MAX - SANDBOX_LABELS)
            return "at most 56 labels";
        *value = 0;
        c->labels[c->n_labels++] = (struct cox_attach_label){ .key = p, .value = value + 1 };
    }
    return NULL;
}

static const char *set_resources(void *field, char *text)
{
    static const char expected[] = "amounts such as cpu=8,memory=16Gi,disk=100Gi";
    struct cox_resources *resources = field;
    char *rest = NULL;

    for (char *p = strtok_r(text, ",", &rest); p; p = strtok_r(NULL, ",", &rest)) {
        char *value = strchr(p, '=');
        struct cox_slice amount;
        enum cox_err err = COX_ERR_INVALID;

        if (!value)
            return expected;
        *value = 0;
        amount = cox_slice_str(value + 1);
        if (strcmp(p, "cpu") == 0)
            err = cox_parse_cpu_milli(amount, &resources->cpu_milli);
        else if (strcmp(p, "memory") == 0)
            err = cox_parse_size(amount, &resources->memory_bytes);
        else if (strcmp(p, "disk") == 0)
            err = cox_parse_size(amount, &resources->disk_bytes);
        if (err != COX_OK)
            return expected;
    }
    return NULL;
}

static const char *set_sandbox(void *field, char *text)
{
    return sandbox_level_parse(cox_slice_str(text), field) ? NULL : "none, net or strict";
}

static const char *set_sandbox_read(void *field, char *text)
{
    struct config *c = field;
    char *rest = NULL;

    c->n_sandbox_read = 0;
    for (char *p = strtok_r(text, ",", &rest); p; p = strtok_r(NULL, ",", &rest)) {
        if (*p != '/' || c->n_sandbox_read == CONFIG_SANDBOX_READ_MAX)
            return "at most 32 absolute paths";
        c->sandbox_read[c->n_sandbox_read++] = p;
    }
    return NULL;
}

static const char *set_handler_dir(void *field, char *text)
{
    struct config *c = field;
    char *rest = NULL;

    for (char *p = strtok_r(text, ",", &rest); p; p = strtok_r(NULL, ",", &rest)) {
        if (c->n_handler_dirs == CONFIG_HANDLER_DIRS_MAX)
            return "at most 16 directories";
        c->handler_dirs[c->n_handler_dirs++] = p;
    }
    return c->n_handler_dirs > 0 ? NULL : "DIR[,DIR...]";
}

static const char *set_http_allow(void *field, char *text)
{
    char *rest = NULL;

    for (char *p = strtok_r(text, ",", &rest); p; p = strtok_r(NULL, ",", &rest)) {
        enum cox_err err = reach_allow(field, p);

        if (err == COX_ERR_FULL)
            return "at most 64 networks";
        if (err)
            return "networks such as 10.1.0.0/16 or fd00::/8, or addresses";
    }
    return NULL;
}

static const char *set_snapshots(void *field, char *text)
{
    bool on = strcmp(text, "on") == 0;

    *(bool *)field = !on;
    return on || strcmp(text, "off") == 0 ? NULL : "on or off";
}

static const char *set_worker_id(void *field, char *text)
{
    if (strlen(text) > COX_WORKER_ID_LEN_MAX || !cox_utf8_ok(cox_slice_str(text)))
        return "at most 128 bytes of UTF-8";
    return cox_config_set_text(field, text);
}

/* ---------------------------------------------------------------- the table */

#define AT(field) offsetof(struct config, field)

static const struct cox_config_key keys[] = {
    { "orchestrator", "ADDR[,ADDR...]", "127.0.0.1:7600", "where to attach", set_orchestrator, 0,
      COX_CONFIG_LIST },
    { "token-file", "FILE", NULL, "the token that says who it is; read for each connection",
      cox_config_set_text, AT(token_file), 0 },
    { "slots", "N", NULL, "steps at once (default: the number of cores)", set_slots, AT(slots), 0 },
    { "label", "K=V[,K=V...]", NULL, "for `requires`", set_label, 0, COX_CONFIG_LIST },
    { "resources", "cpu=8,memory=16Gi", NULL, "what steps may ask for (default: not limited)", set_resources,
      AT(resources), COX_CONFIG_LIST },
    { "sandbox", "none|net|strict", "none", "the weakest level it will run", set_sandbox, AT(sandbox), 0 },
    { "sandbox-read", "PATH[,PATH...]", NULL, "more that sandboxed steps may read", set_sandbox_read, 0,
      COX_CONFIG_LIST },
    { "worker-id", "ID", NULL, "its name (default: the host's)", set_worker_id, AT(worker_id), 0 },
    { "work-dir", "DIR", NULL, "steps' directories (default: under TMPDIR)", cox_config_set_text,
      AT(work_dir), 0 },
    { "handler-dir", "DIR[,DIR...]", NULL, "programs NAME or NAME@MAJOR that steps may use", set_handler_dir,
      0, COX_CONFIG_LIST },
    { "http-allow", "NET[,NET...]", NULL,
      "networks that `http` and `mcp` steps may reach besides the public internet", set_http_allow, AT(reach),
      COX_CONFIG_LIST },
    { "secrets-dir", "DIR", NULL, "secrets, a file a name; more in the file's `secrets:`",
      cox_config_set_text, AT(secrets_dir), 0 },
    { "workspace-ttl", "DURATION", "30m", "a workspace that nobody uses stays on the disk for so long",
      cox_config_set_duration, AT(workspace_ttl_ms), 0 },
    { "workspace-disk", "SIZE", "20Gi", "of all workspaces; beyond, those that nobody uses go sooner",
      cox_config_set_size, AT(workspace_len_max), 0 },
    { "workspace-snapshots", "on|off", "on",
      "save shared workspaces, so that other workers can go on with them", set_snapshots, AT(no_snapshots),
      0 },
    { "cache-size", "SIZE", "8Gi", "blobs and bundles kept on this host", cox_config_set_size,
      AT(cache_len_max), 0 },
    { "drain-timeout", "DURATION", "30s", "SIGTERM: time for running steps to end", cox_config_set_duration,
      AT(drain_timeout_ms), 0 },
    { "orphan-timeout", "DURATION", "10m", "without an orchestrator, steps run on for so long",
      cox_config_set_duration, AT(orphan_timeout_ms), 0 },
    { "idle-exit", "DURATION", NULL, "exit after so long without work (default: never)",
      cox_config_set_duration, AT(idle_exit_ms), 0 },
    { "tls-ca", "FILE", NULL, "speak TLS to orchestrators whose certificate this CA (PEM) has signed",
      cox_config_set_text, AT(tls.ca), 0 },
    { "tls-cert", "FILE", NULL, "show this certificate; all three are read again at each reconnect",
      cox_config_set_text, AT(tls.cert), 0 },
    { "tls-key", "FILE", NULL, "its key", cox_config_set_text, AT(tls.key), 0 },
    { "ready-file", "FILE", NULL, "written once attached", cox_config_set_text, AT(ready_file), 0 },
    { "log-level", "LEVEL", "info", "debug, info, warn or error", cox_config_set_log_level, AT(log_level),
      COX_CONFIG_RELOADS },
    { "log-format", "FORMAT", "text", "text or json", cox_config_set_log_format, AT(log_format),
      COX_CONFIG_RELOADS },
};

const struct cox_config_program worker_config_program = {
    .name = "cox-worker",
    .version = COX_VERSION,
    .intro = "usage: cox-worker [--orchestrator ADDR] [flags]\n\n"
             "Attaches this host to an orchestrator and runs steps on it.\n\n",
    .outro = "SIGTERM drains: queued steps go back, running ones may end; a second SIGTERM does not wait.\n",
    .keys = keys,
    .n_keys = sizeof(keys) / sizeof(keys[0]),
    .others = (const char *const[]){ "secrets", NULL },
};

/* What the table does not know: it depends on the host. */
static void set_defaults(struct config *c)
{
    static char host[COX_WORKER_ID_LEN_MAX + 1], dir[4096];
    const char *tmp = getenv("TMPDIR");
    cpu_set_t cpus;

    if (gethostname(host, sizeof(host) - 1) != 0 || !host[0])
        memcpy(host, "worker", sizeof("worker"));
    snprintf(dir, sizeof(dir), "%s/cox-worker-%u", tmp && *tmp ? tmp : "/tmp", (unsigned)geteuid());
    *c = (struct config){
        .slots = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1,
        .worker_id = host,
        .work_dir = dir,
    };
}

/* `secrets:` of the file. */
static enum cox_err read_secrets(struct config *c, struct cox_buf *error)
{
    const struct cox_yaml *file = cox_config_file(c->settings);
    struct cox_slice json = cox_slice(NULL, 0);
    struct cox_buf path = { 0 }, why = { 0 };
    enum cox_err err;

    if (file->json.len > 0)
        (void)cox_json_member(cox_buf_slice(&file->json), "secrets", &json);
    err = secret_table_read(json, &c->secrets, &path, &why);
    if (err)
        cox_buf_printf(error, "line %u of the file: %s: %s", cox_yaml_line(file, cox_buf_cstr(&path)),
                       cox_buf_cstr(&path), cox_buf_cstr(&why));
    cox_buf_fini(&path);
    cox_buf_fini(&why);
    return err;
}

enum cox_config_outcome config_read(struct config *c, int argc, char **argv)
{
    struct cox_config *settings;

    set_defaults(c);
    enum cox_config_outcome outcome =
        cox_config_read(&worker_config_program, argc, argv, c, stderr, &settings);

    struct cox_buf error = { 0 };

    c->settings = settings;
    if (outcome == COX_CONFIG_RUN && read_secrets(c, &error) != COX_OK) {
        fprintf(stderr, "cox-worker: %s\n", cox_buf_cstr(&error));
        outcome = COX_CONFIG_EXIT_USAGE;
    }
    cox_buf_fini(&error);
    return outcome;
}

enum cox_err config_reload(struct config *c, struct cox_buf *ret_restart, struct cox_buf *error)
{
    struct config next;

    set_defaults(&next);
    enum cox_err err = cox_config_reload(c->settings, &next, ret_restart, error);

    next.settings = c->settings;
    if (!err)
        err = read_secrets(&next, error);
    if (!err) {
        secret_table_unref(c->secrets);
        *c = next;
    }
    return err;
}

void config_fini(struct config *c)
{
    secret_table_unref(c->secrets);
    cox_config_destroy(c->settings);
}
