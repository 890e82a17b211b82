#include "blobs.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include <stdio.h>
#include <string.h>

#define TEXT_LEN_MAX 400u /* of a reference that became a string */

static const char prefix[] = "sha256:";

bool blob_parse(struct cox_slice text, char ret_hex[BLOB_HEX_LEN + 1])
{
    const size_t skip = sizeof(prefix) - 1;

    if (text.len != skip + BLOB_HEX_LEN || memcmp(text.data, prefix, skip) != 0)
        return false;
    for (size_t i = skip; i < text.len; i++)
        if (!((text.data[i] >= '0' && text.data[i] <= '9') || (text.data[i] >= 'a' && text.data[i] <= 'f')))
            return false;
    memcpy(ret_hex, text.data + skip, BLOB_HEX_LEN);
    ret_hex[BLOB_HEX_LEN] = 0;
    return true;
}

static bool is_ref(struct cox_slice object, char ret_hex[BLOB_HEX_LEN + 1])
{
    struct cox_slice text;

    return cox_json_member(object, "$blob", &text) && blob_parse(cox_json_inner(text), ret_hex);
}

bool blob_ref(struct cox_slice value, char ret_hex[BLOB_HEX_LEN + 1])
{
    struct cox_buf text = { 0 };
    bool ok;

    if (cox_json_kind(value) != COX_JSON_STRING)
        return is_ref(value, ret_hex);
    if (value.len > TEXT_LEN_MAX)
        return false;
    cox_json_unquote(&text, value);
    ok = cox_json_check(cox_buf_slice(&text), NULL) == COX_OK && is_ref(cox_buf_slice(&text), ret_hex);
    cox_buf_fini(&text);
    return ok;
}

void blob_hex(const struct cox_hash *hash, char ret_hex[BLOB_HEX_LEN + 1])
{
    for (size_t i = 0; i < sizeof(hash->b); i++)
        snprintf(ret_hex + 2 * i, 3, "%02x", hash->b[i]);
}

void blob_put(struct cox_buf *out, const struct cox_hash *hash, uint64_t len)
{
    char hex[BLOB_HEX_LEN + 1];

    blob_hex(hash, hex);
    cox_buf_printf(out, "{\"$blob\":\"%s%s\",\"size\":%llu}", prefix, hex, (unsigned long long)len);
}

static enum cox_err add(struct blob_refs *refs, const char *hex)
{
    for (size_t i = 0; i < refs->n; i++)
        if (strcmp(refs->hex[i], hex) == 0)
            return COX_OK;
    if (refs->n == BLOB_REFS_MAX)
        return COX_ERR_FULL;
    memcpy(refs->hex[refs->n++], hex, BLOB_HEX_LEN + 1);
    return COX_OK;
}

/* No deeper than what cox_json_check lets pass. */
static enum cox_err walk(struct cox_slice value, struct blob_refs *refs)
{
    char hex[BLOB_HEX_LEN + 1];
    enum cox_err err = COX_OK;

    if (blob_ref(value, hex))
        return add(refs, hex);
    for (struct cox_json_walk w = cox_json_walk(value); err == COX_OK && cox_json_next(&w);)
        err = walk(w.value, refs);
    return err;
}

enum cox_err blob_find(struct cox_slice json, struct blob_refs *refs)
{
    static const char mark[] = "$blob";

    if (json.len == 0 || !memmem(json.data, json.len, mark, sizeof(mark) - 1))
        return COX_OK;
    if (cox_json_check(json, NULL) != COX_OK)
        return COX_ERR_INVALID;
    return walk(json, refs);
}

char *blob_program_path(struct cox_slice spec_json)
{
    struct cox_slice value;
    struct cox_buf path = { 0 };
    char *copy;

    if (cox_json_check(spec_json, NULL) != COX_OK || !cox_json_member(spec_json, "path", &value) ||
        cox_json_kind(value) != COX_JSON_STRING)
        return NULL;
    cox_json_unquote(&path, value);
    copy = cox_strdup(cox_buf_cstr(&path));
    cox_buf_fini(&path);
    return copy;
}
