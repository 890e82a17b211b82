/* Lists: see index_sqlite.h for how. */
#include "index_sqlite.h"

#include "row.h"

#include <inttypes.h>
#include <string.h>

#define SEEKS_MAX 10000u /* about 20 ms; a list that finds little says where to go on */
#define SEEKS_AT_ONCE (4 * (COX_LABELS_MAX + 1))
#define PAGE_LEN_MAX (4u << 20)
#define PAGE_ROWS_MAX 1000u
#define PAGE_HEADER_LEN 21u

struct list {
    struct store_index *index;
    struct cox_index_query query;
    struct cox_label labels[COX_LABELS_MAX];
    uint64_t keys[COX_LABELS_MAX + 1];
    size_t n_keys;
    /* Of each status asked for: no id above it is still to be shown; 0: none is left. `found` says that it is
     * itself in all of the lists. */
    uint64_t at[COX_TASK_STATUS_NR];
    bool found[COX_TASK_STATUS_NR];
    uint64_t least_id;
    unsigned n_seeks;
    struct cox_buf out;
    uint32_t n_rows;
};

/* The largest id of a list that is not above *id; 0 when there is none. */
static enum cox_err seek(struct list *l, uint64_t key, int status, uint64_t *id, struct cox_buf *error)
{
    sqlite3_stmt *st = l->index->st[INDEX_SEEK];
    enum cox_err err = COX_OK;

    l->n_seeks++;
    store_bind_u64(st, 1, key);
    (void)sqlite3_bind_int(st, 2, status);
    store_bind_u64(st, 3, *id);
    int rc = sqlite3_step(st);

    *id = rc == SQLITE_ROW ? store_column_u64(st, 0) : 0;
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        err = store_db_failed(&l->index->db, "reading a list", error);
    (void)sqlite3_reset(st);
    return err;
}

/* Lowers at[status] to the next id that is in every list, or to 0, or some way: the other statuses want their
 * turn before the work allowed is done. */
static enum cox_err find(struct list *l, int status, struct cox_buf *error)
{
    unsigned until = l->n_seeks + SEEKS_AT_ONCE;
    size_t agreed = 0;

    for (size_t k = 0; agreed < l->n_keys && l->at[status] != 0; k = (k + 1) % l->n_keys) {
        uint64_t id = l->at[status];
        if (l->n_seeks >= until)
            return COX_OK;
        enum cox_err err = seek(l, l->keys[k], status, &id, error);
        if (err != COX_OK)
            return err;
        agreed = id == l->at[status] ? agreed + 1 : 1;
        l->at[status] = id < l->least_id ? 0 : id;
    }
    l->found[status] = l->at[status] != 0;
    return COX_OK;
}

/* Hashes may collide, and a label may be there twice: the row itself is asked. */
static bool matches(const struct list *l, const struct cox_index_row *row)
{
    const struct cox_index_query *q = &l->query;

    if ((q->tenant.len > 0 && !cox_slice_eq(q->tenant, row->tenant)) ||
        (q->created_after_ms && row->created_wall_ms < q->created_after_ms) ||
        (q->created_before_ms && row->created_wall_ms >= q->created_before_ms))
        return false;
    for (size_t i = 0; i < q->n_labels; i++) {
        size_t j = 0;
        while (j < row->n_labels && !(cox_slice_eq(q->labels[i].name, row->labels[j].name) &&
                                      cox_slice_eq(q->labels[i].value, row->labels[j].value)))
            j++;
        if (j == row->n_labels)
            return false;
    }
    return true;
}

static enum cox_err show(struct list *l, uint64_t id, struct cox_buf *error)
{
    sqlite3_stmt *st = l->index->st[INDEX_GET];
    struct cox_label labels[COX_LABELS_MAX];
    struct cox_index_row row;
    enum cox_err err = COX_OK;

    store_bind_u64(st, 1, id);
    int rc = sqlite3_step(st);
    struct cox_slice bytes = rc == SQLITE_ROW ? store_column_bytes(st, 1) : cox_slice(NULL, 0);

    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        err = store_db_failed(&l->index->db, "reading a row", error);
    } else if (rc == SQLITE_DONE || (uint32_t)sqlite3_column_int64(st, 0) != store_crc(bytes) ||
               cox_index_row_decode(bytes, &row, labels) != COX_OK) {
        cox_buf_printf(error, "%s: the row of task %" PRIu64 " is damaged", l->index->db.path, id);
        err = COX_ERR_CORRUPT;
    } else if (matches(l, &row)) {
        cox_put_bytes(&l->out, bytes);
        l->n_rows++;
    }
    (void)sqlite3_reset(st);
    return err;
}

/* The least id from which on all were created at or after a time: found by halves, for ids rise with time. */
static enum cox_err edge(struct list *l, int64_t ms, uint64_t *ret_id, struct cox_buf *error)
{
    sqlite3_stmt *st = l->index->st[INDEX_FROM];
    uint64_t low = 1, high = l->index->max_id + 1;
    int rc = SQLITE_DONE;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;

        store_bind_u64(st, 1, middle);
        rc = sqlite3_step(st);
        if (rc == SQLITE_ROW && sqlite3_column_int64(st, 1) < ms)
            low = store_column_u64(st, 0) + 1;
        else if (rc == SQLITE_ROW || rc == SQLITE_DONE)
            high = middle;
        else
            break;
        (void)sqlite3_reset(st);
    }
    *ret_id = low;
    if (rc == SQLITE_ROW || rc == SQLITE_DONE)
        return COX_OK;
    enum cox_err err = store_db_failed(&l->index->db, "finding a time", error);

    (void)sqlite3_reset(st);
    return err;
}

static enum cox_err bound(struct list *l, struct cox_buf *error)
{
    const struct cox_index_query *q = &l->query;
    uint64_t top = q->before_id ? q->before_id - 1 : INT64_MAX;
    uint64_t id = 0;
    enum cox_err err = COX_OK;

    l->least_id = 1;
    if (q->created_before_ms && (err = edge(l, q->created_before_ms, &id, error)) == COX_OK)
        top = id <= top ? id - 1 : top;
    if (err == COX_OK && q->created_after_ms)
        err = edge(l, q->created_after_ms, &l->least_id, error);
    for (int s = 1; s < COX_TASK_STATUS_NR; s++)
        l->at[s] = (q->statuses == 0 || (q->statuses & 1u << s)) ? top : 0;
    for (size_t i = 0; i < q->n_labels; i++)
        l->keys[l->n_keys++] = store_index_key(q->labels[i].name, q->labels[i].value);
    if (q->tenant.len > 0)
        l->keys[l->n_keys++] = store_index_key(cox_slice(NULL, 0), q->tenant);
    if (l->n_keys == 0)
        l->keys[l->n_keys++] = STORE_INDEX_KEY_ALL;
    return err;
}

/* The status whose id is the highest; 0 when nothing is left. */
static int highest(const struct list *l)
{
    int best = 0;

    for (int s = 1; s < COX_TASK_STATUS_NR; s++)
        if (l->at[s] != 0 && (best == 0 || l->at[s] > l->at[best]))
            best = s;
    return best;
}

static enum cox_err fill(struct list *l, uint32_t limit, uint64_t *ret_before_id, struct cox_buf *error)
{
    enum cox_err err = COX_OK;
    uint64_t last_id = UINT64_MAX;
    int s = 0;

    while (err == COX_OK && (s = highest(l)) != 0 && l->n_rows < limit && l->out.len < PAGE_LEN_MAX &&
           l->n_seeks < SEEKS_MAX) {
        if (!l->found[s]) {
            err = find(l, s, error);
            continue;
        }
        err = show(l, l->at[s], error);
        last_id = l->at[s]--;
        l->found[s] = false;
    }
    /* Of a status not looked for far enough, `at` is only a bound. */
    *ret_before_id = s == 0 ? 0 : l->at[s] < last_id ? l->at[s] + 1 : last_id;
    return err;
}

enum cox_err store_index_list(struct store_index *index, struct cox_store_request *req,
                              enum cox_err *ret_answer, struct cox_buf *error)
{
    struct list l = { .index = index };
    uint64_t before_id = 0;
    enum cox_err err = COX_OK;

    *ret_answer = cox_index_query_decode(cox_buf_slice(&req->bytes), &l.query, l.labels);
    if (*ret_answer == COX_OK && !index->complete)
        *ret_answer = COX_ERR_UNAVAILABLE;
    if (*ret_answer != COX_OK)
        return COX_OK;
    bool live = l.query.statuses == 0 || (l.query.statuses & 1u << COX_TASK_PENDING) != 0;

    (void)cox_buf_extend(&l.out, PAGE_HEADER_LEN);
    err = store_index_flush(index, live ? STORE_FLUSH_ALL : STORE_FLUSH_STALE, error);
    if (err == COX_OK)
        err = bound(&l, error);
    if (err == COX_OK)
        err = fill(&l, l.query.limit < PAGE_ROWS_MAX ? l.query.limit : PAGE_ROWS_MAX, &before_id, error);
    struct cox_buf header = { 0 };

    cox_put_u32(&header, l.n_rows);
    cox_put_u8(&header, before_id != 0);
    cox_put_u64(&header, req->seq);
    cox_put_u64(&header, before_id);
    COX_ASSERT(header.len == PAGE_HEADER_LEN);
    memcpy(l.out.data, header.data, header.len);
    cox_buf_fini(&header);
    cox_buf_fini(&req->bytes);
    req->bytes = l.out;
    return err;
}
