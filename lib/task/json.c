/* Documents through jansson: strict, bounded, with errors that name the place. */
#include "compile.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <string.h>

/* Of memory that it lacks jansson says that the document is wrong, or says nothing. Before main: no thread
 * reads it while it is written. */
__attribute__((constructor)) static void take_memory_from_us(void)
{
    json_set_alloc_funcs(cox_alloc, cox_free);
}

static void report_parse_error(struct report *r, const struct place *place, struct cox_slice text,
                               const json_error_t *error)
{
    size_t at = error->position > 0 ? (size_t)error->position : 0;

    switch (json_error_code(error)) {
    case json_error_duplicate_key:
        report_offset(r, place, text, at, "this key appears twice in one object; expected it once");
        break;
    case json_error_invalid_utf8:
        report_offset(r, place, text, at, "found bytes that are not UTF-8; expected UTF-8 text");
        break;
    case json_error_numeric_overflow:
        report_offset(r, place, text, at,
                      "found a number too large; expected an integer of 64 bits or a finite number");
        break;
    case json_error_null_character:
    case json_error_null_byte_in_key:
        report_offset(r, place, text, at, "found the character \\u0000; expected text without it");
        break;
    default:
        report_offset(r, place, text, at, "not valid JSON: %s",
                      cox_utf8_ok(cox_slice_str(error->text)) ? error->text : "syntax error");
    }
}

json_t *json_parse(struct report *r, const struct place *place, struct cox_slice text, const char *what)
{
    struct cox_json_place bad;
    json_error_t error;

    if (text.len > COX_DOCUMENT_LEN_MAX) {
        report_at(r, place, "found %s of %zu bytes, expected at most %u", what, text.len,
                  COX_DOCUMENT_LEN_MAX);
        return NULL;
    }
    if (cox_json_trim(text).len == 0) {
        report_at(r, place, "found %s without content, expected a JSON object", what);
        return NULL;
    }
    enum cox_err err = cox_json_check(text, &bad);

    if (err && bad.too_deep) {
        report_offset(r, place, text, bad.offset, "found more than %u levels of nesting, expected at most %u",
                      COX_JSON_DEPTH_MAX, COX_JSON_DEPTH_MAX);
        return NULL;
    }
    json_t *value = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, &error);

    if (!value)
        report_parse_error(r, place, text, &error);
    else if (err)
        report_offset(r, place, text, bad.offset, "not valid JSON: expected %s", bad.expected);
    if (err)
        json_decref(value);
    return err ? NULL : value;
}

static void put_object(struct cox_buf *out, const json_t *object)
{
    const char *separator = "{", *key;
    json_t *member;

    json_object_foreach((json_t *)(uintptr_t)object, key, member)
    {
        cox_buf_append_str(out, separator);
        cox_json_quote(out, cox_slice_str(key));
        cox_put_u8(out, ':');
        json_put(out, member);
        separator = ",";
    }
    cox_buf_append_str(out, json_object_size(object) > 0 ? "}" : "{}");
}

static void put_list(struct cox_buf *out, const json_t *list)
{
    cox_put_u8(out, '[');
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (i > 0)
            cox_put_u8(out, ',');
        json_put(out, json_array_get(list, i));
    }
    cox_put_u8(out, ']');
}

/* Recurses as deep as json_parse lets a document be. */
void json_put(struct cox_buf *out, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        put_object(out, value);
        break;
    case JSON_ARRAY:
        put_list(out, value);
        break;
    case JSON_STRING:
        cox_json_quote(out, json_slice(value));
        break;
    case JSON_INTEGER:
        cox_buf_printf(out, "%lld", (long long)json_integer_value(value));
        break;
    case JSON_REAL:
        cox_json_put_double(out, json_real_value(value));
        break;
    case JSON_TRUE:
        cox_buf_append_str(out, "true");
        break;
    case JSON_FALSE:
        cox_buf_append_str(out, "false");
        break;
    case JSON_NULL:
        cox_buf_append_str(out, "null");
        break;
    }
}
