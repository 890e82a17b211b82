#include "cox/agent.h"

#include <string.h>

/* Copies `s` into `b`, which has room for it, so that slices copied before stay valid. */
static void move_slice(struct cox_buf *b, struct cox_slice *s)
{
    size_t at = b->len;

    cox_buf_append_slice(b, *s);
    *s = cox_slice(b->data + at, s->len);
}

static size_t sum(struct cox_slice *const *slices, size_t n)
{
    size_t len = 0;

    for (size_t i = 0; i < n; i++)
        len += slices[i]->len;
    return len;
}

/* An array at the front of the buffer, where memory is aligned for anything. */
static void *move_array(struct cox_buf *b, const void *items, size_t n, size_t size)
{
    uint8_t *at = cox_buf_extend(b, n * size);

    if (n > 0)
        memcpy(at, items, n * size);
    return at;
}

void cox_agent_copy_assign(struct cox_buf *body, struct cox_agent_assign *ret,
                           const struct cox_agent_assign *src)
{
    struct cox_slice *const slices[] = {
        &ret->task_id, &ret->step_name,         &ret->handler,        &ret->spec_json, &ret->idempotency_key,
        &ret->version, &ret->continuation_json, &ret->artifacts_json, &ret->workspace, &ret->bundle,
        &ret->tenant,  &ret->snapshot,          &ret->tree,
    };
    const size_t n = sizeof(slices) / sizeof(slices[0]);
    struct cox_agent_item *items;
    size_t len = src->n_items * sizeof(*src->items) + 1;

    COX_ASSERT(body->len == 0);
    *ret = *src;
    for (size_t i = 0; i < src->n_items; i++)
        len += src->items[i].spec_json.len;
    cox_buf_reserve(body, len + sum(slices, n));
    items = move_array(body, src->items, src->n_items, sizeof(*items));
    for (size_t i = 0; i < src->n_items; i++)
        move_slice(body, &items[i].spec_json);
    ret->items = items;
    for (size_t i = 0; i < n; i++)
        move_slice(body, slices[i]);
}

void cox_agent_copy_result(struct cox_buf *body, struct cox_agent_result *ret,
                           const struct cox_agent_result *src)
{
    struct cox_slice *const slices[] = { &ret->message, &ret->output, &ret->artifacts_json,
                                         &ret->continuation_json, &ret->files.note };
    const size_t n = sizeof(slices) / sizeof(slices[0]);
    struct cox_agent_item_result *items;
    size_t len = src->n_items * sizeof(*src->items) + src->n_blobs * sizeof(*src->blobs) +
                 src->files.n_packs * sizeof(*src->files.packs) + 1;

    COX_ASSERT(body->len == 0);
    *ret = *src;
    for (size_t i = 0; i < src->n_items; i++)
        len += src->items[i].message.len + src->items[i].output.len;
    cox_buf_reserve(body, len + sum(slices, n));
    items = move_array(body, src->items, src->n_items, sizeof(*items));
    ret->items = items;
    ret->blobs = move_array(body, src->blobs, src->n_blobs, sizeof(*src->blobs));
    ret->files.packs = move_array(body, src->files.packs, src->files.n_packs, sizeof(*src->files.packs));
    for (size_t i = 0; i < src->n_items; i++) {
        move_slice(body, &items[i].message);
        move_slice(body, &items[i].output);
    }
    for (size_t i = 0; i < n; i++)
        move_slice(body, slices[i]);
}
