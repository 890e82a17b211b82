/* The configuration file as the `config` verbs change it: read whole, changed as a tree, written whole. */
#include "cli.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

char *cli_config_default_path(void)
{
    const char *base = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");

    if (base && *base)
        return cox_asprintf("%s/coxswain/config.yaml", base);
    return home && *home ? cox_asprintf("%s/.config/coxswain/config.yaml", home) : NULL;
}

char *cli_current_context(const struct cox_yaml *file)
{
    struct cox_slice json = cox_buf_slice(&file->json), name;
    struct cox_buf text = { 0 };
    char *copy = NULL;

    if ((cox_json_member(json, "current_context", &name) ||
         cox_json_member(json, "current-context", &name)) &&
        cox_json_kind(name) == COX_JSON_STRING) {
        cox_json_unquote(&text, name);
        if (text.len > 0)
            copy = cox_strdup(cox_buf_cstr(&text));
    }
    cox_buf_fini(&text);
    return copy;
}

/* ---- writing ---------------------------------------------------------------------------------------- */

static enum cli_exit fail(const char *path)
{
    cli_error("%s: %s", path, strerror(errno));
    return CLI_USAGE;
}

/* The folders above a path, for their owner only. */
static bool make_parents(const char *path)
{
    char *copy = cox_strdup(path);
    bool ok = true;

    for (char *slash = strchr(copy + 1, '/'); slash && ok; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        ok = mkdir(copy, 0700) == 0 || errno == EEXIST;
        *slash = '/';
    }
    cox_free(copy);
    return ok;
}

/* Whole or not at all, and for its owner only: it may hold tokens. */
static enum cli_exit write_file(const char *path, struct cox_slice text)
{
    char *new = cox_asprintf("%s.%d", path, (int)getpid());
    int fd = make_parents(path) ? open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    bool ok = fd >= 0;

    for (size_t at = 0; ok && at < text.len;) {
        ssize_t n = write(fd, text.data + at, text.len - at);
        ok = n > 0;
        at += ok ? (size_t)n : 0;
    }
    ok = ok && fsync(fd) == 0 && rename(new, path) == 0;
    enum cli_exit code = ok ? CLI_OK : fail(path);

    if (fd >= 0) {
        close(fd);
        if (!ok)
            unlink(new);
    }
    cox_free(new);
    return code;
}

static enum cli_exit save(const struct cli *cli, const json_t *tree)
{
    char *json = json_dumps(tree, JSON_COMPACT);
    struct cox_buf text = { 0 };

    COX_ASSERT(json);
    cox_buf_append_str(&text, "# Written by cox config.\n");
    cli_put_yaml(&text, cox_slice_str(json));
    enum cli_exit code = write_file(cli->config_path, cox_buf_slice(&text));

    cox_buf_fini(&text);
    free(json);
    return code;
}

static json_t *load(const struct cli *cli)
{
    const struct cox_buf *json = &cox_config_file(cli->config)->json;
    json_t *tree = json->len > 0 ? json_loadb((const char *)json->data, json->len, 0, NULL) : json_object();

    if (json_object_get(tree, "current-context")) {
        json_object_set(tree, "current_context", json_object_get(tree, "current-context"));
        json_object_del(tree, "current-context");
    }
    if (!json_is_object(json_object_get(tree, "contexts")))
        json_object_set_new(tree, "contexts", json_object());
    return tree;
}

static bool any(const struct cox_tls_files *tls)
{
    return tls && (tls->ca || tls->cert || tls->key);
}

/* `cox` is used in more than one folder. */
static void put_file(json_t *context, const char *key, const char *path)
{
    char *full = path ? realpath(path, NULL) : NULL;

    if (path)
        json_object_set_new(context, key, json_string(full ? full : path));
    free(full);
}

enum cli_exit cli_put_context(struct cli *cli, const char *name, const char *address, const char *token,
                              const char *tenant, const struct cox_tls_files *tls, bool use)
{
    if (!cli->config_path) {
        cli_error("there is no home directory; say --config FILE");
        return CLI_USAGE;
    }
    struct cox_buf error = { 0 };

    /* As it is now: another program may have written it since. */
    enum cox_err err = cox_config_load(cli->config, cli->config_path, &error);

    if (err && err != COX_ERR_NOT_FOUND) {
        cli_error("%s", cox_buf_cstr(&error));
        cox_buf_fini(&error);
        return CLI_USAGE;
    }
    cox_buf_fini(&error);
    json_t *tree = load(cli), *contexts = json_object_get(tree, "contexts");
    json_t *context = json_object_get(contexts, name);
    const char *current = json_string_value(json_object_get(tree, "current_context"));

    if (!address && !token && !tenant && !any(tls) && !use) {
        json_object_del(contexts, name);
        if (current && strcmp(current, name) == 0)
            json_object_del(tree, "current_context");
    } else if (!context) {
        context = json_object();
        json_object_set_new(contexts, name, context);
    }
    if (address)
        json_object_set_new(context, "address", json_string(address));
    if (token)
        json_object_set_new(context, "token", json_string(token));
    if (tenant)
        json_object_set_new(context, "tenant", json_string(tenant));
    if (any(tls)) {
        put_file(context, "tls_ca", tls->ca);
        put_file(context, "tls_cert", tls->cert);
        put_file(context, "tls_key", tls->key);
    }
    if (use)
        json_object_set_new(tree, "current_context", json_string(name));
    enum cli_exit code = save(cli, tree);

    json_decref(tree);
    return code;
}
