/* Any bytes as what a program answers, up to the first NUL byte, to a schema of any JSON (behind it). */
#include "fuzz.h"

#include "handlers/answer.h"

#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/schema.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 0 ? memchr(data, 0, size) : NULL;
    size_t len = end ? (size_t)(end - data) : size;
    struct cox_slice schema = end ? cox_slice(end + 1, size - len - 1) : cox_slice(NULL, 0);
    struct cox_buf why = { 0 };
    struct outcome o;

    /* A schema is used when it has passed both checks, as a program's is. */
    if (cox_json_check(schema, NULL) != COX_OK || cox_schema_check(schema, &why) != COX_OK)
        schema = cox_slice(NULL, 0);
    outcome_init(&o);
    if (!answer_read(cox_slice(data, len), 7, schema, &o))
        COX_ASSERT(o.code == COX_CODE_OUTPUT_INVALID);
    COX_ASSERT(o.code < COX_CODE_NR && o.message.len <= COX_ERROR_MESSAGE_LEN_MAX);
    COX_ASSERT(cox_utf8_ok(cox_buf_slice(&o.message)));
    if (o.code == COX_CODE_NONE) {
        COX_ASSERT((o.output.len > 0) != (o.continuation.len > 0));
        COX_ASSERT(cox_json_check(cox_buf_slice(o.output.len > 0 ? &o.output : &o.continuation), NULL) ==
                   COX_OK);
    }
    outcome_fini(&o);
    cox_buf_fini(&why);
    return 0;
}
