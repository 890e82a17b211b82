#include "secrets.h"

#include "wiped.h"

#include "handlers/spawn.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/json.h"

#include <string.h>

#define NAME_LEN_MAX 128u
#define REFERENCES_MAX 4096u

struct reading {
    struct cox_buf *path, *error;
    const char *name;
};

static bool fail(struct reading *r, const char *field, const char *expected)
{
    cox_buf_clear(r->path);
    cox_buf_printf(r->path, "secrets%s%s%s%s", r->name ? "." : "", r->name ? r->name : "", field ? "." : "",
                   field ? field : "");
    cox_buf_printf(r->error, "expected %s", expected);
    return false;
}

bool secret_name_ok(struct cox_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t b = s.data[i];
        bool word = (b >= '0' && b <= '9') || ((b | 0x20) >= 'a' && (b | 0x20) <= 'z') || b == '_';

        if (!word && (i == 0 || (b != '.' && b != '-')))
            return false;
    }
    return s.len > 0 && s.len <= NAME_LEN_MAX;
}

/* A text without NUL; NULL for anything else. */
static char *text_of(struct cox_slice value)
{
    struct cox_buf b = { 0 };
    char *copy = NULL;

    if (cox_json_kind(value) == COX_JSON_STRING)
        cox_json_unquote(&b, value);
    if (b.len > 0 && !memchr(b.data, 0, b.len))
        copy = cox_strndup((const char *)b.data, b.len);
    cox_buf_fini(&b);
    return copy;
}

static bool read_list(struct cox_slice value, char ***ret)
{
    size_t n = 0;

    if (cox_json_kind(value) != COX_JSON_ARRAY)
        return false;
    for (struct cox_json_walk w = cox_json_walk(value); cox_json_next(&w);)
        n++;
    *ret = cox_calloc(n + 1, sizeof(**ret));
    n = 0;
    for (struct cox_json_walk w = cox_json_walk(value); cox_json_next(&w); n++) {
        if (((*ret)[n] = text_of(w.value)) == NULL)
            return false;
    }
    return n > 0;
}

static bool read_duration(struct cox_slice value, int64_t min_ms, int64_t *ret)
{
    char *text = text_of(value);
    bool ok = text && cox_parse_duration_ms(cox_slice_str(text), ret) == COX_OK && *ret >= min_ms;

    cox_free(text);
    return ok;
}

static bool is_inherited(const char *name)
{
    char **envp = spawn_environment(NULL);
    size_t len = strlen(name);
    bool found = false;

    for (char **e = envp; *e && !found; e++)
        found = strncmp(*e, name, len) == 0 && (*e)[len] == '=';
    cox_free(envp);
    return found;
}

static bool read_field(struct reading *r, struct secret_reference *ref, const char *name,
                       struct cox_slice value)
{
    if (strcmp(name, "file") == 0) {
        ref->source = SECRET_FILE;
        ref->at = text_of(value);
        return (ref->at && ref->at[0] == '/') || fail(r, name, "the path of a file, from the root");
    }
    if (strcmp(name, "env") == 0) {
        ref->source = SECRET_ENV;
        ref->at = text_of(value);
        if (!ref->at || strchr(ref->at, '='))
            return fail(r, name, "the name of an environment variable");
        return !is_inherited(ref->at) || fail(r, name, "a variable that steps do not see anyway");
    }
    if (strcmp(name, "command") == 0) {
        ref->source = SECRET_COMMAND;
        return (read_list(value, &ref->argv) && ref->argv[0][0] == '/') ||
               fail(r, name, "a list of texts, first the path of a program, from the root");
    }
    if (strcmp(name, "tenants") == 0)
        return read_list(value, &ref->tenants) || fail(r, name, "a list of names");
    if (strcmp(name, "timeout") == 0)
        return read_duration(value, 1, &ref->limit_ms) || fail(r, name, "a duration such as 10s");
    if (strcmp(name, "ttl") == 0)
        return read_duration(value, 0, &ref->ttl_ms) || fail(r, name, "a duration such as 1m");
    return fail(r, name, "one of file, env, command, tenants, timeout and ttl");
}

static bool read_reference(struct reading *r, struct secret_reference *ref, struct cox_slice value)
{
    struct cox_buf name = { 0 };
    int n_sources = 0;
    bool ok = true, timed = false;

    if (!secret_name_ok(cox_slice_str(r->name)))
        return fail(r, NULL, "a name of letters, digits, _ . and -, at most 128 long");
    if (cox_json_kind(value) != COX_JSON_OBJECT)
        return fail(r, NULL, "one of {file: PATH}, {env: NAME} and {command: [PROGRAM, ...]}");
    *ref = (struct secret_reference){ .name = cox_strdup(r->name),
                                      .limit_ms = SECRET_COMMAND_LIMIT_MS,
                                      .ttl_ms = SECRET_COMMAND_TTL_MS };
    for (struct cox_json_walk w = cox_json_walk(value); ok && cox_json_next(&w);) {
        cox_buf_clear(&name);
        cox_json_unquote(&name, w.key);
        const char *field = cox_buf_cstr(&name);

        n_sources += !strcmp(field, "file") || !strcmp(field, "env") || !strcmp(field, "command");
        timed = timed || !strcmp(field, "timeout") || !strcmp(field, "ttl");
        ok = n_sources < 2 && read_field(r, ref, field, w.value);
    }
    cox_buf_fini(&name);
    if (!ok && r->error->len > 0)
        return false;
    if (n_sources != 1)
        return fail(r, NULL, "exactly one of file, env and command");
    return !timed || ref->source == SECRET_COMMAND || fail(r, NULL, "timeout and ttl beside a command only");
}

enum cox_err secret_table_read(struct cox_slice json, struct secret_table **ret, struct cox_buf *ret_path,
                               struct cox_buf *error)
{
    struct reading r = { .path = ret_path, .error = error };
    struct secret_table *t = COX_NEW(struct secret_table);
    struct cox_buf name = { 0 };
    size_t n = 0;
    bool ok = true;

    atomic_init(&t->n_refs, 1);
    if (json.len > 0 && cox_json_kind(json) != COX_JSON_OBJECT && cox_json_kind(json) != COX_JSON_NULL)
        ok = fail(&r, NULL, "names of secrets, each with where it is");
    for (struct cox_json_walk w = cox_json_walk(json); ok && cox_json_next(&w);)
        n++;
    if (ok && n > REFERENCES_MAX)
        ok = fail(&r, NULL, "at most 4096 names");
    t->items = cox_calloc(n + 1, sizeof(*t->items));
    for (struct cox_json_walk w = cox_json_walk(json); ok && cox_json_next(&w);) {
        cox_buf_clear(&name);
        cox_json_unquote(&name, w.key);
        r.name = cox_buf_cstr(&name);
        ok = read_reference(&r, &t->items[t->n++], w.value);
    }
    cox_buf_fini(&name);
    if (!ok) {
        secret_table_unref(t);
        return COX_ERR_INVALID;
    }
    *ret = t;
    return COX_OK;
}

struct secret_table *secret_table_ref(struct secret_table *t)
{
    atomic_fetch_add(&t->n_refs, 1);
    return t;
}

static void free_list(char **list)
{
    for (char **p = list; p && *p; p++)
        cox_free(*p);
    cox_free(list);
}

void secret_table_unref(struct secret_table *t)
{
    if (!t || atomic_fetch_sub(&t->n_refs, 1) > 1)
        return;
    for (size_t i = 0; i < t->n; i++) {
        struct secret_reference *ref = &t->items[i];

        cox_free(ref->name);
        cox_free(ref->at);
        free_list(ref->argv);
        free_list(ref->tenants);
        wiped_fini(&ref->value);
    }
    cox_free(t->items);
    cox_free(t);
}

struct secret_reference *secret_table_find(const struct secret_table *t, struct cox_slice name)
{
    for (size_t i = 0; i < t->n; i++) {
        if (cox_slice_is(name, t->items[i].name))
            return &t->items[i];
    }
    return NULL;
}
