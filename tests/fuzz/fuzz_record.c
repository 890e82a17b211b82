/* Any bytes as what a store gives back. The first byte says as what:
 *
 *   r  a batch of the log: what decodes is written as what decodes the same
 *   h  the tail of a log (behind a byte that says how much of a true history comes first): replayed or
 * refused e  an entity of a checkpoint (behind two bytes: whose place it takes, and of which kind): loaded or
 * refused a  a task of the archive: read and shown, or refused
 *
 * Refused is COX_ERR_CORRUPT: a checksum has been right, so no byte may be trusted any less than another. */
#include "fuzz_history.h"

#include "../../orchestrator/engine/record.h"

#include "cox/base/units.h"

#include <string.h>

static bool slices_same(const struct record *a, const struct record *b)
{
    struct cox_buf x = { 0 }, y = { 0 };

    record_encode(&x, a);
    record_encode(&y, b);
    bool same = cox_slice_eq(cox_buf_slice(&x), cox_buf_slice(&y));
    cox_buf_fini(&x);
    cox_buf_fini(&y);
    return same;
}

static void check_items(const struct record *r)
{
    struct cox_reader in = cox_reader(r->u.items_ended.items);
    struct record_item item;
    struct cox_buf b = { 0 };

    while (record_item_next(&in, &item)) {
        cox_buf_clear(&b);
        record_item_encode(&b, &item);
        struct cox_reader again = cox_reader(cox_buf_slice(&b));
        struct record_item same;
        COX_ASSERT(record_item_next(&again, &same) && cox_reader_left(&again) == 0);
        COX_ASSERT(same.index == item.index && same.next == item.next && same.code == item.code);
        COX_ASSERT(cox_slice_eq(same.output, item.output) && cox_slice_eq(same.message, item.message));
    }
    cox_buf_fini(&b);
}

static void check_codec(struct cox_slice bytes)
{
    struct cox_reader in = cox_reader(bytes);
    struct cox_buf b = { 0 };
    struct record r, same;

    while (record_decode(&in, &r)) {
        cox_buf_clear(&b);
        record_encode(&b, &r);
        struct cox_reader again = cox_reader(cox_buf_slice(&b));
        COX_ASSERT(record_decode(&again, &same) && cox_reader_left(&again) == 0);
        COX_ASSERT(same.type == r.type && same.task == r.task && same.step == r.step);
        COX_ASSERT(slices_same(&r, &same));
        if (r.type == RECORD_ITEMS_ENDED)
            check_items(&r);
    }
    COX_ASSERT(in.bad || cox_reader_left(&in) == 0);
    cox_buf_fini(&b);
}

static uint32_t count_records(struct cox_slice bytes)
{
    struct cox_reader in = cox_reader(bytes);
    struct record r;
    uint32_t n = 0;

    while (record_decode(&in, &r))
        n++;
    return n;
}

/* What reading the whole state touches. */
static void use_engine(struct cox_engine *e, enum cox_err err)
{
    COX_ASSERT(err == COX_OK || err == COX_ERR_CORRUPT);
    if (err == COX_OK)
        (void)cox_engine_hash(e);
    cox_engine_destroy(e);
}

static void check_history(struct cox_slice in)
{
    const struct fuzz_history *h = fuzz_history();
    struct cox_engine *e = cox_engine_create(&(struct cox_engine_config){ .shard = 0, .seed = 1 });
    uint32_t n = in.len > 0 ? h->n_records * in.data[0] / 255 : 0;
    struct cox_slice tail = in.len > 0 ? cox_slice(in.data + 1, in.len - 1) : in;
    enum cox_err err = cox_engine_replay(e, 1, n, cox_slice(h->log.data, h->ends[n]));

    COX_ASSERT(err == COX_OK);
    err = cox_engine_replay(e, n + 1, count_records(tail), tail);
    use_engine(e, err);
}

static void check_entity(struct cox_slice in)
{
    const struct fuzz_history *h = fuzz_history();
    struct cox_engine *e;
    enum cox_err err = COX_OK;

    if (in.len < 2)
        return;
    uint32_t place = in.data[0];
    struct cox_entity_key key = { .kind = in.data[1], .id = place };
    struct cox_slice bytes = cox_slice(in.data + 2, in.len - 2);

    e = cox_engine_create(&(struct cox_engine_config){ .shard = 0, .seed = 1 });
    for (uint32_t i = 0; i < h->n_saved && err == COX_OK; i++) {
        if (i == place)
            key.id = h->saved[i].key.id, key.sub = h->saved[i].key.sub;
        else
            err = cox_engine_load(e, h->saved[i].key, h->saved[i].applied_seq,
                                  cox_buf_slice(&h->saved[i].bytes));
    }
    if (err == COX_OK)
        err = cox_engine_load(e, key, h->n_records, bytes);
    use_engine(e, err);
}

static void show_step(const struct cox_task *t, uint32_t i)
{
    struct cox_step_view step;
    struct cox_attempt_view attempt;
    struct cox_map_view map;
    struct cox_buf address = { 0 };

    cox_step_view(NULL, t, i, &step);
    COX_ASSERT(step.status < COX_STEP_STATUS_NR && step.code < COX_CODE_NR);
    for (uint32_t k = 0; k < step.n_attempts && k < 2 * COX_ATTEMPTS_KEPT; k++) {
        cox_attempt_view(NULL, t, i, k, &attempt);
        COX_ASSERT(attempt.status < COX_ATTEMPT_STATUS_NR && attempt.code < COX_CODE_NR);
    }
    (void)cox_map_view(t, i, &map);
    cox_step_address(&address, t, i);
    cox_buf_fini(&address);
}

static void check_archive(struct cox_slice in)
{
    struct cox_task_view view;
    struct cox_task *t;
    enum cox_err err = cox_task_thaw(in, &t);

    COX_ASSERT(err == COX_OK || err == COX_ERR_CORRUPT);
    if (err)
        return;
    cox_task_view(t, &view);
    for (uint32_t i = cox_task_next_step(t, 0); i != COX_IMAGE_NONE; i = cox_task_next_step(t, i + 1))
        show_step(t, i);
    cox_task_free(t);
}

/* Not as part of the first input: what it covers is no news. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    (void)fuzz_history();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cox_slice rest = size > 0 ? cox_slice(data + 1, size - 1) : cox_slice(NULL, 0);

    switch (size > 0 ? data[0] : 0) {
    case 'r':
        check_codec(rest);
        break;
    case 'h':
        check_history(rest);
        break;
    case 'e':
        check_entity(rest);
        break;
    case 'a':
        check_archive(rest);
        break;
    default:
        break;
    }
    return 0;
}
