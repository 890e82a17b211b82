#include "cox/yaml.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/limits.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <yaml.h>

#define TAG "tag:yaml.org,2002:"

/* Of all paths with a line. A long key would otherwise be kept once for each of the values below it. */
#define LINES_LEN_MAX ((size_t)8 * COX_DOCUMENT_LEN_MAX)

/* A mapping or sequence that is open. */
struct frame {
    bool mapping;
    bool wants_key;       /* the next event of a mapping is a key */
    size_t n;             /* members so far */
    size_t path_len;      /* of the collection's own path */
    size_t anchor;        /* index + 1 of the anchor it defines */
    struct cox_mapb keys; /* seen in a mapping */
};

/* A value with a name. */
struct anchor {
    size_t start; /* in the JSON text */
    size_t len;   /* 0 while it is still open */
};

struct reader {
    struct cox_yaml *y;
    struct frame stack[COX_JSON_DEPTH_MAX];
    size_t depth;
    struct cox_buf path;
    size_t lines_len;       /* of the paths in y->lines */
    struct cox_mapb names;  /* anchor name -> index + 1 into anchors */
    struct cox_buf anchors; /* struct anchor[] */
    size_t n_documents;
};

static bool fail(struct reader *r, const yaml_mark_t *at, const char *message)
{
    r->y->error_line = at->line + 1;
    r->y->error_column = at->column + 1;
    cox_buf_append_str(&r->y->error, message);
    return false;
}

/* ---- scalars: YAML 1.2.2, section 10.3.2 ------------------------------------------------------------- */

static bool is_one_of(const char *s, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(s, words[i]) == 0)
            return true;
    }
    return false;
}

static bool is_null(const char *s)
{
    static const char *const words[] = { "", "~", "null", "Null", "NULL" };

    return is_one_of(s, words, 5);
}

static bool is_bool(const char *s)
{
    static const char *const words[] = { "true", "True", "TRUE", "false", "False", "FALSE" };

    return is_one_of(s, words, 6);
}

static size_t digits(const char *s)
{
    return strspn(s, "0123456789");
}

static bool is_int(const char *s)
{
    s += *s == '-' || *s == '+';
    return *s && s[digits(s)] == '\0';
}

/* 0o17 or 0x1f. */
static bool is_radix(const char *s)
{
    const char *set = s[0] == '0' && s[1] == 'o'   ? "01234567"
                      : s[0] == '0' && s[1] == 'x' ? "0123456789abcdefABCDEF"
                                                   : "";

    return *set && s[2] && s[2 + strspn(s + 2, set)] == '\0';
}

static bool is_float(const char *s)
{
    s += *s == '-' || *s == '+';
    size_t whole = digits(s), fraction = 0;

    s += whole;
    if (*s == '.') {
        fraction = digits(s + 1);
        s += 1 + fraction;
    }
    if (whole + fraction == 0)
        return false;
    if (*s == 'e' || *s == 'E') {
        s += 1 + (s[1] == '-' || s[1] == '+');
        if (digits(s) == 0)
            return false;
        s += digits(s);
    }
    return *s == '\0';
}

static bool is_special_float(const char *s)
{
    static const char *const words[] = { ".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN" };

    return is_one_of(s + ((*s == '-' || *s == '+') && s[1] != 'n' && s[1] != 'N'), words, 6);
}

/* The same number with JSON's spelling: no '+', no leading zeros, digits on both sides of the point. */
static void put_number(struct cox_buf *out, const char *s)
{
    if (*s == '-')
        cox_put_u8(out, '-');
    s += *s == '-' || *s == '+';
    size_t whole = digits(s);

    while (whole > 1 && *s == '0') {
        s++;
        whole--;
    }
    if (whole == 0)
        cox_put_u8(out, '0');
    cox_buf_append(out, s, whole);
    s += whole;
    if (*s == '.' && digits(s + 1) == 0) {
        cox_buf_append_str(out, ".0");
        s++;
    }
    cox_buf_append_str(out, s);
}

static bool put_radix(struct reader *r, const yaml_event_t *e, const char *s)
{
    char *end;

    errno = 0;
    uint64_t v = strtoull(s + 2, &end, s[1] == 'o' ? 8 : 16);

    if (errno)
        return fail(r, &e->start_mark, "an integer of more than 64 bits");
    cox_buf_printf(&r->y->json, "%" PRIu64, v);
    return true;
}

static bool put_plain(struct reader *r, const yaml_event_t *e, const char *s)
{
    struct cox_buf *out = &r->y->json;

    if (is_null(s)) {
        cox_buf_append_str(out, "null");
    } else if (is_bool(s)) {
        cox_buf_append_str(out, tolower(*s) == 't' ? "true" : "false");
    } else if (is_radix(s)) {
        return put_radix(r, e, s);
    } else if (is_int(s) || is_float(s)) {
        put_number(out, s);
    } else if (is_special_float(s)) {
        return fail(r, &e->start_mark, "infinity and not-a-number have no JSON form");
    } else {
        cox_json_quote(out, cox_slice_str(s));
    }
    return true;
}

/* What the tag allows; NULL and the non-specific tags leave it to the scalar's form. */
static bool check_tag(struct reader *r, const yaml_event_t *e, const char *s, const char *tag)
{
    if (strncmp(tag, TAG, strlen(TAG)) != 0)
        return fail(r, &e->start_mark, "a tag that is not of the core schema");
    tag += strlen(TAG);
    if ((strcmp(tag, "null") == 0 && is_null(s)) || (strcmp(tag, "bool") == 0 && is_bool(s)) ||
        (strcmp(tag, "int") == 0 && (is_int(s) || is_radix(s))) || (strcmp(tag, "float") == 0 && is_float(s)))
        return true;
    return fail(r, &e->start_mark,
                "a value that does not fit its tag, or a tag that is not of the core schema");
}

static bool put_scalar(struct reader *r, const yaml_event_t *e)
{
    const char *s = (const char *)e->data.scalar.value, *tag = (const char *)e->data.scalar.tag;
    struct cox_slice text = cox_slice(s, e->data.scalar.length);
    bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;

    if (memchr(s, 0, text.len))
        return fail(r, &e->start_mark, "a NUL character");
    if (tag && strcmp(tag, "!") != 0 && strcmp(tag, TAG "str") != 0)
        return check_tag(r, e, s, tag) && put_plain(r, e, s);
    if (tag || !plain)
        cox_json_quote(&r->y->json, text);
    else
        return put_plain(r, e, s);
    return true;
}

/* ---- structure -------------------------------------------------------------------------------------- */

static struct frame *top(struct reader *r)
{
    return r->depth > 0 ? &r->stack[r->depth - 1] : NULL;
}

static struct anchor *anchor_at(struct reader *r, size_t index)
{
    return (struct anchor *)(void *)r->anchors.data + index;
}

/* What is beyond the bound has the line of what is around it. */
static void note_line(struct reader *r, const yaml_mark_t *at)
{
    if (r->lines_len + r->path.len > LINES_LEN_MAX)
        return;
    r->lines_len += r->path.len;
    cox_mapb_set(&r->y->lines, cox_buf_slice(&r->path), (void *)(uintptr_t)(at->line + 1));
}

/* Before a value: the comma and the path of an item. A member of a mapping had both with its key. */
static void begin_value(struct reader *r, const yaml_event_t *e)
{
    struct frame *f = top(r);

    if (!f) {
        note_line(r, &e->start_mark);
    } else if (!f->mapping) {
        if (f->n > 0)
            cox_put_u8(&r->y->json, ',');
        cox_buf_printf(&r->path, "[%zu]", f->n++);
        note_line(r, &e->start_mark);
    }
}

static bool end_value(struct reader *r, const yaml_event_t *e)
{
    struct frame *f = top(r);

    if (f) {
        r->path.len = f->path_len;
        f->wants_key = f->mapping;
    }
    if (r->y->json.len > COX_DOCUMENT_LEN_MAX)
        return fail(r, &e->start_mark, "the document grows beyond 4 MiB here");
    return true;
}

/* Index + 1 of the anchor that begins here, 0 without one. A later anchor of the same name replaces it. */
static size_t open_anchor(struct reader *r, const yaml_char_t *name)
{
    size_t index = r->anchors.len / sizeof(struct anchor);

    if (!name)
        return 0;
    struct anchor a = { r->y->json.len, 0 };

    cox_buf_append(&r->anchors, &a, sizeof(a));
    cox_mapb_set(&r->names, cox_slice_str((const char *)name), (void *)(uintptr_t)(index + 1));
    return index + 1;
}

static void close_anchor(struct reader *r, size_t index_plus_1)
{
    if (index_plus_1 > 0) {
        struct anchor *a = anchor_at(r, index_plus_1 - 1);
        a->len = r->y->json.len - a->start;
    }
}

static bool on_key(struct reader *r, const yaml_event_t *e)
{
    struct frame *f = top(r);

    if (e->type != YAML_SCALAR_EVENT)
        return fail(r, &e->start_mark, "a key must be a plain or quoted word");
    struct cox_slice key = cox_slice(e->data.scalar.value, e->data.scalar.length);

    if (e->data.scalar.anchor)
        return fail(r, &e->start_mark, "a key cannot have an anchor");
    if (cox_slice_is(key, "<<") && e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        return fail(r, &e->start_mark, "merge keys are not part of YAML 1.2");
    if (memchr(key.data, 0, key.len))
        return fail(r, &e->start_mark, "a NUL character");
    if (cox_mapb_set(&f->keys, key, f)) {
        cox_buf_printf(&r->y->error, "the key %.*s was given before", (int)key.len, (const char *)key.data);
        return fail(r, &e->start_mark, "");
    }
    if (f->n++ > 0)
        cox_put_u8(&r->y->json, ',');
    cox_json_quote(&r->y->json, key);
    cox_put_u8(&r->y->json, ':');
    cox_buf_printf(&r->path, "%s%.*s", r->path.len > 0 ? "." : "", (int)key.len, (const char *)key.data);
    note_line(r, &e->start_mark);
    f->wants_key = false;
    return true;
}

static bool on_scalar(struct reader *r, const yaml_event_t *e)
{
    begin_value(r, e);
    size_t anchor = open_anchor(r, e->data.scalar.anchor);

    if (!put_scalar(r, e))
        return false;
    close_anchor(r, anchor);
    return end_value(r, e);
}

static bool on_alias(struct reader *r, const yaml_event_t *e)
{
    size_t index =
        (size_t)(uintptr_t)cox_mapb_get(&r->names, cox_slice_str((const char *)e->data.alias.anchor));

    if (index == 0)
        return fail(r, &e->start_mark, "an alias of an anchor that was not defined before");
    struct anchor a = *anchor_at(r, index - 1);

    if (a.len == 0)
        return fail(r, &e->start_mark, "an alias inside of its own anchor");
    begin_value(r, e);
    if (r->y->json.len + a.len > COX_DOCUMENT_LEN_MAX)
        return fail(r, &e->start_mark, "aliases make the document grow beyond 4 MiB here");
    cox_buf_reserve(&r->y->json, a.len);
    cox_buf_append(&r->y->json, r->y->json.data + a.start, a.len);
    return end_value(r, e);
}

static bool on_open(struct reader *r, const yaml_event_t *e, bool mapping)
{
    const char *tag = (const char *)(mapping ? e->data.mapping_start.tag : e->data.sequence_start.tag);
    const yaml_char_t *name = mapping ? e->data.mapping_start.anchor : e->data.sequence_start.anchor;

    if (tag && strcmp(tag, "!") != 0 && strcmp(tag, mapping ? TAG "map" : TAG "seq") != 0)
        return fail(r, &e->start_mark, "a tag that is not of the core schema");
    if (r->depth == COX_JSON_DEPTH_MAX)
        return fail(r, &e->start_mark, "nested too deeply");
    begin_value(r, e);
    size_t anchor = open_anchor(r, name);

    cox_put_u8(&r->y->json, mapping ? '{' : '[');
    r->stack[r->depth++] =
        (struct frame){ .mapping = mapping, .wants_key = mapping, .path_len = r->path.len, .anchor = anchor };
    return true;
}

static bool on_close(struct reader *r, const yaml_event_t *e)
{
    struct frame *f = top(r);

    cox_put_u8(&r->y->json, f->mapping ? '}' : ']');
    close_anchor(r, f->anchor);
    cox_mapb_fini(&f->keys);
    r->depth--;
    return end_value(r, e);
}

static bool on_event(struct reader *r, const yaml_event_t *e)
{
    struct frame *f = top(r);

    if (f && f->wants_key && e->type != YAML_MAPPING_END_EVENT)
        return on_key(r, e);
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        return r->n_documents++ == 0 || fail(r, &e->start_mark, "a second document");
    case YAML_SCALAR_EVENT:
        return on_scalar(r, e);
    case YAML_ALIAS_EVENT:
        return on_alias(r, e);
    case YAML_MAPPING_START_EVENT:
        return on_open(r, e, true);
    case YAML_SEQUENCE_START_EVENT:
        return on_open(r, e, false);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        return on_close(r, e);
    default:
        return true;
    }
}

/* Where the byte at `offset` stands, or the ill-formed character before it: libyaml's own marks do not move
 * until a whole buffer has been decoded. Columns are characters, as in its marks. */
static yaml_mark_t mark_of(struct cox_slice text, size_t offset)
{
    yaml_mark_t at = { 0 };
    size_t n;

    for (; at.index < offset && at.index < text.len; at.index += n) {
        const uint8_t *p = text.data + at.index;
        bool last = at.index + 1 == text.len;

        n = cox_utf8_len(cox_slice(p, text.len - at.index));
        if (n == 0)
            break;
        at.column++;
        if (*p == '\n' || (*p == '\r' && !last && p[1] != '\n')) {
            at.line++;
            at.column = 0;
        }
    }
    return at;
}

static bool read_events(struct reader *r, yaml_parser_t *parser, struct cox_slice text)
{
    yaml_event_t e;
    bool end = false;

    while (!end) {
        if (!yaml_parser_parse(parser, &e)) {
            yaml_mark_t at = parser->problem_mark;

            if (parser->error == YAML_MEMORY_ERROR)
                cox_out_of_memory();
            if (parser->error == YAML_READER_ERROR)
                at = mark_of(text, parser->problem_offset);
            if (parser->context)
                cox_buf_printf(&r->y->error, "%s, ", parser->context);
            return fail(r, &at, parser->problem ? parser->problem : "not YAML");
        }
        end = e.type == YAML_STREAM_END_EVENT;
        bool ok = on_event(r, &e);
        yaml_event_delete(&e);
        if (!ok)
            return false;
    }
    return true;
}

enum cox_err cox_yaml_parse(struct cox_yaml *y, struct cox_slice text)
{
    struct reader r = { .y = y };
    struct cox_json_place place;
    yaml_parser_t parser;
    yaml_mark_t start = { 0 };

    if (!yaml_parser_initialize(&parser))
        cox_out_of_memory();
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, text.data, text.len);
    bool ok = read_events(&r, &parser, text);

    if (ok && y->json.len == 0)
        ok = fail(&r, &start, "the document is empty");
    if (ok && cox_json_check(cox_buf_slice(&y->json), &place)) /* aliases may nest what was flat */
        ok = fail(&r, &start, "nested too deeply, or not UTF-8");
    yaml_parser_delete(&parser);
    while (r.depth > 0)
        cox_mapb_fini(&r.stack[--r.depth].keys);
    cox_buf_fini(&r.path);
    cox_buf_fini(&r.anchors);
    cox_mapb_fini(&r.names);
    return ok ? COX_OK : COX_ERR_INVALID;
}

void cox_yaml_fini(struct cox_yaml *y)
{
    cox_buf_fini(&y->json);
    cox_buf_fini(&y->error);
    cox_mapb_fini(&y->lines);
}

unsigned cox_yaml_line(const struct cox_yaml *y, const char *path)
{
    size_t len = strlen(path);

    for (;;) {
        uintptr_t line = (uintptr_t)cox_mapb_get(&y->lines, cox_slice(path, len));
        if (line > 0 || len == 0)
            return (unsigned)line;
        do
            len--;
        while (len > 0 && path[len] != '.' && path[len] != '[');
    }
}
