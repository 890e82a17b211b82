/* Bundles: folders of programs in the blob store, named by their content, which documents refer to. What
 * nobody owns there is swept after a day, and tasks wait for longer. */
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

void bundle_keep_of(struct cox_engine *e, struct cox_slice document)
{
    struct cox_slice name;
    if (cox_json_member(document, "bundle", &name) && cox_json_kind(name) == COX_JSON_STRING)
        bundle_keep(e, 0, cox_json_inner(name));
}
