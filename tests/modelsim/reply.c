#include "reply.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/base/rng.h"
#include "cox/base/units.h"
#include "cox/json.h"

#include <string.h>

#define INSTANCE_DEPTH_MAX 16u
#define DEFAULT_IGNORE_EOS 16u

void reply_fini(struct reply *r)
{
    cox_buf_fini(&r->text);
    for (uint32_t i = 0; i < r->n_tools; i++) {
        cox_buf_fini(&r->tools[i].id);
        cox_buf_fini(&r->tools[i].name);
        cox_buf_fini(&r->tools[i].arguments);
    }
    cox_free(r->tools);
}

/* ---- words ---- */

static void put_word(struct cox_buf *out, struct cox_rng *rng)
{
    static const char consonants[] = "bdfgklmnprstvz", vowels[] = "aeiou";
    uint64_t syllables = 1 + cox_rng_below(rng, 3);

    for (uint64_t i = 0; i < syllables; i++) {
        cox_put_u8(out, (uint8_t)consonants[cox_rng_below(rng, sizeof(consonants) - 1)]);
        cox_put_u8(out, (uint8_t)vowels[cox_rng_below(rng, sizeof(vowels) - 1)]);
    }
}

static void put_words(struct cox_buf *out, struct cox_rng *rng, size_t len)
{
    size_t end = out->len + len;

    while (out->len < end) {
        put_word(out, rng);
        cox_buf_append_str(out, cox_rng_below(rng, 9) == 0 ? ". " : " ");
    }
    out->len = end;
}

/* ---- JSON by schema ---- */

struct instance {
    struct cox_slice root;
    struct cox_rng rng;
};

/* What "#/a/b" stands for within the root; the schema itself when it has no reference. */
static struct cox_slice resolve(const struct instance *in, struct cox_slice schema)
{
    struct cox_slice ref, found = in->root;
    struct cox_buf path = { 0 };
    char *rest = NULL;

    if (!cox_json_member(schema, "$ref", &ref) || cox_json_kind(ref) != COX_JSON_STRING)
        return schema;
    cox_json_unquote(&path, ref);
    cox_put_u8(&path, 0);
    for (char *p = strtok_r((char *)path.data, "/", &rest); p; p = strtok_r(NULL, "/", &rest)) {
        if (strcmp(p, "#") != 0 && !cox_json_member(found, p, &found))
            found = cox_slice(NULL, 0);
    }
    cox_buf_fini(&path);
    return found;
}

static bool type_is(struct cox_slice schema, const char *type)
{
    struct cox_slice v;

    if (!cox_json_member(schema, "type", &v))
        return false;
    if (cox_json_kind(v) == COX_JSON_ARRAY) {
        struct cox_json_walk w = cox_json_walk(v);
        if (!cox_json_next(&w))
            return false;
        v = w.value;
    }
    return cox_json_string_is(v, cox_slice_str(type));
}

static void put_instance(struct instance *in, struct cox_buf *out, struct cox_slice schema, unsigned depth);

static bool put_chosen(struct instance *in, struct cox_buf *out, struct cox_slice schema, unsigned depth)
{
    static const char *const choices[] = { "anyOf", "oneOf", "allOf" };
    struct cox_slice v;

    if (cox_json_member(schema, "const", &v)) {
        cox_buf_append_slice(out, v);
        return true;
    }
    if (cox_json_member(schema, "enum", &v)) {
        struct cox_json_walk w = cox_json_walk(v);
        if (cox_json_next(&w)) {
            cox_buf_append_slice(out, w.value);
            return true;
        }
    }
    for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++) {
        struct cox_json_walk w;
        if (!cox_json_member(schema, choices[i], &v))
            continue;
        w = cox_json_walk(v);
        if (cox_json_next(&w)) {
            put_instance(in, out, w.value, depth + 1);
            return true;
        }
    }
    return false;
}

static void put_members(struct instance *in, struct cox_buf *out, struct cox_slice schema, unsigned depth)
{
    struct cox_slice properties;
    bool first = true;

    cox_buf_append_str(out, "{");
    if (cox_json_member(schema, "properties", &properties)) {
        struct cox_json_walk w = cox_json_walk(properties);
        while (cox_json_next(&w)) {
            if (!first)
                cox_buf_append_str(out, ", ");
            first = false;
            cox_buf_append_slice(out, w.key);
            cox_buf_append_str(out, ": ");
            put_instance(in, out, w.value, depth + 1);
        }
    }
    cox_buf_append_str(out, "}");
}

static void put_items(struct instance *in, struct cox_buf *out, struct cox_slice schema, unsigned depth)
{
    struct cox_slice items = cox_slice_str("{\"type\":\"string\"}"), v;
    int64_t n = 1;

    if (cox_json_member(schema, "minItems", &v) && (!cox_json_int(v, &n) || n < 0 || n > 64))
        n = 1;
    (void)cox_json_member(schema, "items", &items);
    cox_buf_append_str(out, "[");
    for (int64_t i = 0; i < n; i++) {
        if (i > 0)
            cox_buf_append_str(out, ", ");
        put_instance(in, out, items, depth + 1);
    }
    cox_buf_append_str(out, "]");
}

static void put_instance(struct instance *in, struct cox_buf *out, struct cox_slice schema, unsigned depth)
{
    struct cox_slice v;
    int64_t n = (int64_t)cox_rng_below(&in->rng, 100);

    schema = resolve(in, schema);
    if (depth > INSTANCE_DEPTH_MAX) {
        cox_buf_append_str(out, "null");
        return;
    }
    if (put_chosen(in, out, schema, depth))
        return;
    if (type_is(schema, "object") || cox_json_member(schema, "properties", &v)) {
        put_members(in, out, schema, depth);
    } else if (type_is(schema, "array")) {
        put_items(in, out, schema, depth);
    } else if (type_is(schema, "integer") || type_is(schema, "number")) {
        if (cox_json_member(schema, "minimum", &v) && cox_json_kind(v) == COX_JSON_NUMBER)
            cox_buf_append_slice(out, v);
        else
            cox_buf_printf(out, "%lld", (long long)n);
    } else if (type_is(schema, "boolean")) {
        cox_buf_append_str(out, n % 2 == 0 ? "true" : "false");
    } else if (type_is(schema, "null")) {
        cox_buf_append_str(out, "null");
    } else {
        cox_buf_append_str(out, "\"");
        put_word(out, &in->rng);
        cox_buf_append_str(out, "\"");
    }
}

void reply_put_instance(struct cox_buf *out, struct cox_slice schema, uint64_t seed)
{
    struct instance in = { .root = schema };

    cox_rng_init(&in.rng, seed);
    if (cox_json_kind(schema) != COX_JSON_OBJECT)
        schema = cox_slice_str("{\"type\":\"object\",\"properties\":{\"text\":{\"type\":\"string\"}}}");
    put_instance(&in, out, schema, 0);
}

/* ---- tools ---- */

void reply_tool_id(struct reply_tool *t, uint64_t seed, uint32_t place)
{
    uint64_t parts[2] = { seed, place };

    cox_buf_clear(&t->id);
    cox_buf_printf(&t->id, "call_%016llx", (unsigned long long)cox_hash64(parts, sizeof(parts)));
}

struct reply_tool *reply_add_tool(struct reply *r)
{
    r->tools = cox_realloc(r->tools, r->n_tools + 1, sizeof(*r->tools));
    memset(&r->tools[r->n_tools], 0, sizeof(*r->tools));
    return &r->tools[r->n_tools++];
}

/* The function to call: the one that tool_choice names, or the first. */
static bool find_function(const struct ask *a, struct cox_slice *ret_name, struct cox_slice *ret_parameters)
{
    struct cox_slice chosen = { 0 }, function, name;
    struct cox_json_walk w = cox_json_walk(a->tools);

    if (cox_json_member(a->tool_choice, "function", &function))
        (void)cox_json_member(function, "name", &chosen);
    while (cox_json_next(&w)) {
        if (!cox_json_member(w.value, "function", &function) || !cox_json_member(function, "name", &name) ||
            cox_json_kind(name) != COX_JSON_STRING)
            continue;
        if (chosen.len > 0 && !cox_slice_eq(name, chosen))
            continue;
        *ret_name = name;
        if (!cox_json_member(function, "parameters", ret_parameters))
            *ret_parameters = cox_slice_str("{\"type\":\"object\"}");
        return true;
    }
    return false;
}

static bool wants_tool(const struct reply_config *config, const struct ask *a)
{
    if (!a->has_tools || cox_json_string_is(a->tool_choice, cox_slice_str("none")))
        return false;
    if (cox_json_string_is(a->tool_choice, cox_slice_str("required")) ||
        cox_json_kind(a->tool_choice) == COX_JSON_OBJECT)
        return true;
    return a->tool_results < config->tool_turns;
}

/* ---- the whole ---- */

void reply_make(struct reply *r, const struct reply_config *config, const struct ask *a,
                struct cox_slice prompt, uint32_t choice)
{
    uint64_t parts[4] = { config->seed, cox_hash64(prompt.data, prompt.len), choice, (uint64_t)a->seed };
    uint64_t seed = cox_hash64(parts, sizeof(parts)), tokens;
    struct cox_slice name = { 0 }, parameters = { 0 };
    struct cox_rng rng;

    memset(r, 0, sizeof(*r));
    cox_rng_init(&rng, seed);
    r->finish = "stop";
    tokens = config->output_tokens / 2 + cox_rng_below(&rng, config->output_tokens + 1);
    if (a->ignore_eos)
        tokens = a->max_tokens > 0 ? a->max_tokens : DEFAULT_IGNORE_EOS;
    if (tokens < a->min_tokens)
        tokens = a->min_tokens;
    if (a->max_tokens > 0 && tokens > a->max_tokens)
        tokens = a->max_tokens + 1; /* no more words than show that it was cut */
    if (wants_tool(config, a) && find_function(a, &name, &parameters)) {
        struct reply_tool *t = reply_add_tool(r);
        reply_tool_id(t, seed, 0);
        cox_json_unquote(&t->name, name);
        reply_put_instance(&t->arguments, parameters, seed);
        r->finish = "tool_calls";
    } else if (a->json) {
        reply_put_instance(&r->text, a->schema, seed);
    } else {
        put_words(&r->text, &rng, (size_t)(tokens > 0 ? tokens : 1) * ASK_TOKEN_LEN);
    }
    reply_close(r, a);
}

void reply_close(struct reply *r, const struct ask *a)
{
    struct reply_cursor at = { 0 };
    struct reply_piece piece;
    uint64_t n = 0, max = a->max_tokens > 0 ? a->max_tokens : UINT32_MAX;

    for (uint32_t i = 0; i < a->n_stops; i++) {
        uint8_t *found = a->stops[i].len == 0 || r->text.len == 0
                             ? NULL
                             : memmem(r->text.data, r->text.len, a->stops[i].data, a->stops[i].len);
        if (found)
            r->text.len = (size_t)(found - r->text.data);
    }
    r->n_tokens = UINT32_MAX;
    while (n <= max && reply_next(r, &at, &piece))
        n++;
    if (n > max) {
        r->finish = "length";
        n = max;
    }
    r->n_tokens = n > 0 ? (uint32_t)n : 1;
}

/* Four bytes, and what belongs to the last character. */
static struct cox_slice token_at(const struct cox_buf *text, size_t at)
{
    size_t end = at + ASK_TOKEN_LEN < text->len ? at + ASK_TOKEN_LEN : text->len;

    while (end < text->len && (text->data[end] & 0xc0) == 0x80)
        end++;
    return cox_slice(text->data + at, end - at);
}

bool reply_next(const struct reply *r, struct reply_cursor *at, struct reply_piece *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (at->n_done >= r->n_tokens)
        return false;
    if (!at->in_tools && at->at >= r->text.len) {
        at->in_tools = true;
        at->at = 0;
    }
    if (!at->in_tools) {
        ret->bytes = token_at(&r->text, at->at);
        at->at += ret->bytes.len;
        at->n_done++;
        return true;
    }
    while (at->tool < r->n_tools && at->opened && at->at >= r->tools[at->tool].arguments.len) {
        at->tool++;
        at->opened = false;
        at->at = 0;
    }
    if (at->tool >= r->n_tools)
        return false;
    ret->is_tool = true;
    ret->tool = at->tool;
    ret->opens = !at->opened;
    if (at->opened) {
        ret->bytes = token_at(&r->tools[at->tool].arguments, at->at);
        at->at += ret->bytes.len;
    }
    at->opened = true;
    at->n_done++;
    return true;
}
