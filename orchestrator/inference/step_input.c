#include "step_input.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"
#include "cox/json.h"

#include <string.h>

#define TEXT_LEN_MAX 400u /* of a reference that became a string */

void step_input_fini(struct step_input *in)
{
    for (uint32_t i = 0; i < in->n_refs; i++)
        cox_buf_fini(&in->refs[i].bytes);
    cox_free(in->refs);
    *in = (struct step_input){ 0 };
}

/* ---- finding ---- */

struct search {
    struct step_input *in;
    const uint8_t *start;
    struct cox_mapb by_hash; /* index + 1 of the first */
    uint32_t cap;
    bool full;
};

static bool is_object_ref(struct cox_slice object, struct cox_hash *ret)
{
    struct cox_slice name;

    return cox_json_kind(object) == COX_JSON_OBJECT && cox_json_member(object, "$blob", &name) &&
           cox_json_kind(name) == COX_JSON_STRING && cox_hash_parse(cox_json_inner(name), ret);
}

static bool is_text_ref(struct cox_slice value, struct cox_hash *ret)
{
    struct cox_buf text = { 0 };
    bool is;

    if (cox_json_kind(value) != COX_JSON_STRING || value.len > TEXT_LEN_MAX ||
        !memmem(value.data, value.len, "$blob", 5))
        return false;
    cox_json_unquote(&text, value);
    is = cox_json_check(cox_buf_slice(&text), NULL) == COX_OK && is_object_ref(cox_buf_slice(&text), ret);
    cox_buf_fini(&text);
    return is;
}

static void add(struct search *s, struct cox_slice value, const struct cox_hash *hash,
                enum step_input_place place)
{
    struct step_input *in = s->in;
    struct step_input_ref *ref;
    uintptr_t first;

    if (in->n_refs == STEP_INPUT_REFS_MAX) {
        s->full = true;
        return;
    }
    if (in->n_refs == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 8;
        in->refs = cox_realloc(in->refs, s->cap, sizeof(*in->refs));
    }
    ref = &in->refs[in->n_refs++];
    *ref = (struct step_input_ref){
        .at = (size_t)(value.data - s->start), .len = value.len, .place = place, .hash = *hash
    };
    first = (uintptr_t)cox_mapb_get(&s->by_hash, cox_slice(hash->b, sizeof(hash->b)));
    if (first == 0) {
        first = in->n_refs;
        cox_mapb_set(&s->by_hash, cox_slice(hash->b, sizeof(hash->b)), (void *)first);
    }
    ref->first = (uint32_t)first - 1;
}

static bool is_text_member(struct cox_slice key)
{
    return cox_json_string_is(key, cox_slice_str("content")) ||
           cox_json_string_is(key, cox_slice_str("text"));
}

/* No deeper than what cox_json_check lets pass. */
static void walk(struct search *s, struct cox_slice value, enum step_input_place place)
{
    enum cox_json_kind kind = cox_json_kind(value);
    struct cox_hash hash;

    if (is_object_ref(value, &hash)) {
        add(s, value, &hash, place);
        return;
    }
    if (kind != COX_JSON_OBJECT && kind != COX_JSON_ARRAY)
        return;
    for (struct cox_json_walk w = cox_json_walk(value); !s->full && cox_json_next(&w);) {
        if (place == STEP_INPUT_TEXT && kind == COX_JSON_OBJECT && is_text_member(w.key) &&
            is_text_ref(w.value, &hash))
            add(s, w.value, &hash, STEP_INPUT_TEXT);
        else
            walk(s, w.value, place);
    }
}

static void walk_messages(struct search *s, struct cox_slice messages)
{
    struct cox_hash hash;

    if (cox_json_kind(messages) != COX_JSON_ARRAY) {
        walk(s, messages, STEP_INPUT_VALUE);
        return;
    }
    for (struct cox_json_walk w = cox_json_walk(messages); !s->full && cox_json_next(&w);) {
        if (is_object_ref(w.value, &hash))
            add(s, w.value, &hash, STEP_INPUT_MESSAGES);
        else
            walk(s, w.value, STEP_INPUT_TEXT);
    }
}

/* By its rarest character: a conversation of 400 KB is over in microseconds. */
static bool mentions_blob(struct cox_slice text)
{
    static const char name[] = "$blob";
    const uint8_t *p = text.data, *end = text.data + text.len;

    while (p < end && (p = memchr(p, name[0], (size_t)(end - p))) != NULL) {
        if ((size_t)(end - p) >= strlen(name) && memcmp(p, name, strlen(name)) == 0)
            return true;
        p++;
    }
    return false;
}

enum cox_err step_input_find(struct step_input *in, struct cox_slice request)
{
    struct search s = { .in = in, .start = request.data };

    if (!mentions_blob(request) || COX_PLANTED("model-input-unresolved"))
        return COX_OK;
    for (struct cox_json_walk w = cox_json_walk(request); !s.full && cox_json_next(&w);) {
        if (cox_json_string_is(w.key, cox_slice_str("messages")))
            walk_messages(&s, w.value);
        else
            walk(&s, w.value, STEP_INPUT_VALUE);
    }
    cox_mapb_fini(&s.by_hash);
    return s.full ? COX_ERR_FULL : COX_OK;
}

/* ---- putting ---- */

static bool is_space(uint8_t b)
{
    return b == ' ' || b == '\t' || b == '\n' || b == '\r';
}

/* A list of no messages leaves nothing behind, nor a comma. Returns where the request goes on. */
static size_t put_nothing(struct cox_slice request, size_t at, struct cox_buf *out)
{
    size_t next = at;

    while (next < request.len && is_space(request.data[next]))
        next++;
    if (next < request.len && request.data[next] == ',')
        return next + 1;
    while (out->len > 0 && is_space(out->data[out->len - 1]))
        out->len--;
    if (out->len > 0 && out->data[out->len - 1] == ',')
        out->len--;
    return at;
}

static size_t put_messages(struct cox_slice value, struct cox_slice request, size_t at, struct cox_buf *out)
{
    if (cox_json_kind(value) != COX_JSON_ARRAY) {
        cox_buf_append_slice(out, value);
        return at;
    }
    if (cox_json_count(value) == 0)
        return put_nothing(request, at, out);
    cox_buf_append(out, value.data + 1, value.len - 2);
    return at;
}

static enum cox_err complain(const struct step_input_ref *ref, const char *what, struct cox_buf *why)
{
    char name[COX_HASH_TEXT_MAX];

    cox_hash_format(&ref->hash, name);
    cox_buf_printf(why, "the request refers to %s, which is not %s", name, what);
    return COX_ERR_INVALID;
}

enum cox_err step_input_put(const struct step_input *in, struct cox_slice request, struct cox_buf *out,
                            struct cox_buf *why)
{
    size_t at = 0, start = out->len;

    for (uint32_t i = 0; i < in->n_refs; i++) {
        const struct step_input_ref *ref = &in->refs[i];
        struct cox_slice bytes = cox_buf_slice(&in->refs[ref->first].bytes);

        if (ref->at > at) /* else a comma was left out with what stood before it, and spaces with that */
            cox_buf_append(out, request.data + at, ref->at - at);
        at = ref->at + ref->len;
        if (out->len - start + bytes.len > STEP_INPUT_LEN_MAX)
            return COX_ERR_FULL;
        if (ref->place == STEP_INPUT_TEXT && !cox_utf8_ok(bytes))
            return complain(ref, "text in UTF-8", why);
        if (ref->place != STEP_INPUT_TEXT && cox_json_check(bytes, NULL) != COX_OK)
            return complain(ref, "JSON", why);
        if (ref->place == STEP_INPUT_TEXT)
            cox_json_quote(out, bytes);
        else if (ref->place == STEP_INPUT_VALUE)
            cox_buf_append_slice(out, bytes);
        else
            at = put_messages(cox_json_trim(bytes), request, at, out);
    }
    cox_buf_append(out, request.data + at, request.len - at);
    return out->len - start > STEP_INPUT_LEN_MAX ? COX_ERR_FULL : COX_OK;
}
