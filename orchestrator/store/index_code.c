/* Bytes of rows, queries and pages of the index. Rows are on disk too, in index.db and in state.db's table
 * `ended`: their first byte is a version. */
#include "cox/store.h"

#include <string.h>

#define ROW_VERSION 1u

static void put_labels(struct cox_buf *b, const struct cox_label *labels, size_t n)
{
    COX_ASSERT(n <= COX_LABELS_MAX);
    cox_put_u8(b, (uint8_t)n);
    for (size_t i = 0; i < n; i++) {
        cox_put_bytes(b, labels[i].name);
        cox_put_bytes(b, labels[i].value);
    }
}

static bool get_labels(struct cox_reader *in, struct cox_label *labels, size_t *ret_n)
{
    size_t n = cox_get_u8(in);

    if (n > COX_LABELS_MAX)
        in->bad = true;
    for (size_t i = 0; i < n && !in->bad; i++) {
        labels[i].name = cox_get_bytes(in);
        labels[i].value = cox_get_bytes(in);
    }
    *ret_n = in->bad ? 0 : n;
    return !in->bad;
}

void cox_index_row_encode(struct cox_buf *b, const struct cox_index_row *row)
{
    cox_put_u8(b, ROW_VERSION);
    cox_put_u64(b, row->id);
    cox_put_u8(b, row->status);
    cox_put_i64(b, row->created_wall_ms);
    cox_put_i64(b, row->finished_wall_ms);
    cox_put_bytes(b, row->name);
    cox_put_bytes(b, row->tenant);
    put_labels(b, row->labels, row->n_labels);
}

enum cox_err cox_index_row_decode(struct cox_slice bytes, struct cox_index_row *ret, struct cox_label *labels)
{
    struct cox_reader in = cox_reader(bytes);
    bool known = cox_get_u8(&in) == ROW_VERSION;

    ret->id = cox_get_u64(&in);
    ret->status = cox_get_u8(&in);
    ret->created_wall_ms = cox_get_i64(&in);
    ret->finished_wall_ms = cox_get_i64(&in);
    ret->name = cox_get_bytes(&in);
    ret->tenant = cox_get_bytes(&in);
    ret->labels = labels;
    if (!get_labels(&in, labels, &ret->n_labels) || !known || cox_reader_left(&in) > 0 ||
        ret->status >= COX_TASK_STATUS_NR)
        return COX_ERR_CORRUPT;
    return COX_OK;
}

void cox_index_query_encode(struct cox_buf *b, const struct cox_index_query *q)
{
    cox_put_u32(b, q->statuses);
    put_labels(b, q->labels, q->n_labels);
    cox_put_bytes(b, q->tenant);
    cox_put_i64(b, q->created_after_ms);
    cox_put_i64(b, q->created_before_ms);
    cox_put_u64(b, q->before_id);
    cox_put_u32(b, q->limit);
}

enum cox_err cox_index_query_decode(struct cox_slice bytes, struct cox_index_query *ret,
                                    struct cox_label *labels)
{
    struct cox_reader in = cox_reader(bytes);

    ret->statuses = cox_get_u32(&in);
    ret->labels = labels;
    (void)get_labels(&in, labels, &ret->n_labels);
    ret->tenant = cox_get_bytes(&in);
    ret->created_after_ms = cox_get_i64(&in);
    ret->created_before_ms = cox_get_i64(&in);
    ret->before_id = cox_get_u64(&in);
    ret->limit = cox_get_u32(&in);
    return in.bad || cox_reader_left(&in) > 0 ? COX_ERR_INVALID : COX_OK;
}

enum cox_err cox_index_page_open(struct cox_slice bytes, struct cox_index_page *ret)
{
    struct cox_index_page p = { .in = cox_reader(bytes) };

    p.n = cox_get_u32(&p.in);
    p.more = cox_get_u8(&p.in) != 0;
    p.as_of_seq = cox_get_u64(&p.in);
    p.before_id = cox_get_u64(&p.in);
    if (p.in.bad)
        return COX_ERR_CORRUPT;
    *ret = p;
    return COX_OK;
}

bool cox_index_page_next(struct cox_index_page *p, struct cox_index_row *ret, struct cox_label *labels)
{
    if (cox_reader_left(&p->in) == 0)
        return false;
    return cox_index_row_decode(cox_get_bytes(&p->in), ret, labels) == COX_OK;
}
