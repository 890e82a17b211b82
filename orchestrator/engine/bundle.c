/* Bundles: folders of programs in the blob store, named by their content, which documents refer to; and blobs
 * that inputs refer to. What nobody owns there is swept after a day, and tasks wait for longer. */
#include "template.h"

#include "cox/json.h"

#include <string.h>

static int digit(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "sha256:" and 64 digits, as the compiler has checked. */
static bool parse(struct cox_slice text, struct cox_hash *ret)
{
    static const char prefix[] = "sha256:";
    const size_t at = sizeof prefix - 1;
    if (text.len != at + 2 * sizeof ret->b || memcmp(text.data, prefix, at) != 0)
        return false;
    for (size_t i = 0; i < sizeof ret->b; i++) {
        int high = digit(text.data[at + 2 * i]), low = digit(text.data[at + 2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        ret->b[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

void bundle_keep(struct cox_engine *e, cox_task_id root, struct cox_slice name)
{
    struct cox_payload bundle = { .kind = COX_PAYLOAD_STORED };
    if (name.len > 0 && parse(name, &bundle.hash))
        payload_keep(e, root, &bundle);
}

void bundle_keep_of(struct cox_engine *e, struct cox_slice tenant, struct cox_slice document)
{
    struct cox_slice name;
    struct cox_hash bundle;
    if (cox_json_member(document, "bundle", &name) && cox_json_kind(name) == COX_JSON_STRING &&
        parse(cox_json_inner(name), &bundle))
        payload_keep_for_ever(e, tenant, &bundle);
}

/* ---- blobs that inputs refer to ---- */

static struct cox_slice skip(struct cox_slice s, size_t n)
{
    return cox_slice(s.data + n, s.len - n);
}

/* Behind white space and `c`; empty when something else comes. */
static struct cox_slice behind(struct cox_slice s, uint8_t c)
{
    while (s.len > 0 && (s.data[0] == ' ' || s.data[0] == '\t' || s.data[0] == '\r' || s.data[0] == '\n'))
        s = skip(s, 1);
    return s.len > 0 && s.data[0] == c ? skip(s, 1) : cox_slice(NULL, 0);
}

/* The next {"$blob": "sha256:..."} of a JSON text; false when there is none left. */
static bool next_blob(struct cox_slice *json, struct cox_hash *ret)
{
    static const char mark[] = "$blob\"";
    const size_t len = sizeof mark - 1, name_len = sizeof "sha256:" - 1 + 2 * sizeof ret->b;
    const uint8_t *at;
    while (json->len > 0 && (at = memchr(json->data, '$', json->len)) != NULL) {
        struct cox_slice rest = skip(*json, (size_t)(at - json->data));
        *json = skip(rest, 1);
        if (rest.len < len || memcmp(rest.data, mark, len) != 0)
            continue;
        rest = behind(behind(skip(rest, len), ':'), '"');
        if (rest.len > name_len && parse(cox_slice(rest.data, name_len), ret))
            return true;
    }
    return false;
}

void inputs_keep(struct cox_engine *e, cox_task_id root, struct cox_slice json)
{
    struct cox_payload blob = { .kind = COX_PAYLOAD_STORED };
    while (next_blob(&json, &blob.hash))
        payload_keep(e, root, &blob);
}
