/* Any text as an expression (up to the first NUL byte), over a step whose output is any text (behind it). */
#include "fuzz_task.h"

#include "cox/base/units.h"

#include <string.h>

/* As a string of JSON: expressions come to the compiler through one. */
static void put_json(struct cox_buf *out, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (data[i] < 0x20)
            cox_buf_printf(out, "\\u%04x", data[i]);
        else if (data[i] == '"' || data[i] == '\\')
            cox_buf_printf(out, "\\%c", data[i]);
        else
            cox_put_u8(out, data[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char head[] =
        "{\"api_version\":\"v1\",\"name\":\"t\",\"inputs\":{\"n\":{\"type\":\"integer\",\"default\":7},"
        "\"s\":{\"type\":\"string\",\"default\":\"a\\\"b\"},"
        "\"o\":{\"type\":\"object\",\"default\":{\"k\":[1,2.5,{\"x\":null}]}}},"
        "\"steps\":{\"a\":{\"uses\":\"x@1\"}},\"outputs\":{\"v\":\"${{ ";
    const uint8_t *end = size > 0 ? memchr(data, 0, size) : NULL;
    size_t len = end ? (size_t)(end - data) : size;
    struct cox_slice output = end ? cox_slice(end + 1, size - len - 1) : cox_slice_str("{\"k\": [1, \"x\"]}");
    struct cox_buf document = { 0 }, bytes = { 0 };
    struct cox_violations violations;
    struct cox_image image;

    cox_buf_append_str(&document, head);
    put_json(&document, data, len);
    cox_buf_append_str(&document, " }}\"}}");
    const struct cox_task_source source = { .document = cox_buf_slice(&document) };

    if (cox_task_compile(&source, &bytes, &violations) == COX_OK) {
        COX_ASSERT(cox_image_open(&image, cox_buf_slice(&bytes)) == COX_OK);
        fuzz_use_image(&image, output, true);
    } else {
        COX_ASSERT(violations.n > 0 && cox_utf8_ok(cox_slice_str(violations.items[0].message)));
    }
    cox_violations_fini(&violations);
    cox_buf_fini(&document);
    cox_buf_fini(&bytes);
    return 0;
}
