#include "config.h"

#include "coxd_config.h"

#include <stddef.h>
#include <string.h>

static const char *set_store(void *field, char *text)
{
    *(const char **)field = text;
    return strcmp(text, "sqlite") == 0 || strcmp(text, "memory") == 0 ? NULL : "sqlite or memory";
}

static const char *set_shards(void *field, char *text)
{
    (void)field;
    return strcmp(text, "1") == 0 ? NULL : "1; more than one shard does not exist yet";
}

static const char *set_bytes(void *field, char *text)
{
    const char *expected = cox_config_set_size(field, text);

    return expected || *(int64_t *)field < 1 ? "a size such as 64Mi" : NULL;
}

static const char *set_http(void *field, char *text)
{
    if (strcmp(text, "off") == 0) {
        *(const char **)field = text;
        return NULL;
    }
    return cox_config_set_address(field, text) ? "HOST:PORT, such as 127.0.0.1:7601, or off" : NULL;
}

static const char *set_url(void *field, char *text)
{
    *(const char **)field = text;
    return strncmp(text, "http://", 7) == 0 || strncmp(text, "https://", 8) == 0
               ? NULL
               : "a URL, such as https://cox.example:7601";
}

static const char *set_policy(void *field, char *text)
{
    enum placement_policy policy;

    if (!placement_policy_parse(cox_slice_str(text), &policy))
        return "program, or to compare with it round_robin, least_request, power_of_two, cache_aware or "
               "session";
    *(enum placement_policy *)field = policy;
    return NULL;
}

#define AT(field) offsetof(struct coxd_config, field)

static const struct cox_config_key keys[] = {
    { "data-dir", "DIR", "coxd-data", "where the log and the state live", cox_config_set_text, AT(data_dir),
      0 },
    { "store", "NAME", "sqlite", "sqlite, or memory (nothing survives the process)", set_store, AT(store),
      0 },
    { "grpc", "HOST:PORT", "127.0.0.1:7600", "listen here; port 0 picks a free one", cox_config_set_address,
      AT(grpc), 0 },
    { "http", "HOST:PORT", "127.0.0.1:7601", "HTTP, JSON and events here; port 0 picks a free one; off: none",
      set_http, AT(http), 0 },
    { "http-host", "NAME,...", NULL, "names that browsers may call it by, beside localhost and addresses",
      cox_config_set_text, AT(http_hosts), COX_CONFIG_LIST },
    { "http-advertise", "URL", NULL,
      "where workers reach HTTP, for model calls of steps: https://cox.example:7601; else as gRPC, at its "
      "port",
      set_url, AT(http_advertise), 0 },
    { "cors-origin", "URL,...", NULL, "origins whose pages may call it: https://example.com; * is any",
      cox_config_set_text, AT(cors_origins), COX_CONFIG_LIST },
    { "token-file", "FILE", NULL, "tokens of those who may call, a row each; read again on SIGHUP",
      cox_config_set_text, AT(token_file), 0 },
    { "tls-cert", "FILE", NULL, "speak TLS on both ports, with this certificate (PEM); SIGHUP reads it again",
      cox_config_set_text, AT(tls_cert), COX_CONFIG_RELOADS },
    { "tls-key", "FILE", NULL, "its key", cox_config_set_text, AT(tls_key), COX_CONFIG_RELOADS },
    { "tls-ca", "FILE", NULL, "gRPC clients must show a certificate that this CA has signed; HTTP's may",
      cox_config_set_text, AT(tls_ca), COX_CONFIG_RELOADS },
    { "model", "NAME=URL,...", NULL,
      "a model, and the servers that have it; `models` in the file can say more (SIGHUP reads it again)",
      cox_config_set_text, AT(models), COX_CONFIG_LIST | COX_CONFIG_RELOADS },
    { "model-policy", "NAME", "program",
      "how calls of models are placed; others than program are for comparison", set_policy, AT(model_policy),
      0 },
    { "model-first-token", "TIME", "10s",
      "an endpoint has at least this long for a first token; beyond it three times what is predicted",
      cox_config_set_duration, AT(model_first_token_ms), 0 },
    { "model-record", "FILE", NULL, "write model calls there with their answers, a JSON object a line",
      cox_config_set_text, AT(model_record), 0 },
    { "model-replay", "FILE", NULL,
      "answer model calls from such a file, and from nowhere else: what is not in it is refused",
      cox_config_set_text, AT(model_replay), 0 },
    { "drain-timeout", "DURATION", "30s", "SIGTERM: time for model calls to end", cox_config_set_duration,
      AT(drain_timeout_ms), 0 },
    { "ready-file", "FILE", NULL,
      "written once it serves: {\"grpc\":\"host:port\",\"http\":\"host:port\",\"pid\":N}",
      cox_config_set_text, AT(ready_file), 0 },
    { "insecure", NULL, "false", "allow a listener that other hosts can reach, without TLS and tokens",
      cox_config_set_switch, AT(insecure), 0 },
    { "shards", "N", "1", "engine threads", set_shards, 0, 0 },
    { "checkpoint-bytes", "SIZE", "64Mi", "log written between two checkpoints", set_bytes,
      AT(checkpoint_bytes), 0 },
    { "retention", "TIME", "7d", "ended tasks are kept this long; 0: for ever", cox_config_set_duration,
      AT(retention_ms), COX_CONFIG_RELOADS },
    { "min-free", "SIZE", "512M", "with less left on the disk no more work is taken; 0: do not look",
      cox_config_set_size, AT(min_free), COX_CONFIG_RELOADS },
    { "memory-limit", "SIZE", "0", "with more than 90 % of it used no more work is taken; 0: none",
      cox_config_set_size, AT(memory_limit), COX_CONFIG_RELOADS },
    { "restore", "DIR", NULL, "copy the backup in DIR to --data-dir, which is new or empty, and leave",
      cox_config_set_text, AT(restore), 0 },
    { "verify", NULL, "false", "read all of --data-dir, print what is wrong as JSON, and leave",
      cox_config_set_switch, AT(verify), 0 },
    { "lift", "TASK", NULL, "end the quarantine of this task in --data-dir, and leave", cox_config_set_text,
      AT(lift), 0 },
    { "log-level", "LEVEL", "info", "debug, info, warn or error", cox_config_set_log_level, AT(log_level),
      COX_CONFIG_RELOADS },
    { "log-format", "FORMAT", "text", "text or json", cox_config_set_log_format, AT(log_format),
      COX_CONFIG_RELOADS },
};

static const char *const others[] = { "models", NULL };

const struct cox_config_program coxd_config_program = {
    .name = "coxd",
    .version = COXD_VERSION,
    .intro = "coxd: the orchestrator of Coxswain\n\nusage: coxd [flags]\n\n",
    .outro = "SIGTERM lets model calls end, and takes nothing new; a second SIGTERM does not wait.\n"
             "Exit codes: 0 stopped as asked, 1 could not start, 2 wrong usage, 75 start me again.\n",
    .keys = keys,
    .n_keys = sizeof(keys) / sizeof(keys[0]),
    .others = others,
};

bool coxd_config_is_loopback(const char *address)
{
    size_t number = strspn(address, "0123456789."); /* a name may begin with 127., too, and lead elsewhere */

    return (strncmp(address, "127.", 4) == 0 && address[number] == ':') ||
           strncmp(address, "localhost:", 10) == 0 || strncmp(address, "[::1]:", 6) == 0;
}

/* Other hosts may come where nobody on the way can read what is said, and nobody is let in without an
 * identity. */
static bool is_open(const struct coxd_config *c, const char *flag, const char *address, FILE *err)
{
    const char *missing = !c->tls_cert                   ? "no TLS (--tls-cert)"
                          : !c->token_file && !c->tls_ca ? "no identity is asked for (--token-file, --tls-ca)"
                                                         : NULL;

    if (!missing || coxd_config_is_loopback(address) || strcmp(address, "off") == 0)
        return false;
    fprintf(
        err,
        "coxd: %s %s can be reached from other hosts, and there is %s; use 127.0.0.1, or say --insecure\n",
        flag, address, missing);
    return true;
}

enum cox_config_outcome coxd_config_read(struct coxd_config *ret, int argc, char **argv, FILE *err,
                                         struct cox_config **ret_config)
{
    memset(ret, 0, sizeof(*ret));
    enum cox_config_outcome outcome = cox_config_read(&coxd_config_program, argc, argv, ret, err, ret_config);

    if (outcome == COX_CONFIG_RUN && !ret->insecure &&
        (is_open(ret, "--grpc", ret->grpc, err) || is_open(ret, "--http", ret->http, err)))
        return COX_CONFIG_EXIT_USAGE;
    return outcome;
}
