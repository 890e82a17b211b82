#include "secret_spec.h"

#include "wiped.h"

#include "cox/base/arena.h"
#include "cox/base/plant.h"
#include "cox/json.h"

#include <stdio.h>
#include <string.h>

bool secret_spec_read(struct cox_slice text, struct secret_spec *ret)
{
    struct cox_slice parts[4] = { 0 };
    size_t n = 0;

    *ret = (struct secret_spec){ .spec = text };
    if (cox_json_kind(text) != COX_JSON_ARRAY || cox_json_check(text, NULL) != COX_OK)
        return false;
    for (struct cox_json_walk w = cox_json_walk(text); n < 4 && cox_json_next(&w); n++)
        parts[n] = w.value;
    if (n != 3 || cox_json_kind(parts[0]) != COX_JSON_OBJECT || cox_json_kind(parts[2]) != COX_JSON_ARRAY)
        return false;
    for (struct cox_json_walk w = cox_json_walk(parts[0]); cox_json_next(&w); ret->n++) {
        if (ret->n == SECRET_SPEC_KEYS_MAX || cox_json_kind(w.value) != COX_JSON_STRING)
            return false;
        ret->keys[ret->n] = w.key;
        ret->references[ret->n] = w.value;
    }
    ret->spec = parts[1];
    ret->places = parts[2];
    return true;
}

/* ---------------------------------------------------------------- filling */

struct path {
    struct cox_slice *words; /* raw */
    size_t n;
    size_t n_filled; /* in how many places it was found */
};

struct filling {
    const struct secret_spec *s;
    const struct cox_slice *values;
    struct cox_arena arena;
    struct path *paths;
    size_t n_paths;
    struct cox_buf *out;
};

static bool read_paths(struct filling *f)
{
    f->paths = cox_arena_alloc(&f->arena, (cox_json_count(f->s->places) + 1) * sizeof(*f->paths));
    for (struct cox_json_walk w = cox_json_walk(f->s->places); cox_json_next(&w);) {
        struct path *p = &f->paths[f->n_paths++];

        *p = (struct path){ .words = cox_arena_alloc(&f->arena,
                                                     (cox_json_count(w.value) + 1) * sizeof(*p->words)) };
        if (cox_json_kind(w.value) != COX_JSON_ARRAY)
            return false;
        for (struct cox_json_walk words = cox_json_walk(w.value); cox_json_next(&words);)
            p->words[p->n++] = words.value;
    }
    return true;
}

static void append(struct filling *f, struct cox_slice s)
{
    wiped_append(f->out, s);
}

/* The value of a key; NULL for a key that the step has not. */
static const struct cox_slice *value_of(const struct filling *f, struct cox_slice raw_key)
{
    for (size_t i = 0; i < f->s->n; i++) {
        if (cox_slice_eq(f->s->keys[i], raw_key))
            return &f->values[i];
    }
    return NULL;
}

static bool put_pieces(struct filling *f, struct cox_slice list)
{
    struct cox_buf plain = { 0 };
    bool ok = cox_json_kind(list) == COX_JSON_ARRAY, is_key = false;

    for (struct cox_json_walk w = cox_json_walk(list); ok && cox_json_next(&w); is_key = !is_key) {
        const struct cox_slice *value = is_key ? value_of(f, w.value) : NULL;

        ok = is_key ? value != NULL : cox_json_kind(w.value) == COX_JSON_STRING;
        wiped_reserve(&plain, w.value.len);
        if (ok && is_key)
            wiped_append(&plain, *value);
        else if (ok)
            cox_json_unquote(&plain, w.value);
    }
    wiped_reserve(f->out, 6 * plain.len + 2);
    cox_json_quote(f->out, cox_buf_slice(&plain));
    wiped_fini(&plain);
    return ok;
}

static bool is_word(struct cox_slice word, const struct cox_json_walk *member, size_t index)
{
    struct cox_buf name = { 0 };
    char number[24];
    bool ok;

    if (member->key.len == 0) {
        snprintf(number, sizeof(number), "%zu", index);
        return cox_slice_is(word, number);
    }
    cox_json_unquote(&name, member->key);
    ok = cox_json_kind(word) == COX_JSON_STRING && cox_json_string_is(word, cox_buf_slice(&name));
    cox_buf_fini(&name);
    return ok;
}

/* A list as a string with secrets has it: what data looks like may be no reason to fill it. */
static bool looks_like_pieces(const struct filling *f, struct cox_slice value)
{
    struct cox_json_walk w = cox_json_walk(value);
    bool found = false;

    for (size_t i = 0; cox_json_kind(value) == COX_JSON_ARRAY && cox_json_next(&w); i++)
        found = found || (i % 2 == 1 && value_of(f, w.value));
    return found;
}

/* `at`: the paths that lead here, `depth` words long so far. Recurses as deep as paths are long. */
static bool fill(struct filling *f, struct cox_slice value, struct path **at, size_t n, size_t depth)
{
    bool object = cox_json_kind(value) == COX_JSON_OBJECT, ok = true;
    struct path **next;
    size_t index = 0;

    if (COX_PLANTED("secrets-by-their-looks") && looks_like_pieces(f, value))
        return put_pieces(f, value);
    if (n == 0 && !COX_PLANTED("secrets-by-their-looks")) {
        append(f, value);
        return true;
    }
    for (size_t i = 0; i < n; i++) {
        if (at[i]->n == depth) {
            at[i]->n_filled++;
            return n == 1 && put_pieces(f, value);
        }
    }
    if (!object && cox_json_kind(value) != COX_JSON_ARRAY) {
        append(f, value);
        return n == 0;
    }
    next = cox_arena_alloc(&f->arena, (n + 1) * sizeof(struct path *));
    append(f, cox_slice_str(object ? "{" : "["));
    for (struct cox_json_walk w = cox_json_walk(value); ok && cox_json_next(&w); index++) {
        size_t n_next = 0;

        for (size_t i = 0; i < n; i++) {
            if (is_word(at[i]->words[depth], &w, index))
                next[n_next++] = at[i];
        }
        append(f, cox_slice_str(index > 0 ? "," : ""));
        append(f, w.key);
        append(f, cox_slice_str(object ? ":" : ""));
        ok = fill(f, w.value, next, n_next, depth + 1);
    }
    append(f, cox_slice_str(object ? "}" : "]"));
    return ok;
}

enum cox_err secret_spec_fill(const struct secret_spec *s, const struct cox_slice *values,
                              struct cox_buf *out)
{
    struct filling f = { .s = s, .values = values, .out = out };
    bool ok = read_paths(&f);

    wiped_reserve(out, s->spec.len);
    if (ok) {
        struct path **all = cox_arena_alloc(&f.arena, (f.n_paths + 1) * sizeof(struct path *));

        for (size_t i = 0; i < f.n_paths; i++)
            all[i] = &f.paths[i];
        ok = fill(&f, s->spec, all, f.n_paths, 0);
    }
    for (size_t i = 0; i < f.n_paths; i++)
        ok = ok && f.paths[i].n_filled == 1;
    cox_arena_fini(&f.arena);
    return ok ? COX_OK : COX_ERR_INVALID;
}
