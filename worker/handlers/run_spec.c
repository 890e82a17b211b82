#include "run_spec.h"

#include "cox/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_DEFAULT "/usr/local/bin:/usr/bin:/bin"

/* All that a step sees of its worker's environment. */
static const char *const inherited[] = { "PATH", "HOME",   "USER", "LOGNAME", "SHELL",
                                         "LANG", "LC_ALL", "TZ",   "TMPDIR" };
#define N_INHERITED (sizeof(inherited) / sizeof(inherited[0]))
#define N_OWN 5 /* COX_... */
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

    if (kind == COX_JSON_STRING)
        cox_json_unquote(&b, value);
    else if (kind != COX_JSON_NULL)
        cox_json_compact(&b, value);
    s = cox_slice(cox_arena_dup(r->arena, b.data, b.len), b.len);
    cox_buf_fini(&b);
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

static bool read_argv(struct reader *r, struct cox_slice spec, struct run_spec *ret)
{
    struct cox_slice value;
    struct cox_json_walk w;
    size_t n = 0;

    if (!cox_json_member(spec, "argv", &value) || cox_json_kind(value) != COX_JSON_ARRAY)
        return fail(r, "run.argv", "expected an array of strings");
    ret->argv = cox_arena_alloc(r->arena, (count(value) + 1) * sizeof(*ret->argv));
    for (w = cox_json_walk(value); cox_json_next(&w); n++) {
        char what[40];

        snprintf(what, sizeof(what), "run.argv[%zu]", n);
        ret->argv[n] = string_of(r, w.value, what);
        if (!ret->argv[n])
            return false;
    }
    ret->argv[n] = NULL;
    if (n == 0 || ret->argv[0][0] == 0)
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

static void put_own(struct reader *r, const struct cox_agent_assign *assign, const char *dir, char **envp,
                    size_t *n)
{
    char attempt[12];

    snprintf(attempt, sizeof(attempt), "%u", assign->attempt);
    put_env(r, envp, n, "COX_TASK_ID", cox_arena_dup(r->arena, assign->task_id.data, assign->task_id.len));
    put_env(r, envp, n, "COX_STEP", cox_arena_dup(r->arena, assign->step_name.data, assign->step_name.len));
    put_env(r, envp, n, "COX_ATTEMPT", attempt);
    put_env(r, envp, n, "COX_WORKSPACE", dir);
    put_env(r, envp, n, "COX_IDEMPOTENCY_KEY",
            cox_arena_dup(r->arena, assign->idempotency_key.data, assign->idempotency_key.len));
}

static bool read_env(struct reader *r, struct cox_slice spec, const struct cox_agent_assign *assign,
                     const char *dir, struct run_spec *ret)
{
    struct cox_slice value = cox_slice_str("{}");
    struct cox_json_walk w;
    size_t n = 0;

    if (cox_json_member(spec, "env", &value) && cox_json_kind(value) != COX_JSON_OBJECT)
        return fail(r, "run.env", "expected an object of strings");
    if (count(value) > ENV_MAX)
        return fail(r, "run.env", "expected at most 1024 names");
    ret->envp = cox_arena_alloc(r->arena, (count(value) + N_INHERITED + N_OWN + 2) * sizeof(*ret->envp));
    put_env(r, ret->envp, &n, "PATH", PATH_DEFAULT);
    for (size_t i = 0; i < N_INHERITED; i++)
        if (getenv(inherited[i]))
            put_env(r, ret->envp, &n, inherited[i], getenv(inherited[i]));
    put_own(r, assign, dir, ret->envp, &n);
    for (w = cox_json_walk(value); cox_json_next(&w);) {
        char *name = string_of(r, w.key, "run.env");
        char *text = name ? string_of(r, w.value, "run.env") : NULL;

        if (!text)
            return false;
        if (name[0] == 0 || strchr(name, '='))
            return fail(r, "run.env", "expected names that are not empty and have no '='");
        put_env(r, ret->envp, &n, name, text);
    }
    ret->envp[n] = NULL;
    return true;
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

static bool read_rest(struct reader *r, struct cox_slice spec, struct run_spec *ret)
{
    struct cox_slice value;
    struct cox_slice text;

    if (cox_json_member(spec, "stdin", &value) && cox_json_kind(value) != COX_JSON_NULL) {
        ret->has_stdin = true;
        ret->stdin_bytes = text_of(r, value);
    }
    if (cox_json_member(spec, "output", &value) && cox_json_kind(value) != COX_JSON_NULL) {
        text = text_of(r, value);
        ret->output_is_json = cox_slice_is(text, "json");
        if (!ret->output_is_json && !cox_slice_is(text, "text"))
            return fail(r, "run.output", "expected text or json");
    }
    if (cox_json_member(spec, "sandbox", &value) && cox_json_kind(value) != COX_JSON_NULL &&
        !cox_slice_is(text_of(r, value), "none"))
        return fail(r, "run.sandbox", "only none is available on this worker yet");
    return true;
}

enum cox_err run_spec_read(struct cox_arena *arena, const struct cox_agent_assign *assign, const char *dir,
                           struct run_spec *ret, const char **ret_why)
{
    struct reader r = { .arena = arena };
    struct cox_slice spec = assign->spec_json;
    struct cox_json_place place;
    struct run_spec out = { 0 };

    if (cox_json_check(spec, &place) != COX_OK)
        fail(&r, "run", place.expected);
    else if (cox_json_kind(spec) != COX_JSON_OBJECT)
        fail(&r, "run", "expected an object");
    else if (read_argv(&r, spec, &out) && read_env(&r, spec, assign, dir, &out) && read_rest(&r, spec, &out))
        find_paths(&r, &out);
    if (r.why) {
        *ret_why = r.why;
        return COX_ERR_INVALID;
    }
    *ret = out;
    return COX_OK;
}
