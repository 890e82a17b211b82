/* Any text as a document (up to the first NUL byte) with any text as its inputs (behind it): it compiles to
 * an image that opens and runs, or each violation has a place and a message. */
#include "fuzz_task.h"

#include "cox/base/units.h"

#include <string.h>

static void check_violations(const struct cox_violations *v)
{
    COX_ASSERT(v->n > 0 && v->n <= COX_VIOLATIONS_MAX);
    for (uint32_t i = 0; i < v->n; i++) {
        COX_ASSERT(v->items[i].path && cox_utf8_ok(cox_slice_str(v->items[i].path)));
        COX_ASSERT(v->items[i].message && v->items[i].message[0]);
        COX_ASSERT(cox_utf8_ok(cox_slice_str(v->items[i].message)));
    }
}

/* What is kept of a document can be read of any. */
static void read_heads(struct cox_slice document)
{
    struct cox_template_head template;
    struct cox_schedule_head schedule;

    cox_template_head(document, &template);
    COX_ASSERT(template.major >= 1);
    cox_schedule_head(document, &schedule);
    COX_ASSERT(schedule.time_zone.len > 0 && schedule.catch_up_ms >= 0);
    cox_buf_fini(&template.text);
    cox_buf_fini(&schedule.text);
}

static void compile(const struct cox_task_source *source)
{
    struct cox_violations violations;
    struct cox_buf bytes = { 0 };
    struct cox_image image;

    if (cox_task_compile(source, &bytes, &violations) == COX_OK) {
        COX_ASSERT(violations.n == 0);
        COX_ASSERT(cox_image_open(&image, cox_buf_slice(&bytes)) == COX_OK);
        fuzz_use_image(&image, cox_slice_str("{\"a\": [1, \"b\", null]}"), true);
    } else {
        COX_ASSERT(bytes.len == 0);
        check_violations(&violations);
    }
    cox_violations_fini(&violations);
    cox_buf_fini(&bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 0 ? memchr(data, 0, size) : NULL;
    size_t len = end ? (size_t)(end - data) : size;
    struct cox_task_source source = { .document = cox_slice(data, len) };

    if (end)
        source.inputs_json = cox_slice(end + 1, size - len - 1);
    source.kind = cox_source_kind_of(source.document);
    compile(&source);
    source.kind = COX_SOURCE_STEPS;
    compile(&source);
    source.kind = COX_SOURCE_PLAN;
    source.allow_json =
        cox_slice_str("{\"uses\":[\"*a*\"],\"kinds\":[\"uses\",\"model\",\"agent\",\"plan\",\"run\"],"
                      "\"max_steps\":20,\"max_depth\":3}");
    compile(&source);
    read_heads(source.document);
    return 0;
}
