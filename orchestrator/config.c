#include "config.h"

#include "cox/base/alloc.h"
#include "cox/base/buf.h"
#include "cox/base/units.h"

#include <stdlib.h>
#include <string.h>

#define FLAG_LEN_MAX 64
#define SUGGEST_DISTANCE_MAX 3

struct flag {
    const char *name;
    const char *value;    /* what it takes, for the help; NULL: a switch */
    const char *fallback; /* default, as text */
    const char *help;
    bool (*set)(struct cox_config *c, const char *value);
    const char *expected; /* said when set refuses */
};

static bool set_data_dir(struct cox_config *c, const char *v)
{
    c->data_dir = v;
    return *v != '\0';
}

static bool set_store(struct cox_config *c, const char *v)
{
    c->store = v;
    return strcmp(v, "sqlite") == 0 || strcmp(v, "memory") == 0;
}

static bool set_grpc(struct cox_config *c, const char *v)
{
    const char *colon = strrchr(v, ':');
    char *end;

    c->grpc = v;
    if (!colon || colon == v || colon[1] < '0' || colon[1] > '9')
        return false;
    return strtol(colon + 1, &end, 10) <= 65535 && *end == '\0';
}

static bool set_ready_file(struct cox_config *c, const char *v)
{
    c->ready_file = *v ? v : NULL;
    return true;
}

static bool set_insecure(struct cox_config *c, const char *v)
{
    c->insecure = strcmp(v, "true") == 0 || strcmp(v, "1") == 0;
    return c->insecure || strcmp(v, "false") == 0 || strcmp(v, "0") == 0 || *v == '\0';
}

static bool set_shards(struct cox_config *c, const char *v)
{
    (void)c;
    return strcmp(v, "1") == 0;
}

static bool set_checkpoint_bytes(struct cox_config *c, const char *v)
{
    int64_t bytes;

    if (cox_parse_size(cox_slice_str(v), &bytes) || bytes < 1)
        return false;
    c->checkpoint_bytes = (uint64_t)bytes;
    return true;
}

static bool set_log_level(struct cox_config *c, const char *v)
{
    return cox_log_parse_level(v, &c->log_level) == COX_OK;
}

static bool set_log_format(struct cox_config *c, const char *v)
{
    return cox_log_parse_format(v, &c->log_format) == COX_OK;
}

static const struct flag flags[] = {
    { "data-dir", "DIR", "coxd-data", "where the log and the state live", set_data_dir, "a directory" },
    { "store", "NAME", "sqlite", "sqlite, or memory (nothing survives the process)", set_store,
      "sqlite or memory" },
    { "grpc", "HOST:PORT", "127.0.0.1:7600", "listen here; port 0 picks a free one", set_grpc,
      "HOST:PORT, such as 127.0.0.1:7600" },
    { "ready-file", "FILE", "", "written once it serves: {\"grpc\":\"host:port\",\"http\":\"\",\"pid\":N}",
      set_ready_file, "a file" },
    { "insecure", NULL, "false", "allow a listener that other hosts can reach, without TLS and tokens",
      set_insecure, "true or false" },
    { "shards", "N", "1", "engine threads", set_shards, "1; more than one shard does not exist yet" },
    { "checkpoint-bytes", "SIZE", "64Mi", "log written between two checkpoints", set_checkpoint_bytes,
      "a size such as 64Mi" },
    { "log-level", "LEVEL", "info", "debug, info, warn or error", set_log_level,
      "debug, info, warn or error" },
    { "log-format", "FORMAT", "text", "text or json", set_log_format, "text or json" },
};
#define N_FLAGS (sizeof(flags) / sizeof(flags[0]))

/* ---- suggestions ---- */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Levenshtein's distance, one row at a time. */
static size_t distance(const char *a, const char *b)
{
    size_t row[FLAG_LEN_MAX + 1];
    size_t n = strlen(b);

    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t above = row[j + 1];
            row[j + 1] = least(least(above, row[j]) + 1, diagonal + (a[i] != b[j]));
            diagonal = above;
        }
    }
    return row[n];
}

static const char *nearest(const char *name)
{
    const char *best = NULL;
    size_t best_distance = SUGGEST_DISTANCE_MAX + 1;

    if (strlen(name) > FLAG_LEN_MAX)
        return NULL;
    for (size_t i = 0; i < N_FLAGS; i++) {
        size_t d = distance(name, flags[i].name);
        if (d < best_distance) {
            best = flags[i].name;
            best_distance = d;
        }
    }
    return best;
}

/* ---- reading ---- */

static const struct flag *find(const char *name, size_t len)
{
    for (size_t i = 0; i < N_FLAGS; i++) {
        if (strlen(flags[i].name) == len && memcmp(flags[i].name, name, len) == 0)
            return &flags[i];
    }
    return NULL;
}

static void variable_name(const struct flag *f, char name[FLAG_LEN_MAX])
{
    char *p = name + snprintf(name, FLAG_LEN_MAX, "COX_");

    for (const char *s = f->name; *s; s++)
        *p++ = *s == '-' ? '_' : (char)(*s - 'a' + 'A');
    *p = '\0';
}

static bool set(struct cox_config *c, const struct flag *f, const char *from, const char *value, FILE *err)
{
    if (f->set(c, value))
        return true;
    fprintf(err, "coxd: %s: \"%s\"; expected %s\n", from, value, f->expected);
    return false;
}

static bool read_environment(struct cox_config *c, FILE *err)
{
    for (size_t i = 0; i < N_FLAGS; i++) {
        char name[FLAG_LEN_MAX];
        variable_name(&flags[i], name);
        const char *value = getenv(name);
        if (!set(c, &flags[i], flags[i].name, flags[i].fallback, err))
            return false;
        if (value && !set(c, &flags[i], name, value, err))
            return false;
    }
    return true;
}

static bool read_flag(struct cox_config *c, int argc, char **argv, int *i, FILE *err)
{
    const char *name = argv[*i] + 2;
    const char *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    const struct flag *f = find(name, len);

    if (!f) {
        char *asked = cox_strndup(name, len);
        const char *other = nearest(asked);
        fprintf(err, "coxd: unknown flag --%s", asked);
        fprintf(err, other ? "; did you mean --%s?\n" : "; see coxd --help\n", other);
        cox_free(asked);
        return false;
    }
    if (equals)
        return set(c, f, argv[*i], equals + 1, err);
    if (!f->value)
        return set(c, f, argv[*i], "true", err);
    if (*i + 1 == argc) {
        fprintf(err, "coxd: --%s: expected %s after it\n", f->name, f->expected);
        return false;
    }
    const char *flag = argv[(*i)++];

    return set(c, f, flag, argv[*i], err);
}

bool cox_config_is_loopback(const char *address)
{
    return strncmp(address, "127.", 4) == 0 || strncmp(address, "localhost:", 10) == 0 ||
           strncmp(address, "[::1]:", 6) == 0;
}

enum cox_config_outcome cox_config_read(struct cox_config *ret, int argc, char **argv, FILE *err)
{
    memset(ret, 0, sizeof(*ret));
    if (!read_environment(ret, err))
        return COX_CONFIG_WRONG;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return COX_CONFIG_HELP;
        if (strcmp(argv[i], "--version") == 0)
            return COX_CONFIG_VERSION;
        if (strncmp(argv[i], "--", 2) != 0) {
            fprintf(err, "coxd: \"%s\" is not a flag; see coxd --help\n", argv[i]);
            return COX_CONFIG_WRONG;
        }
        if (!read_flag(ret, argc, argv, &i, err))
            return COX_CONFIG_WRONG;
    }
    if (!ret->insecure && !cox_config_is_loopback(ret->grpc)) {
        fprintf(err,
                "coxd: --grpc %s can be reached from other hosts, and there is no TLS yet; "
                "use 127.0.0.1, or say --insecure\n",
                ret->grpc);
        return COX_CONFIG_WRONG;
    }
    return COX_CONFIG_RUN;
}

void cox_config_help(FILE *out)
{
    fprintf(out, "coxd: the orchestrator of Coxswain\n\nusage: coxd [flags]\n\n");
    for (size_t i = 0; i < N_FLAGS; i++) {
        const struct flag *f = &flags[i];
        char left[FLAG_LEN_MAX];
        snprintf(left, sizeof(left), "--%s%s%s", f->name, f->value ? " " : "", f->value ? f->value : "");
        fprintf(out, "  %-24s %s", left, f->help);
        if (*f->fallback && f->value)
            fprintf(out, " (default %s)", f->fallback);
        fprintf(out, "\n");
    }
    fprintf(out, "  %-24s %s\n  %-24s %s\n\n", "--help", "this text", "--version", "the version");
    fprintf(out, "Each flag is also a variable: --data-dir is COX_DATA_DIR; the flag wins.\n"
                 "Exit codes: 0 stopped as asked, 1 could not start, 2 wrong usage, 75 start me again.\n");
}
