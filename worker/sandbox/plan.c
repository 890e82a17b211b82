#include "plan.h"

#include "report.h"

#include <stdlib.h>
#include <string.h>

static bool read_number(const char *text, uint64_t *ret)
{
    char *end;

    *ret = strtoull(text, &end, 10);
    return *text && !*end;
}

static bool read_uid(const char *text, uint32_t *ret)
{
    uint64_t n;
    bool ok = read_number(text, &n) && n < UINT32_MAX;

    *ret = ok ? (uint32_t)n : 0;
    return ok;
}

static bool read_small(const char *text, uint16_t *ret)
{
    uint64_t n;
    bool ok = read_number(text, &n) && n <= UINT16_MAX;

    *ret = ok ? (uint16_t)n : 0;
    return ok;
}

static bool read_one(struct plan *p, char *arg)
{
    char *value = strchr(arg, '=');
    uint16_t n;

    if (!value)
        return false;
    *value++ = 0;
    if (strcmp(arg, "level") == 0) {
        p->network = strcmp(value, "net") == 0;
        return p->network || strcmp(value, "strict") == 0;
    }
    if (strcmp(arg, "uid") == 0)
        return read_uid(value, &p->uid);
    if (strcmp(arg, "gid") == 0)
        return read_uid(value, &p->gid);
    if (strcmp(arg, "memory") == 0)
        return read_number(value, &p->memory_len_max);
    if (strcmp(arg, "tmp") == 0)
        return read_number(value, &p->tmp_len_max);
    if (strcmp(arg, "disk") == 0)
        return read_number(value, &p->disk_len_max);
    if (strcmp(arg, "processes") == 0)
        return read_number(value, &p->processes_max);
    if (strcmp(arg, "files") == 0)
        return read_number(value, &p->files_max);
    if (strcmp(arg, "port") == 0)
        return read_small(value, &n) && (p->port = n) > 0;
    if (strcmp(arg, "channel") == 0)
        return read_small(value, &n) && (p->channel = n) > ENVIRON_FD;
    if (strcmp(arg, "group") == 0) {
        p->has_group = true;
        p->is_memory_counted = strcmp(value, "memory") == 0;
        return p->is_memory_counted || !*value;
    }
    if (strcmp(arg, "path") == 0 && p->n_paths < PLAN_PATHS_MAX) {
        p->paths[p->n_paths++] = value;
        return true;
    }
    if (*value != '/')
        return false;
    if (strcmp(arg, "work") == 0)
        p->work = value;
    else if (strcmp(arg, "dir") == 0)
        p->dir = value;
    else if (strcmp(arg, "input") == 0)
        p->input = value;
    else if (strcmp(arg, "read") == 0 && p->n_read < PLAN_READ_MAX)
        p->read[p->n_read++] = value;
    else
        return false;
    return true;
}

bool plan_read(struct plan *p, int argc, char **argv, const char **ret_wrong)
{
    bool has_level = false;

    memset(p, 0, sizeof(*p));
    for (int i = 1; i < argc; i++) {
        *ret_wrong = argv[i];
        if (strcmp(argv[i], "--") == 0) {
            p->argv = argv + i + 1;
            break;
        }
        has_level |= strncmp(argv[i], "level=", 6) == 0;
        if (!read_one(p, argv[i]))
            return false;
    }
    *ret_wrong = "level=, dir=, path= or the program";
    return has_level && p->dir && p->n_paths > 0 && p->argv && p->argv[0];
}

bool plan_read_environment(struct plan *p, char *bytes, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += bytes[i] == 0;
    p->envp = calloc(n + 1, sizeof(*p->envp));
    if (!p->envp)
        return false;
    for (size_t at = 0, i = 0; i < n; at += strlen(bytes + at) + 1)
        p->envp[i++] = bytes + at;
    return true;
}
