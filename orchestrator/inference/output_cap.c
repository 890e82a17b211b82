#include "output_cap.h"

#include "cox/base/plant.h"
#include "cox/json.h"

#include <inttypes.h>

struct said {
    struct cox_slice at[2]; /* values of max_tokens and max_completion_tokens, as they stand in the body */
    uint32_t n;
    uint64_t most; /* the last of them: engines take that */
    uint64_t n_choices;
    bool empty;
};

static uint64_t positive(struct cox_slice value)
{
    int64_t n;

    return cox_json_int(value, &n) && n > 0 ? (uint64_t)n : 0;
}

static struct said read_said(struct cox_slice body)
{
    struct cox_json_walk w = cox_json_walk(body);
    struct said said = { .n_choices = 1, .empty = true };

    for (; cox_json_next(&w); said.empty = false) {
        bool completion = cox_json_string_is(w.key, cox_slice_str("max_completion_tokens"));

        if (cox_json_string_is(w.key, cox_slice_str("n")) && positive(w.value) > 0)
            said.n_choices = positive(w.value);
        if (!completion && !cox_json_string_is(w.key, cox_slice_str("max_tokens")))
            continue;
        if (positive(w.value) == 0 && !cox_slice_is(w.value, "null"))
            continue; /* whoever answers says that it cannot be */
        said.most = completion || said.most == 0 ? positive(w.value) : said.most;
        if (said.n < 2)
            said.at[said.n++] = w.value;
    }
    return said;
}

uint64_t output_cap_asked(struct cox_slice body)
{
    const struct said said = read_said(body);

    return said.most > UINT64_MAX / said.n_choices ? UINT64_MAX : said.most * said.n_choices;
}

static const uint8_t *object_start(const struct cox_buf *body)
{
    struct cox_slice text = cox_json_trim(cox_buf_slice(body));

    return text.len > 0 && *text.data == '{' ? text.data + 1 : NULL;
}

void output_cap_apply(struct cox_buf *body, uint64_t tokens)
{
    const struct said said = read_said(cox_buf_slice(body));
    const uint8_t *start = object_start(body), *from = body->data;
    uint64_t each = tokens / said.n_choices > 0 ? tokens / said.n_choices : 1;
    struct cox_buf out = { 0 };

    if (!start || COX_PLANTED("answers-beyond-budget"))
        return;
    if (said.n == 0) {
        cox_buf_append(&out, from, (size_t)(start - from));
        cox_buf_printf(&out, "\"max_tokens\":%" PRIu64 "%s", each, said.empty ? "" : ",");
        from = start;
    }
    for (uint32_t i = 0; i < said.n; i++) {
        if (positive(said.at[i]) <= each && !cox_slice_is(said.at[i], "null"))
            continue;
        cox_buf_append(&out, from, (size_t)(said.at[i].data - from));
        cox_buf_printf(&out, "%" PRIu64, each);
        from = said.at[i].data + said.at[i].len;
    }
    if (out.len == 0) { /* it asks for less */
        cox_buf_fini(&out);
        return;
    }
    cox_buf_append(&out, from, (size_t)(body->data + body->len - from));
    cox_buf_fini(body);
    *body = out;
}
