/* Any bytes as YAML: refused with a place and words, or JSON that is YAML of the same value, with lines. */
#include "fuzz.h"

#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/limits.h"
#include "cox/yaml.h"

#include <string.h>

#define LINES_LEN_MAX ((size_t)32 << 20) /* of all paths of a document together */

static void check_lines(const struct cox_yaml *y, size_t n_lines)
{
    struct cox_slice path;
    size_t it = 0, len = 0;
    void *line;

    while (cox_mapb_next(&y->lines, &it, &path, &line)) {
        COX_ASSERT((uintptr_t)line >= 1 && (uintptr_t)line <= n_lines + 1); /* of nothing at its end */
        len += path.len;
    }
    COX_ASSERT(len <= LINES_LEN_MAX);
    COX_ASSERT(cox_yaml_line(y, "steps.a[0].run.argv[1]") <= n_lines + 1);
}

/* As many as any rule of counting finds: \r\n is one break for YAML, and there are wide ones. */
static size_t count_lines(const uint8_t *data, size_t size)
{
    size_t n = 1;

    for (size_t i = 0; i < size; i++)
        n += data[i] == '\n' || data[i] == '\r' || data[i] == 0x85 || data[i] == 0xa8 || data[i] == 0xa9;
    return n;
}

static void check_again(struct cox_slice json)
{
    struct cox_yaml again = { 0 };

    if (cox_yaml_parse(&again, json) == COX_OK)
        COX_ASSERT(cox_slice_eq(cox_buf_slice(&again.json), json));
    cox_yaml_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cox_yaml y = { 0 };
    size_t n_lines = count_lines(data, size);

    if (cox_yaml_parse(&y, cox_slice(data, size)) == COX_OK) {
        struct cox_slice json = cox_buf_slice(&y.json);

        COX_ASSERT(y.error.len == 0 && json.len > 0 && json.len <= COX_DOCUMENT_LEN_MAX);
        COX_ASSERT(cox_json_check(json, NULL) == COX_OK && cox_utf8_ok(json));
        check_lines(&y, n_lines);
        check_again(json);
    } else {
        COX_ASSERT(y.error.len > 0 && y.error_line >= 1 && y.error_line <= n_lines + 1 &&
                   y.error_column >= 1);
        COX_ASSERT(cox_utf8_ok(cox_buf_slice(&y.error)));
    }
    cox_yaml_fini(&y);
    return 0;
}
