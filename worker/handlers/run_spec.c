#include "run_spec.h"

#include "../blobs.h"
#include "../gateway/gateway.h"
#include "../wiped.h"
#include "spawn.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/json.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#define N_OWN_MAX 14 /* COX_..., OPENAI_... and TRACEPARENT */
#define ENV_MAX 1024u

struct reader {
    struct cox_arena *arena;
    const char *why;
};

static bool fail(struct reader *r, const char *what, const char *expected)
{
    struct cox_buf b = { 0 };

    cox_buf_printf(&b, "%s: %s", what, expected);
    r->why = cox_arena_dup(r->arena, b.data, b.len);
    cox_buf_fini(&b);
    return false;
}

/* A value as a process sees it. */
static struct cox_slice text_of(struct reader *r, struct cox_slice value)
{
    enum cox_json_kind kind = cox_json_kind(value);
    struct cox_buf b = { 0 };
    struct cox_slice s;

    wiped_reserve(&b, value.len + 1); /* so that it does not move, and leave a part of a secret behind */
    if (kind == COX_JSON_STRING)
        cox_json_unquote(&b, value);
    else if (kind != COX_JSON_NULL)
        cox_json_compact(&b, value);
    s = cox_slice(cox_arena_dup(r->arena, b.data, b.len), b.len);
    wiped_fini(&b);
    return s;
}

/* NULL and *why when it holds a NUL, which would end it early. */
static char *string_of(struct reader *r, struct cox_slice value, const char *what)
{
    struct cox_slice s = text_of(r, value);

    if (memchr(s.data, 0, s.len)) {
        fail(r, what, "expected text without NUL characters");
        return NULL;
    }
    return (char *)(uintptr_t)s.data;
}

static size_t count(struct cox_slice container)
{
    struct cox_json_walk w = cox_json_walk(container);
    size_t n = 0;

    while (cox_json_next(&w))
        n++;
    return n;
}

static bool read_args(struct reader *r, struct cox_slice args, const char *name, char **to)
{
    size_t n = 0;

    for (struct cox_json_walk w = cox_json_walk(args); cox_json_next(&w); n++) {
        char what[40];

        snprintf(what, sizeof(what), "%s[%zu]", name, n);
        to[n] = string_of(r, w.value, what);
        if (!to[n])
            return false;
    }
    to[n] = NULL;
    return true;
}

static bool read_argv(struct reader *r, struct cox_slice spec, struct run_spec *ret)
{
    struct cox_slice value;

    if (!cox_json_member(spec, "argv", &value) || cox_json_kind(value) != COX_JSON_ARRAY)
        return fail(r, "run.argv", "expected an array of strings");
    ret->argv = cox_arena_alloc(r->arena, (count(value) + 1) * sizeof(*ret->argv));
    if (!read_args(r, value, "run.argv", ret->argv))
        return false;
    if (!ret->argv[0] || ret->argv[0][0] == 0)
        return fail(r, "run.argv[0]", "expected the name of a program");
    return true;
}

/* Later entries of the same name replace earlier ones. */
static void put_env(struct reader *r, char **envp, size_t *n, const char *name, const char *value)
{
    size_t name_len = strlen(name);
    size_t value_len = strlen(value);
    char *entry = cox_arena_alloc(r->arena, name_len + value_len + 2);
    size_t i = 0;

    memcpy(entry, name, name_len);
    entry[name_len] = '=';
    memcpy(entry + name_len + 1, value, value_len + 1);
    while (i < *n && strncmp(envp[i], entry, name_len + 1) != 0)
        i++;
    envp[i] = entry;
    *n += i == *n;
}

static const char *get_env(char *const *envp, const char *name)
{
    size_t name_len = strlen(name);

    for (; *envp; envp++)
        if (strncmp(*envp, name, name_len) == 0 && (*envp)[name_len] == '=')
            return *envp + name_len + 1;
    return NULL;
}

/* Where models are, and the key for that. */
static const char *const model_names[] = { "OPENAI_BASE_URL", "OPENAI_API_KEY" };

/* Both are the step's, or both are ours: one of each would send somebody's key to somebody else. */
static void leave_models(struct reader *r, struct cox_slice env, char **envp, size_t *n)
{
    bool own = false;
    size_t kept = 0;

    for (struct cox_json_walk w = cox_json_walk(env); cox_json_next(&w);) {
        const char *name = string_of(r, w.key, "run.env");

        own |= name && (strcmp(name, model_names[0]) == 0 || strcmp(name, model_names[1]) == 0);
    }
    for (size_t i = 0; own && i < *n; i++) {
        size_t len = strcspn(envp[i], "=");

        if (!(strlen(model_names[0]) == len && strncmp(envp[i], model_names[0], len) == 0) &&
            !(strlen(model_names[1]) == len && strncmp(envp[i], model_names[1], len) == 0))
            envp[kept++] = envp[i];
    }
    *n = own ? kept : *n;
}

static char *dup_slice(struct cox_arena *arena, struct cox_slice s)
{
    return cox_arena_dup(arena, s.data, s.len);
}

static char *dup_own(struct cox_arena *arena, const struct call_args *args, struct cox_slice of_step)
{
    struct cox_buf own = { 0 };
    char *copy;

    call_put_own(&own, args, of_step);
    copy = dup_slice(arena, cox_buf_slice(&own));
    cox_buf_fini(&own);
    return copy;
}

static void put_hex(char *to, const void *data, size_t len, size_t n)
{
    unsigned char digest[EVP_MAX_MD_SIZE];

    COX_ASSERT(EVP_Digest(data, len, digest, NULL, EVP_sha256(), NULL) == 1);
    for (size_t i = 0; i < n; i++)
        snprintf(to + 2 * i, 3, "%02x", digest[i]);
}

void run_spec_traceparent(const struct call_args *args, char ret[RUN_TRACEPARENT_MAX])
{
    const struct cox_agent_assign *assign = args->assign;
    struct cox_slice key = assign->idempotency_key;
    struct cox_buf span_of = { 0 };
    size_t task_len = 0;
    char trace[33], span[17];

    while (task_len < key.len && key.data[task_len] != '/')
        task_len++;
    cox_buf_append_slice(&span_of, key);
    cox_buf_printf(&span_of, "#%u", assign->attempt);
    if (args->index)
        cox_buf_printf(&span_of, "[%u]", *args->index);
    put_hex(trace, key.data, task_len, 16);
    put_hex(span, span_of.data, span_of.len, 8);
    cox_buf_fini(&span_of);
    snprintf(ret, RUN_TRACEPARENT_MAX, "00-%s-%s-01", trace, span);
}

size_t run_spec_environment(struct cox_arena *arena, const struct call_args *args, enum sandbox_level level,
                            size_t room, char ***ret)
{
    struct reader r = { .arena = arena };
    const struct cox_agent_assign *assign = args->assign;
    char **inherited = spawn_environment(NULL);
    char number[12], traceparent[RUN_TRACEPARENT_MAX], url[GATEWAY_URL_MAX];
    char **envp;
    size_t n = 0;

    if (level != SANDBOX_NONE)
        sandbox_environment(inherited, level);
    while (inherited[n])
        n++;
    envp = cox_arena_alloc(arena, (n + N_OWN_MAX + room + 1) * sizeof(*envp));
    memcpy(envp, inherited, n * sizeof(*envp));
    cox_free(inherited);
    snprintf(number, sizeof(number), "%u", assign->attempt);
    put_env(&r, envp, &n, "COX_TASK_ID", dup_slice(arena, assign->task_id));
    put_env(&r, envp, &n, "COX_STEP", dup_own(arena, args, assign->step_name));
    put_env(&r, envp, &n, "COX_ATTEMPT", number);
    put_env(&r, envp, &n, "COX_WORKSPACE", args->dir);
    put_env(&r, envp, &n, "COX_IDEMPOTENCY_KEY", dup_own(arena, args, assign->idempotency_key));
    run_spec_traceparent(args, traceparent);
    put_env(&r, envp, &n, "TRACEPARENT", traceparent);
    if (args->bundle_dir)
        put_env(&r, envp, &n, "COX_BUNDLE", args->bundle_dir);
    if (args->blobs_dir)
        put_env(&r, envp, &n, "COX_BLOBS", args->blobs_dir);
    if (args->index) {
        snprintf(number, sizeof(number), "%u", *args->index);
        put_env(&r, envp, &n, "COX_ITEM", number);
    }
    if (args->gateway && gateway_url(args->gateway, level == SANDBOX_STRICT, url)) {
        put_env(&r, envp, &n, "COX_BLOBS_URL", url);
        put_env(&r, envp, &n, "COX_ATTEMPT_KEY", gateway_key(args->gateway));
    }
    if (args->gateway && gateway_models_url(args->gateway, level == SANDBOX_STRICT, url)) {
        put_env(&r, envp, &n, model_names[0], url);
        put_env(&r, envp, &n, model_names[1], gateway_key(args->gateway));
    }
    envp[n] = NULL;
    *ret = envp;
    return n;
}

/* What the step asked for, over the `n` that are there; `what` names the place. */
static bool put_asked(struct reader *r, struct cox_slice env, const char *what, char **envp, size_t n)
{
    for (struct cox_json_walk w = cox_json_walk(env); cox_json_next(&w);) {
        char *name = string_of(r, w.key, what);
        char *text = name ? string_of(r, w.value, what) : NULL;

        if (!text)
            return false;
        if (name[0] == 0 || strchr(name, '='))
            return fail(r, what, "expected names that are not empty and have no '='");
        put_env(r, envp, &n, name, text);
    }
    envp[n] = NULL;
    return true;
}

static bool find_env(struct reader *r, struct cox_slice spec, const char *what, struct cox_slice *ret)
{
    *ret = cox_slice_str("{}");
    if (cox_json_member(spec, "env", ret) && cox_json_kind(*ret) != COX_JSON_OBJECT)
        return fail(r, what, "expected an object of strings");
    return count(*ret) <= ENV_MAX || fail(r, what, "expected at most 1024 names");
}

static bool read_env(struct reader *r, const struct call_args *args, struct run_spec *ret)
{
    struct cox_slice value;
    size_t n;

    if (!find_env(r, args->spec, "run.env", &value))
        return false;
    n = run_spec_environment(r->arena, args, ret->level, count(value), &ret->envp);
    leave_models(r, value, ret->envp, &n);
    return put_asked(r, value, "run.env", ret->envp, n);
}

/* What execvpe would try, but with the step's own PATH. */
static void find_paths(struct reader *r, struct run_spec *ret)
{
    const char *program = ret->argv[0];
    size_t program_len = strlen(program);
    size_t n_max = 2;
    size_t n = 0;

    ret->path_env = get_env(ret->envp, "PATH");
    for (const char *p = ret->path_env; *p; p++)
        n_max += *p == ':';
    ret->paths = cox_arena_alloc(r->arena, n_max * sizeof(*ret->paths));
    if (strchr(program, '/')) {
        ret->paths[n++] = ret->argv[0];
    } else {
        for (const char *p = ret->path_env;; p++) {
            size_t len = strcspn(p, ":");
            char *path = cox_arena_alloc(r->arena, len + program_len + 3);

            if (len == 0)
                memcpy(path, ".", ++len);
            else
                memcpy(path, p, len);
            path[len] = '/';
            memcpy(path + len + 1, program, program_len + 1);
            ret->paths[n++] = path;
            p += strcspn(p, ":");
            if (*p == 0)
                break;
        }
    }
    ret->paths[n] = NULL;
}

static bool read_rest(struct reader *r, const struct call_args *args, struct run_spec *ret)
{
    struct cox_slice spec = args->spec;
    struct cox_slice value;
    struct cox_slice text;
    char hex[BLOB_HEX_LEN + 1];

    if (cox_json_member(spec, "stdin", &value) && cox_json_kind(value) != COX_JSON_NULL) {
        if (args->blobs_dir && blob_ref(value, hex)) {
            char *path = cox_asprintf("%s/%s", args->blobs_dir, hex);

            ret->stdin_path = cox_arena_dup(r->arena, path, strlen(path));
            cox_free(path);
        }
        ret->has_stdin = !ret->stdin_path;
        if (ret->has_stdin)
            ret->stdin_bytes = text_of(r, value);
    }
    if (cox_json_member(spec, "output", &value) && cox_json_kind(value) != COX_JSON_NULL) {
        text = text_of(r, value);
        ret->output_is_json = cox_slice_is(text, "json");
        if (!ret->output_is_json && !cox_slice_is(text, "text"))
            return fail(r, "run.output", "expected text or json");
    }
    return true;
}

static bool read_level(struct reader *r, const struct sandbox *sandbox, struct cox_slice spec,
                       const char *what, struct run_spec *ret)
{
    enum sandbox_level asked = SANDBOX_NONE;
    struct cox_slice value;

    if (cox_json_member(spec, "sandbox", &value) && cox_json_kind(value) != COX_JSON_NULL &&
        !sandbox_level_parse(text_of(r, value), &asked))
        return fail(r, what, "expected none, net or strict");
    ret->level = sandbox_level_for(sandbox, asked);
    return true;
}

enum cox_err run_spec_read(struct cox_arena *arena, const struct sandbox *sandbox,
                           const struct call_args *args, struct run_spec *ret, const char **ret_why)
{
    struct reader r = { .arena = arena };
    struct cox_json_place place;
    struct run_spec out = { 0 };

    if (cox_json_check(args->spec, &place) != COX_OK)
        fail(&r, "run", place.expected);
    else if (cox_json_kind(args->spec) != COX_JSON_OBJECT)
        fail(&r, "run", "expected an object");
    else if (read_level(&r, sandbox, args->spec, "run.sandbox", &out) && read_argv(&r, args->spec, &out) &&
             read_env(&r, args, &out) && read_rest(&r, args, &out))
        find_paths(&r, &out);
    if (r.why) {
        *ret_why = r.why;
        return COX_ERR_INVALID;
    }
    *ret = out;
    return COX_OK;
}

/* ---------------------------------------------------------------- servers */

static bool read_command(struct reader *r, struct cox_slice server, struct run_spec *ret)
{
    struct cox_slice command, args = cox_slice_str("[]");

    if (!cox_json_member(server, "command", &command) || cox_json_kind(command) != COX_JSON_STRING)
        return fail(r, "mcp.command", "expected the name of a program");
    if (cox_json_member(server, "args", &args) && cox_json_kind(args) != COX_JSON_ARRAY)
        return fail(r, "mcp.args", "expected an array of strings");
    ret->argv = cox_arena_alloc(r->arena, (count(args) + 2) * sizeof(*ret->argv));
    ret->argv[0] = string_of(r, command, "mcp.command");
    if (!ret->argv[0] || ret->argv[0][0] == 0)
        return r->why ? false : fail(r, "mcp.command", "expected the name of a program");
    return read_args(r, args, "mcp.args", ret->argv + 1);
}

static bool read_server_env(struct reader *r, const struct call_args *args, struct cox_slice server,
                            const char *dir, struct run_spec *ret)
{
    char **inherited = spawn_environment(NULL);
    struct cox_slice value;
    size_t n = 0;

    if (ret->level != SANDBOX_NONE)
        sandbox_environment(inherited, ret->level);
    while (inherited[n])
        n++;
    if (find_env(r, server, "mcp.env", &value)) {
        ret->envp = cox_arena_alloc(r->arena, (n + N_OWN_MAX + count(value) + 1) * sizeof(*ret->envp));
        memcpy(ret->envp, inherited, n * sizeof(*ret->envp));
        put_env(r, ret->envp, &n, "COX_TASK_ID", dup_slice(r->arena, args->assign->task_id));
        put_env(r, ret->envp, &n, "COX_WORKSPACE", dir);
        if (args->bundle_dir)
            put_env(r, ret->envp, &n, "COX_BUNDLE", args->bundle_dir);
        put_asked(r, value, "mcp.env", ret->envp, n);
    }
    cox_free(inherited);
    return !r->why;
}

enum cox_err run_spec_read_server(struct cox_arena *arena, const struct sandbox *sandbox,
                                  const struct call_args *args, struct cox_slice server, const char *dir,
                                  struct run_spec *ret, const char **ret_why)
{
    struct reader r = { .arena = arena };
    struct run_spec out = { 0 };

    if (read_level(&r, sandbox, server, "mcp.sandbox", &out) && read_command(&r, server, &out) &&
        read_server_env(&r, args, server, dir, &out))
        find_paths(&r, &out);
    if (r.why) {
        *ret_why = r.why;
        return COX_ERR_INVALID;
    }
    *ret = out;
    return COX_OK;
}
