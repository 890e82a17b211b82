#include "wiped.h"

#include <string.h>

void wiped_reserve(struct cox_buf *b, size_t extra)
{
    struct cox_buf larger = { 0 };

    if (b->cap - b->len >= extra)
        return;
    cox_buf_reserve(&larger, 2 * b->len + extra);
    cox_buf_append_slice(&larger, cox_buf_slice(b));
    wiped_fini(b);
    *b = larger;
}

void wiped_append(struct cox_buf *b, struct cox_slice s)
{
    wiped_reserve(b, s.len);
    cox_buf_append_slice(b, s);
}

void wiped_fini(struct cox_buf *b)
{
    if (b->data)
        explicit_bzero(b->data, b->cap);
    cox_buf_fini(b);
}
