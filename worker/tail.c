#include "tail.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#include <string.h>

#define PIECE_OVERHEAD sizeof(struct livelog_piece)

/* ---------------------------------------------------------------- the end of a stream */

void tail_append(struct tail *t, struct cox_slice data)
{
    struct cox_buf *b = &t->bytes;

    if (data.len > t->len_max) {
        data = cox_slice(data.data + (data.len - t->len_max), t->len_max);
        t->cut = true;
        cox_buf_clear(b);
    }
    if (b->len + data.len > 2 * t->len_max) {
        size_t keep = t->len_max - data.len;

        memmove(b->data, b->data + (b->len - keep), keep);
        b->len = keep;
    }
    cox_buf_append_slice(b, data);
    t->cut = t->cut || b->len > t->len_max;
}

struct cox_slice tail_slice(const struct tail *t)
{
    size_t len = t->bytes.len < t->len_max ? t->bytes.len : t->len_max;
    struct cox_slice s = { 0 };

    if (len == 0)
        return s;
    s = cox_slice(t->bytes.data + (t->bytes.len - len), len);
    for (int i = 0; t->cut && i < 3 && s.len > 0 && (s.data[0] & 0xC0) == 0x80; i++)
        s = cox_slice(s.data + 1, s.len - 1);
    return s;
}

void tail_fini(struct tail *t)
{
    cox_buf_fini(&t->bytes);
}

/* ---------------------------------------------------------------- the live log */

void livelog_init(struct livelog *l, size_t len_max)
{
    *l = (struct livelog){ .len_max = len_max };
    cox_list_init(&l->pieces);
}

static struct livelog_piece *piece_of(const struct livelog *l, struct cox_list *link)
{
    return link == &l->pieces ? NULL : COX_CONTAINER_OF(link, struct livelog_piece, link);
}

static void drop_first(struct livelog *l)
{
    struct livelog_piece *p = piece_of(l, l->pieces.next);

    if (l->unread == p) {
        l->unread = piece_of(l, p->link.next);
        l->unread_at = 0;
        l->dropped = true;
    }
    l->len -= PIECE_OVERHEAD + p->bytes.len;
    cox_list_remove(&p->link);
    cox_buf_fini(&p->bytes);
    cox_free(p);
}

void livelog_fini(struct livelog *l)
{
    while (!cox_list_empty(&l->pieces))
        drop_first(l);
}

void livelog_append(struct livelog *l, enum livelog_stream stream, struct cox_slice data)
{
    struct livelog_piece *p = piece_of(l, l->pieces.prev);

    if (data.len == 0)
        return;
    if (!p || p->stream != stream || p->bytes.len + data.len > LIVELOG_PIECE_LEN_MAX) {
        p = COX_NEW(struct livelog_piece);
        p->stream = stream;
        cox_list_push_back(&l->pieces, &p->link);
        l->len += PIECE_OVERHEAD;
    }
    if (!l->unread) {
        l->unread = p;
        l->unread_at = p->bytes.len;
    }
    cox_buf_append_slice(&p->bytes, data);
    l->len += data.len;
    while (l->len > l->len_max)
        drop_first(l);
}

void livelog_rewind(struct livelog *l)
{
    l->unread = piece_of(l, l->pieces.next);
    l->unread_at = 0;
    l->dropped = l->was_read && !COX_PLANTED("log-again-unsaid");
}

bool livelog_peek(const struct livelog *l, enum livelog_stream *ret_stream, struct cox_slice *ret_data,
                  bool *ret_dropped)
{
    const struct livelog_piece *p = l->unread;

    if (!p)
        return false;
    *ret_stream = p->stream;
    *ret_data = cox_slice(p->bytes.data + l->unread_at, p->bytes.len - l->unread_at);
    *ret_dropped = l->dropped;
    return true;
}

void livelog_advance(struct livelog *l)
{
    l->unread = piece_of(l, l->unread->link.next);
    l->unread_at = 0;
    l->dropped = false;
    l->was_read = true;
}
