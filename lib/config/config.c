#include "config_internal.h"

#include "cox/base/alloc.h"

#include <stdlib.h>
#include <string.h>

/* ---- what was given ---------------------------------------------------------------------------------------
 */

void config_clear(struct given *given, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        cox_free(given[i].text);
        cox_free(given[i].from);
        given[i] = (struct given){ 0 };
    }
}

void config_give(struct given *g, char *text, char *from, bool join)
{
    char *joined = join && g->text ? cox_asprintf("%s,%s", g->text, text) : cox_strdup(text);

    config_clear(g, 1);
    *g = (struct given){ joined, from };
    cox_free(text);
}

struct cox_config *cox_config_create(const struct cox_config_program *program)
{
    struct cox_config *c = COX_NEW(struct cox_config);

    c->program = program;
    c->flags = cox_calloc(program->n_keys, sizeof(*c->flags));
    c->file = cox_calloc(program->n_keys, sizeof(*c->file));
    c->used = cox_calloc(program->n_keys, sizeof(*c->used));
    return c;
}

void cox_config_destroy(struct cox_config *c)
{
    if (!c)
        return;
    config_clear(c->flags, c->program->n_keys);
    config_clear(c->file, c->program->n_keys);
    cox_free(c->flags);
    cox_free(c->file);
    cox_free(c->used);
    cox_free(c->path);
    cox_yaml_fini(&c->yaml);
    cox_arena_fini(&c->strings);
    cox_free(c);
}

const struct cox_config_key *cox_config_find(const struct cox_config_program *program, struct cox_slice name)
{
    for (size_t i = 0; i < program->n_keys; i++) {
        const char *own = program->keys[i].name;
        size_t k = 0;
        while (k < name.len && own[k] && (name.data[k] == '_' ? '-' : (char)name.data[k]) == own[k])
            k++;
        if (k == name.len && !own[k])
            return &program->keys[i];
    }
    return NULL;
}

void cox_config_give(struct cox_config *c, const struct cox_config_key *key, const char *text)
{
    config_give(&c->flags[key - c->program->keys], cox_strdup(text), cox_asprintf("--%s", key->name),
                (key->flags & COX_CONFIG_LIST) != 0);
}

/* ---- setting ----------------------------------------------------------------------------------------------
 */

/* A key's text and where it is from; NULL when nothing gives one. */
static const char *text_of(const struct cox_config *c, size_t i, struct cox_buf *from)
{
    const struct cox_config_key *k = &c->program->keys[i];

    if (c->flags[i].text) {
        cox_buf_append_str(from, c->flags[i].from);
        return c->flags[i].text;
    }
    cox_config_put_variable(from, k->name);
    const char *variable = getenv(cox_buf_cstr(from));

    if (variable && *variable)
        return variable;
    cox_buf_clear(from);
    cox_buf_append_str(from, c->file[i].text ? c->file[i].from : k->name);
    return c->file[i].text ? c->file[i].text : k->fallback && *k->fallback ? k->fallback : NULL;
}

/* A setter may change the text: it gets a copy of its own. */
static const char *set_key(struct cox_config *c, size_t i, const char *text, void *target)
{
    const struct cox_config_key *k = &c->program->keys[i];

    c->used[i] = cox_arena_dup(&c->strings, text, strlen(text));
    return k->set((char *)target + k->offset, cox_arena_dup(&c->strings, text, strlen(text)));
}

enum cox_err cox_config_apply(struct cox_config *c, void *target, struct cox_buf *error)
{
    for (size_t i = 0; i < c->program->n_keys; i++) {
        struct cox_buf from = { 0 };
        const char *text = text_of(c, i, &from);
        const char *expected = text ? set_key(c, i, text, target) : NULL;
        if (expected)
            cox_buf_printf(error, "%s: \"%s\"; expected %s", cox_buf_cstr(&from), text, expected);
        cox_buf_fini(&from);
        if (expected)
            return COX_ERR_INVALID;
    }
    return COX_OK;
}

static bool same(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

/* Chooses each key's text anew: what may not change keeps the old one, and is named. */
static void choose(struct cox_config *c, const struct cox_config *next, char **ret_texts,
                   struct cox_buf *ret_restart)
{
    for (size_t i = 0; i < c->program->n_keys; i++) {
        const struct cox_config_key *k = &c->program->keys[i];
        struct cox_buf from = { 0 };
        const char *text = text_of(next, i, &from);
        if (!(k->flags & COX_CONFIG_RELOADS) && !same(text, c->used[i])) {
            cox_buf_printf(ret_restart, "%s%s", ret_restart->len > 0 ? ", " : "", k->name);
            text = c->used[i];
        }
        ret_texts[i] = text ? cox_strdup(text) : NULL;
        cox_buf_fini(&from);
    }
}

static void move_flags(struct cox_config *from, struct cox_config *to)
{
    struct given *spare = to->flags;

    to->flags = from->flags;
    from->flags = spare;
}

enum cox_err cox_config_reload(struct cox_config *c, void *target, struct cox_buf *ret_restart,
                               struct cox_buf *error)
{
    struct cox_config *next;
    char **texts;

    if (!c->path) {
        cox_buf_append_str(error, "there is no file: the program was started without --config");
        return COX_ERR_INVALID;
    }
    next = cox_config_create(c->program);
    texts = cox_calloc(c->program->n_keys, sizeof(*texts));
    move_flags(c, next);
    enum cox_err err = cox_config_load(next, c->path, error);

    if (!err)
        choose(c, next, texts, ret_restart);
    for (size_t i = 0; i < c->program->n_keys && !err; i++) {
        const struct cox_config_key *k = &c->program->keys[i];
        const char *expected = texts[i] ? k->set((char *)target + k->offset,
                                                 cox_arena_dup(&c->strings, texts[i], strlen(texts[i])))
                                        : NULL;
        if (expected) {
            cox_buf_printf(error, "%s: %s: \"%s\"; expected %s", c->path, k->name, texts[i], expected);
            err = COX_ERR_INVALID;
        }
    }
    for (size_t i = 0; i < c->program->n_keys; i++) {
        if (!err)
            c->used[i] = texts[i] ? cox_arena_dup(&c->strings, texts[i], strlen(texts[i])) : NULL;
        cox_free(texts[i]);
    }
    if (!err) { /* what the program reads of it by itself is of one file with the rest */
        struct cox_yaml before = c->yaml;

        c->yaml = next->yaml;
        next->yaml = before;
    }
    move_flags(next, c);
    cox_free(texts);
    cox_config_destroy(next);
    return err == COX_OK ? COX_OK : COX_ERR_INVALID;
}

/* ---- a daemon's command line
 * -------------------------------------------------------------------------------- */

/* The value of the flag at argv[*i]; NULL when it lacks one. */
static const char *value_at(int argc, char **argv, int *i, const char *equals)
{
    if (equals)
        return equals + 1;
    return *i + 1 < argc ? argv[++*i] : NULL;
}

static bool unknown_flag(const struct cox_config *c, struct cox_slice name, struct cox_buf *error)
{
    char *word = cox_strndup((const char *)name.data, name.len);
    const char *nearest = NULL;
    unsigned best = COX_CONFIG_NEAR;

    for (size_t i = 0; i < c->program->n_keys; i++)
        cox_config_consider(word, c->program->keys[i].name, &nearest, &best);
    cox_config_consider(word, "config", &nearest, &best);
    cox_buf_printf(error, "unknown flag --%s", word);
    if (nearest)
        cox_buf_printf(error, "; did you mean --%s?", nearest);
    else
        cox_buf_printf(error, "; see %s --help", c->program->name);
    cox_free(word);
    return false;
}

static bool read_flag(struct cox_config *c, int argc, char **argv, int *i, const char **ret_path,
                      struct cox_buf *error)
{
    const char *arg = argv[*i], *equals = strchr(arg, '='), *value;

    if (strncmp(arg, "--", 2) != 0 || !arg[2]) {
        cox_buf_printf(error, "\"%s\" is not a flag; see %s --help", arg, c->program->name);
        return false;
    }
    struct cox_slice name = cox_slice(arg + 2, equals ? (size_t)(equals - arg) - 2 : strlen(arg) - 2);
    const struct cox_config_key *k = cox_config_find(c->program, name);
    bool is_config = cox_slice_is(name, "config");

    if (!k && !is_config)
        return unknown_flag(c, name, error);
    value = k && !k->value && !equals ? "true" : value_at(argc, argv, i, equals);
    if (!value)
        cox_buf_printf(error, "--%.*s: expected %s after it", (int)name.len, (const char *)name.data,
                       k ? k->value : "FILE");
    else if (is_config)
        *ret_path = value;
    else
        cox_config_give(c, k, value);
    return value != NULL;
}

static bool read_all(struct cox_config *c, int argc, char **argv, void *target, struct cox_buf *error)
{
    const char *path = getenv("COX_CONFIG");

    for (int i = 1; i < argc; i++) {
        if (!read_flag(c, argc, argv, &i, &path, error))
            return false;
    }
    if (path && *path && cox_config_load(c, path, error))
        return false;
    return cox_config_apply(c, target, error) == COX_OK;
}

static bool asked(int argc, char **argv, const char *flag)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], flag) == 0)
            return true;
    }
    return false;
}

enum cox_config_outcome cox_config_read(const struct cox_config_program *program, int argc, char **argv,
                                        void *target, FILE *err, struct cox_config **ret)
{
    struct cox_config *c = cox_config_create(program);
    struct cox_buf text = { 0 };
    enum cox_config_outcome outcome = COX_CONFIG_EXIT_OK;

    *ret = c;
    if (asked(argc, argv, "--help") || asked(argc, argv, "-h")) {
        cox_config_put_help(&text, program);
        fputs(cox_buf_cstr(&text), stdout);
    } else if (asked(argc, argv, "--version")) {
        printf("%s %s\n", program->name, program->version);
    } else if (read_all(c, argc, argv, target, &text)) {
        outcome = COX_CONFIG_RUN;
    } else {
        outcome = COX_CONFIG_EXIT_USAGE;
        fprintf(err, "%s: %s\n", program->name, cox_buf_cstr(&text));
    }
    cox_buf_fini(&text);
    return outcome;
}
