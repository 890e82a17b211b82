#include "for_each.h"

#include "cox/json.h"
#include "cox/limits.h"

#include <string.h>

bool cli_merge_inputs(struct cox_buf *out, struct cox_slice base, struct cox_slice line,
                      struct cox_buf *error)
{
    struct cox_json_place place;
    struct cox_buf name = { 0 };
    bool first = true;

    if (cox_json_check(line, &place)) {
        cox_buf_printf(error, "column %u: expected %s", place.column, place.expected);
        return false;
    }
    if (cox_json_kind(line) != COX_JSON_OBJECT) {
        cox_buf_printf(error, "expected an object of inputs, found %s",
                       cox_json_kind_text(cox_json_kind(line)));
        return false;
    }
    cox_put_u8(out, '{');
    for (int pass = 0; pass < 2; pass++) {
        for (struct cox_json_walk w = cox_json_walk(pass == 0 ? line : base); cox_json_next(&w);) {
            struct cox_slice own;
            cox_buf_clear(&name);
            cox_json_unquote(&name, w.key);
            if (pass == 1 && cox_json_member(line, cox_buf_cstr(&name), &own))
                continue;
            cox_buf_append_str(out, first ? "" : ",");
            cox_buf_append_slice(out, w.key);
            cox_put_u8(out, ':');
            cox_buf_append_slice(out, w.value);
            first = false;
        }
    }
    cox_put_u8(out, '}');
    cox_buf_fini(&name);
    return true;
}

bool cli_next_line(FILE *in, struct cox_buf *ret, size_t *number)
{
    for (int c = 0; c != EOF;) {
        bool blank = true;
        cox_buf_clear(ret);
        while ((c = getc_unlocked(in)) != EOF && c != '\n') {
            cox_put_u8(ret, (uint8_t)c);
            blank = blank && strchr(" \t\r", c);
            if (ret->len > COX_DOCUMENT_LEN_MAX) {
                ++*number;
                return false;
            }
        }
        if (c == EOF && ret->len == 0)
            break;
        ++*number;
        if (!blank)
            return true;
    }
    cox_buf_clear(ret);
    return false;
}
