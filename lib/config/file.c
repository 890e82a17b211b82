/* The file: YAML, read as JSON with the lines of its paths. */
#include "config_internal.h"

#include "cox/base/alloc.h"
#include "cox/json.h"
#include "cox/limits.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- one key ---------------------------------------------------------------------------------------------
 */

static bool put_scalar(struct cox_buf *out, struct cox_slice value)
{
    switch (cox_json_kind(value)) {
    case COX_JSON_STRING:
        cox_json_unquote(out, value);
        return true;
    case COX_JSON_NUMBER:
    case COX_JSON_BOOL:
        cox_buf_append_slice(out, value);
        return true;
    default:
        return false;
    }
}

/* The value as a flag would have it; false when it cannot be one. */
static bool put_value(struct cox_buf *out, const struct cox_config_key *key, struct cox_slice value)
{
    enum cox_json_kind kind = cox_json_kind(value);
    bool first = true;

    if (kind != COX_JSON_ARRAY && kind != COX_JSON_OBJECT)
        return put_scalar(out, value);
    if (!(key->flags & COX_CONFIG_LIST))
        return false;
    for (struct cox_json_walk w = cox_json_walk(value); cox_json_next(&w); first = false) {
        cox_buf_append_str(out, first ? "" : ",");
        if (kind == COX_JSON_OBJECT) {
            cox_json_unquote(out, w.key);
            cox_put_u8(out, '=');
        }
        if (!put_scalar(out, w.value))
            return false;
    }
    return true;
}

static void begin_error(const struct cox_config *c, struct cox_buf *error, const char *path)
{
    cox_buf_printf(error, "%s%s:%u: ", error->len > 0 ? "\n" : "", c->path, cox_yaml_line(&c->yaml, path));
}

static void unknown_key(const struct cox_config *c, struct cox_buf *error, const char *path, const char *name)
{
    char *dashed = cox_strdup(name);
    const char *nearest = NULL;
    unsigned best = COX_CONFIG_NEAR;

    for (char *s = dashed; *s; s++)
        *s = *s == '_' ? '-' : *s;
    for (size_t i = 0; i < c->program->n_keys; i++)
        cox_config_consider(dashed, c->program->keys[i].name, &nearest, &best);
    begin_error(c, error, path);
    cox_buf_printf(error, "%s: unknown key", path);
    if (nearest) {
        cox_buf_append_str(error, "; did you mean ");
        for (; *nearest; nearest++)
            cox_put_u8(error, *nearest == '-' ? '_' : (uint8_t)*nearest);
        cox_put_u8(error, '?');
    }
    cox_free(dashed);
}

static bool take_key(struct cox_config *c, const struct cox_config_key *key, struct cox_slice value,
                     const char *path, struct cox_buf *error)
{
    struct given *g = &c->file[key - c->program->keys];
    struct cox_buf text = { 0 };

    if (cox_json_kind(value) == COX_JSON_NULL)
        return true;
    bool ok = put_value(&text, key, value);

    if (!ok) {
        begin_error(c, error, path);
        cox_buf_printf(error, "%s: expected %s, found %s", path,
                       key->flags & COX_CONFIG_LIST ? "a value, or a list or map of values" : "one value",
                       cox_json_kind_text(cox_json_kind(value)));
    } else {
        config_clear(g, 1);
        config_give(g, cox_strdup(cox_buf_cstr(&text)),
                    cox_asprintf("%s:%u: %s", c->path, cox_yaml_line(&c->yaml, path), path), false);
    }
    cox_buf_fini(&text);
    return ok;
}

static bool is_other(const struct cox_config *c, const char *place, const char *name)
{
    for (const char *const *o = c->program->others; o && *o && !*place; o++) {
        if (strcmp(*o, name) == 0)
            return true;
    }
    return false;
}

enum cox_err cox_config_take(struct cox_config *c, struct cox_slice object, const char *place,
                             struct cox_buf *error)
{
    size_t error_len = error->len;
    struct cox_buf name = { 0 }, path = { 0 };

    if (cox_json_kind(object) == COX_JSON_NULL)
        return COX_OK;
    if (cox_json_kind(object) != COX_JSON_OBJECT) {
        begin_error(c, error, place);
        cox_buf_printf(error, "%s%sexpected names and values, found %s", place, *place ? ": " : "",
                       cox_json_kind_text(cox_json_kind(object)));
        return COX_ERR_INVALID;
    }
    for (struct cox_json_walk w = cox_json_walk(object); cox_json_next(&w);) {
        cox_buf_clear(&name);
        cox_buf_clear(&path);
        cox_json_unquote(&name, w.key);
        cox_buf_printf(&path, "%s%s%s", place, *place ? "." : "", cox_buf_cstr(&name));
        const struct cox_config_key *key = cox_config_find(c->program, cox_buf_slice(&name));
        if (key)
            (void)take_key(c, key, w.value, cox_buf_cstr(&path), error);
        else if (!is_other(c, place, cox_buf_cstr(&name)))
            unknown_key(c, error, cox_buf_cstr(&path), cox_buf_cstr(&name));
    }
    cox_buf_fini(&name);
    cox_buf_fini(&path);
    return error->len > error_len ? COX_ERR_INVALID : COX_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------
 */

static enum cox_err read_file(const char *path, struct cox_buf *ret_text, struct cox_buf *error)
{
    FILE *f = fopen(path, "rbe");
    size_t n = 1;

    if (!f) {
        enum cox_err err = errno == ENOENT ? COX_ERR_NOT_FOUND : COX_ERR_IO;
        cox_buf_printf(error, "%s: %s", path, strerror(errno));
        return err;
    }
    while (n > 0 && ret_text->len <= COX_DOCUMENT_LEN_MAX) {
        cox_buf_reserve(ret_text, 65536);
        n = fread(ret_text->data + ret_text->len, 1, 65536, f);
        ret_text->len += n;
    }
    bool bad = ferror(f);

    if (bad)
        cox_buf_printf(error, "%s: %s", path, strerror(errno));
    else if (ret_text->len > COX_DOCUMENT_LEN_MAX)
        cox_buf_printf(error, "%s: longer than %u MiB", path, COX_DOCUMENT_LEN_MAX >> 20);
    fclose(f);
    return bad ? COX_ERR_IO : ret_text->len > COX_DOCUMENT_LEN_MAX ? COX_ERR_INVALID : COX_OK;
}

/* True for a file of blanks and comments alone: it says nothing, which is fine. */
static bool says_nothing(struct cox_slice text)
{
    bool comment = false;

    for (size_t i = 0; i < text.len; i++) {
        char ch = (char)text.data[i];
        if (ch == '\n' || ch == '#')
            comment = ch == '#';
        else if (!comment && !strchr(" \t\r", ch))
            return false;
    }
    return true;
}

enum cox_err cox_config_load(struct cox_config *c, const char *path, struct cox_buf *error)
{
    struct cox_buf text = { 0 };
    char *copy = cox_strdup(path); /* `path` may be our own */
    enum cox_err err = read_file(copy, &text, error);

    cox_free(c->path);
    c->path = copy;
    cox_yaml_fini(&c->yaml);
    c->yaml = (struct cox_yaml){ 0 };
    config_clear(c->file, c->program->n_keys);
    if (!err && !says_nothing(cox_buf_slice(&text))) {
        err = cox_yaml_parse(&c->yaml, cox_buf_slice(&text));
        if (err)
            cox_buf_printf(error, "%s:%zu:%zu: %s", copy, c->yaml.error_line, c->yaml.error_column,
                           cox_buf_cstr(&c->yaml.error));
        else
            err = cox_config_take(c, cox_buf_slice(&c->yaml.json), "", error);
    }
    cox_buf_fini(&text);
    return err;
}

const struct cox_yaml *cox_config_file(const struct cox_config *c)
{
    return &c->yaml;
}
