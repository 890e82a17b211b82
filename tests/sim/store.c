/* The fake store: what is durable, what a crash takes, and when anybody learns of it.
 *
 * The log keeps every batch for ever, so that the whole history can be replayed and compared; recovery sees
 * only what lies behind the cut. A commit takes all batches that wait; a crash during it decides by chance
 * whether it had reached the disk. The state has two tables: what reads see, and what the last sync made
 * safe; a power cut keeps the safe one and any number of the operations since, in order. */
#include "sim.h"

#include <string.h>

#define YOUNG_NS MINUTE /* for a day that a store waits: longer than any answer is on its way here */

/* ---- tables ---- */

static int key_cmp(const struct cox_entity_key *a, const struct cox_entity_key *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->id != b->id)
        return a->id < b->id ? -1 : 1;
    return a->sub < b->sub ? -1 : a->sub > b->sub;
}

/* Where `key` is, or would be. */
static size_t table_find(const struct table *t, const struct cox_entity_key *key, bool *ret_found)
{
    size_t lo = 0, hi = t->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (key_cmp(&t->rows[mid].key, key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *ret_found = lo < t->n && key_cmp(&t->rows[lo].key, key) == 0;
    return lo;
}

static void table_put(struct table *t, const struct cox_entity_key *key, uint64_t seq, struct cox_slice bytes)
{
    bool found;
    size_t at = table_find(t, key, &found);
    if (!found) {
        if (t->n == t->cap) {
            t->cap = t->cap == 0 ? 64 : t->cap * 2;
            t->rows = cox_realloc(t->rows, t->cap, sizeof t->rows[0]);
        }
        memmove(t->rows + at + 1, t->rows + at, (t->n - at) * sizeof t->rows[0]);
        t->n++;
        t->rows[at] = (struct row){ .key = *key };
    }
    t->rows[at].seq = seq;
    cox_buf_clear(&t->rows[at].bytes);
    cox_buf_append_slice(&t->rows[at].bytes, bytes);
}

static void table_drop(struct table *t, const struct cox_entity_key *key)
{
    bool found;
    size_t at = table_find(t, key, &found);
    if (!found)
        return;
    cox_buf_fini(&t->rows[at].bytes);
    t->n--;
    memmove(t->rows + at, t->rows + at + 1, (t->n - at) * sizeof t->rows[0]);
}

static void table_fini(struct table *t)
{
    for (size_t i = 0; i < t->n; i++)
        cox_buf_fini(&t->rows[i].bytes);
    cox_free(t->rows);
    *t = (struct table){ 0 };
}

static bool table_has(const struct table *t, const struct cox_entity_key *key)
{
    bool found;
    table_find(t, key, &found);
    return found;
}

/* ---- whose values are whose ---- */

static bool is_deleted(const struct table *t, cox_task_id root)
{
    return root != 0 && table_has(t, &(struct cox_entity_key){ .kind = ROW_DELETED, .id = root });
}

static void owner_put(struct table *t, cox_task_id root, const struct cox_entity_key *payload)
{
    struct cox_entity_key key = { .kind = ROW_OWNER, .id = root };
    key.sub = (uint32_t)cox_hash64(&payload->id, sizeof payload->id);
    table_put(t, &key, 0, cox_slice(payload, sizeof *payload));
}

static size_t owners_of(const struct table *t, cox_task_id root, size_t *ret_end)
{
    bool found;
    size_t at = table_find(t, &(struct cox_entity_key){ .kind = ROW_OWNER, .id = root }, &found);
    for (*ret_end = at;
         *ret_end < t->n && t->rows[*ret_end].key.kind == ROW_OWNER && t->rows[*ret_end].key.id == root;
         ++*ret_end) {
    }
    return at;
}

static void own(struct table *t, const struct state_op *op)
{
    size_t end, n;
    if (is_deleted(t, op->root))
        return;
    if (op->from == 0 && (op->key.id != 0 || op->bytes.len > 0)) {
        if (!table_has(t, &op->key) && op->bytes.len > 0)
            table_put(t, &op->key, op->seq, cox_buf_slice(&op->bytes));
        owner_put(t, op->root, &op->key);
        return;
    }
    size_t at = owners_of(t, op->from, &end);
    struct cox_entity_key *keys = cox_calloc(end - at + 1, sizeof keys[0]);
    for (n = 0; at + n < end; n++)
        memcpy(&keys[n], t->rows[at + n].bytes.data, sizeof keys[n]);
    while (n > 0)
        owner_put(t, op->root, &keys[--n]);
    cox_free(keys);
}

static void delete_root(struct table *t, cox_task_id root)
{
    size_t end, to = 0, at = owners_of(t, root, &end);
    for (size_t i = 0; i < t->n; i++) {
        bool goes = (i >= at && i < end) || (t->rows[i].key.kind == ROW_ARCHIVE && t->rows[i].seq == root);
        if (goes)
            cox_buf_fini(&t->rows[i].bytes);
        else
            t->rows[to++] = t->rows[i];
    }
    t->n = to;
    table_put(t, &(struct cox_entity_key){ .kind = ROW_DELETED, .id = root }, 0, cox_slice(NULL, 0));
}

static void table_apply(struct table *t, const struct state_op *op)
{
    switch (op->op) {
    case COX_STORE_PUT_PAYLOAD:
        own(t, op);
        break;
    case COX_STORE_ARCHIVE:
        if (!is_deleted(t, op->seq))
            table_put(t, &op->key, op->seq, cox_buf_slice(&op->bytes));
        break;
    case COX_STORE_SAVE:
        table_put(t, &op->key, op->seq, cox_buf_slice(&op->bytes));
        break;
    case COX_STORE_FORGET:
        table_drop(t, &op->key);
        break;
    default: /* reads and the log's end change no row */
        break;
    }
}

struct cox_hash payload_hash(struct cox_slice bytes)
{
    struct cox_hash hash;
    uint64_t part = bytes.len;
    for (size_t i = 0; i < 4; i++) {
        uint64_t parts[3] = { part, i, cox_hash64(bytes.data, bytes.len) };
        part = cox_hash64(parts, sizeof parts);
        memcpy(hash.b + 8 * i, &part, 8);
    }
    return hash;
}

struct cox_entity_key payload_key(const struct cox_hash *hash)
{
    struct cox_entity_key key = { .kind = ROW_PAYLOAD };
    memcpy(&key.id, hash->b, 8);
    memcpy(&key.sub, hash->b + 8, 4);
    return key;
}

const struct row *store_row(const struct sim *s, struct cox_entity_key key)
{
    bool found;
    size_t at = table_find(&s->store.live, &key, &found);
    return found ? &s->store.live.rows[at] : NULL;
}

bool store_waits(const struct sim *s, struct cox_entity_key key)
{
    COX_LIST_FOR_EACH (it, &s->store.queue)
        if (key_cmp(&COX_CONTAINER_OF(it, struct state_op, node)->key, &key) == 0)
            return true;
    return false;
}

void store_blob(struct sim *s, const struct cox_hash *hash, struct cox_slice bytes)
{
    struct cox_entity_key key = payload_key(hash);
    table_put(&s->store.live, &key, (uint64_t)(s->now_ns / MS), bytes);
    table_put(&s->store.disk, &key, (uint64_t)(s->now_ns / MS), bytes);
    befell(s, KIND_BLOB);
}

/* ---- the log ---- */

static void sync_state(struct store *st);

static uint64_t batch_last(const struct batch *b)
{
    return b->first_seq + b->n - 1;
}

static void batch_fini(struct batch *b)
{
    cox_buf_fini(&b->records);
    cox_buf_fini(&b->inputs);
}

static void commit_begin(struct sim *s)
{
    struct store *st = &s->store;
    if (cox_heap_has(&st->commit.node) || st->n_durable == st->n)
        return;
    st->n_committing = st->n;
    event_at(s, &st->commit, s->now_ns + latency(s, s->cfg.commit_ns));
}

/* Of the first `n` framed records. */
static size_t records_len(struct cox_slice records, uint32_t n)
{
    struct cox_reader in = cox_reader(records);
    for (; n > 0; n--) {
        (void)cox_get_u8(&in);
        (void)cox_get_raw(&in, cox_get_u32(&in));
    }
    return records.len - cox_reader_left(&in);
}

static void log_durable(struct sim *s)
{
    struct store *st = &s->store;
    for (; st->n_durable < st->n_committing; st->n_durable++) {
        st->durable_seq = batch_last(&st->log[st->n_durable]);
        audit_batch(s, &st->log[st->n_durable]);
    }
}

/* More than a real store does, which commits all that waits at once: the commit under way ends after any of
 * its inputs. What one input has made is one fact: a hop is one commit (rule 5). */
static void log_torn(struct sim *s)
{
    struct store *st = &s->store;
    st->n_committing = st->n_durable + rnd(s, st->n_committing - st->n_durable);
    log_durable(s);
    struct batch *b = &st->log[st->n_durable];
    size_t n_inputs = b->inputs.len / sizeof(uint32_t), at = rnd(s, n_inputs + 1);
    if (at == n_inputs)
        return; /* none of this batch */
    struct cox_reader in = cox_reader(cox_slice(b->inputs.data + at * sizeof(uint32_t), sizeof(uint32_t)));
    b->n = cox_get_u32(&in);
    b->records.len = records_len(cox_buf_slice(&b->records), b->n);
    st->n_committing = st->n_durable + 1;
    log_durable(s);
}

static void commit_done(struct sim *s, struct event *ev)
{
    (void)ev;
    log_durable(s);
    trace(s, "log durable %llu", (unsigned long long)s->store.durable_seq);
    commit_begin(s);
    coxd_poke(s);
}

bool store_append(struct sim *s, uint64_t first_seq, uint32_t n, struct cox_buf *records,
                  struct cox_buf *inputs)
{
    struct store *st = &s->store;
    if (store_room(s) == 0)
        return false;
    if (st->n == st->cap) {
        st->cap = st->cap == 0 ? 256 : st->cap * 2;
        st->log = cox_realloc(st->log, st->cap, sizeof st->log[0]);
    }
    uint64_t last = st->n > 0 ? batch_last(&st->log[st->n - 1]) : 0;
    if (first_seq != last + 1)
        fail(s, "the engine appends record %llu after %llu", (unsigned long long)first_seq,
             (unsigned long long)last);
    if (s->cfg.older_records && chance(s, 500))
        older_records(s, records);
    st->log[st->n++] = (struct batch){ first_seq, n, *records, *inputs };
    *records = *inputs = (struct cox_buf){ 0 };
    s->n.batches++;
    commit_begin(s);
    return true;
}

size_t store_room(const struct sim *s)
{
    size_t waiting = s->store.n - s->store.n_durable;
    return waiting < s->cfg.ring ? s->cfg.ring - waiting : 0;
}

/* ---- what goes ---- */

void store_delete(struct sim *s, cox_task_id root)
{
    sync_state(&s->store);
    delete_root(&s->store.live, root);
    delete_root(&s->store.disk, root);
    befell(s, KIND_DELETE);
}

static bool is_owned(const struct table *t, const struct cox_entity_key *payload)
{
    for (size_t i = t->n; i-- > 0 && t->rows[i].key.kind >= ROW_OWNER;) {
        struct cox_entity_key key;
        if (t->rows[i].key.kind != ROW_OWNER)
            continue;
        memcpy(&key, t->rows[i].bytes.data, sizeof key);
        if (key_cmp(&key, payload) == 0)
            return true;
    }
    return false;
}

/* What nobody owns and is not young goes, from what reads see and, as that is synced, from the disk. (rule
 * 11) */
static void sweep(struct sim *s, struct event *ev)
{
    struct store *st = &s->store;
    event_at(s, ev, s->now_ns + between(s, SECOND, 30 * SECOND));
    if (!s->coxd.up || !s->coxd.listening || st->n_queue > 0)
        return;
    sync_state(st);
    for (size_t i = st->live.n; i-- > 0;) {
        struct row *row = &st->live.rows[i];
        struct cox_entity_key key = row->key;
        if (key.kind != ROW_PAYLOAD || (int64_t)row->seq * MS + YOUNG_NS > s->now_ns ||
            is_owned(&st->live, &key))
            continue;
        table_drop(&st->live, &key);
        table_drop(&st->disk, &key);
        befell(s, KIND_SWEEP);
    }
}

/* ---- the state ---- */

void state_op_free(struct state_op *op)
{
    cox_list_remove(&op->node);
    cox_buf_fini(&op->bytes);
    cox_free(op);
}

static void ops_free(struct cox_list *ops)
{
    while (!cox_list_empty(ops))
        state_op_free(COX_CONTAINER_OF(ops->next, struct state_op, node));
}

static void sync_state(struct store *st)
{
    COX_LIST_FOR_EACH (it, &st->since_sync)
        table_apply(&st->disk, COX_CONTAINER_OF(it, struct state_op, node));
    ops_free(&st->since_sync);
}

static void read_row(struct sim *s, struct state_op *op)
{
    const struct row *row = store_row(s, op->key);
    op->err = row != NULL ? COX_OK : COX_ERR_NOT_FOUND;
    if (row != NULL)
        cox_buf_append_slice(&op->bytes, cox_buf_slice(&row->bytes));
}

/* True when somebody waits for word of it. */
static bool op_do(struct sim *s, struct state_op *op)
{
    struct store *st = &s->store;
    switch (op->op) {
    case COX_STORE_READ_ARCHIVE:
    case COX_STORE_READ_PAYLOAD:
    case COX_STORE_READ_ENTITY:
        read_row(s, op);
        return true;
    case COX_STORE_TRUNCATE:
        if (s->opt.plant != PLANT_NO_SYNC)
            sync_state(st);
        befell(s, KIND_CHECKPOINT);
        st->dies_cutting = befalls(s, KIND_CRASH_TRUNCATING, 150);
        if (st->dies_cutting) { /* it drops rows in steps: none, some or all are gone */
            st->cut_seq += rnd(s, op->seq - st->cut_seq + 1);
            return true;
        }
        st->cut_seq = op->seq;
        s->n.checkpoints++;
        trace(s, "log cut at %llu", (unsigned long long)op->seq);
        return true;
    default:
        table_apply(&st->live, op);
        return false;
    }
}

static void work_done(struct sim *s, struct event *ev)
{
    struct store *st = &s->store;
    for (size_t n = 1 + rnd(s, 8); n > 0 && !cox_list_empty(&st->queue); n--) {
        struct state_op *op = COX_CONTAINER_OF(st->queue.next, struct state_op, node);
        cox_list_remove(&op->node);
        st->n_queue--;
        if (op_do(s, op)) {
            cox_list_push_back(&st->done, &op->node);
            if (st->dies_cutting) {
                st->dies_cutting = false;
                coxd_crash(s, chance(s, 500));
                return;
            }
            continue;
        }
        cox_list_push_back(&st->since_sync, &op->node);
        if (op->op == COX_STORE_ARCHIVE) {
            struct state_op *told = COX_NEW(struct state_op);
            *told = (struct state_op){ .op = op->op, .key = op->key };
            cox_list_push_back(&st->done, &told->node);
        }
    }
    if (!cox_list_empty(&st->queue))
        event_at(s, ev, s->now_ns + latency(s, s->cfg.state_ns));
    coxd_poke(s);
}

bool store_request(struct sim *s, struct state_op *op)
{
    struct store *st = &s->store;
    bool read = op->op == COX_STORE_READ_ARCHIVE || op->op == COX_STORE_READ_PAYLOAD ||
                op->op == COX_STORE_READ_ENTITY;
    if (!read && st->n_queue >= 8 * (size_t)s->cfg.ring)
        return false;
    cox_list_push_back(&st->queue, &op->node);
    st->n_queue++;
    if (!cox_heap_has(&st->work.node))
        event_at(s, &st->work, s->now_ns + latency(s, s->cfg.state_ns));
    return true;
}

struct state_op *store_poll(struct sim *s)
{
    if (cox_list_empty(&s->store.done))
        return NULL;
    struct state_op *op = COX_CONTAINER_OF(s->store.done.next, struct state_op, node);
    cox_list_remove(&op->node);
    return op;
}

/* ---- life, death, recovery ---- */

void store_init(struct sim *s)
{
    cox_list_init(&s->store.since_sync);
    cox_list_init(&s->store.queue);
    cox_list_init(&s->store.done);
    event_init(&s->store.commit, commit_done);
    event_init(&s->store.work, work_done);
    event_init(&s->store.sweep, sweep);
    if (kind_on(s, KIND_SWEEP))
        event_at(s, &s->store.sweep, between(s, 0, 30 * SECOND));
}

void store_fini(struct sim *s)
{
    struct store *st = &s->store;
    for (size_t i = 0; i < st->n; i++)
        batch_fini(&st->log[i]);
    cox_free(st->log);
    table_fini(&st->live);
    table_fini(&st->disk);
    ops_free(&st->since_sync);
    ops_free(&st->queue);
    ops_free(&st->done);
}

static void table_copy(struct table *to, const struct table *from)
{
    table_fini(to);
    for (size_t i = 0; i < from->n; i++)
        table_put(to, &from->rows[i].key, from->rows[i].seq, cox_buf_slice(&from->rows[i].bytes));
}

/* What the power cut keeps of the operations since the last sync: some first part of them. */
static void state_power_cut(struct sim *s)
{
    struct store *st = &s->store;
    size_t n = 0;
    COX_LIST_FOR_EACH (it, &st->since_sync)
        n++;
    size_t n_kept = kind_now(s, KIND_LOST_WRITE) ? rnd(s, n + 1) : n;
    if (n_kept < n)
        befell(s, KIND_LOST_WRITE);
    COX_LIST_FOR_EACH (it, &st->since_sync)
        if (n_kept-- > 0)
            table_apply(&st->disk, COX_CONTAINER_OF(it, struct state_op, node));
        else
            break;
    ops_free(&st->since_sync);
    table_copy(&st->live, &st->disk);
}

void store_crash(struct sim *s, bool power_cut)
{
    struct store *st = &s->store;
    if (cox_heap_has(&st->commit.node) && chance(s, 250))
        log_durable(s); /* it had reached the disk, and nobody was told */
    else if (cox_heap_has(&st->commit.node) && befalls(s, KIND_TORN, 1000))
        log_torn(s);
    event_cancel(s, &st->commit);
    event_cancel(s, &st->work);
    if (s->opt.plant == PLANT_LOSE_BATCH && st->n_durable > 0 &&
        st->log[st->n_durable - 1].first_seq > st->cut_seq)
        st->n_durable--;
    while (st->n > st->n_durable)
        batch_fini(&st->log[--st->n]);
    st->durable_seq = st->n > 0 ? batch_last(&st->log[st->n - 1]) : 0;
    ops_free(&st->queue);
    ops_free(&st->done);
    st->n_queue = 0;
    if (power_cut)
        state_power_cut(s);
}

enum cox_err store_recover(struct sim *s, struct cox_engine *e)
{
    struct store *st = &s->store;
    enum cox_err err = COX_OK;
    for (size_t i = 0; i < st->live.n && err == COX_OK; i++) {
        const struct row *r = &st->live.rows[i];
        if (r->key.kind < ROW_ARCHIVE)
            err = cox_engine_load(e, r->key, r->seq, cox_buf_slice(&r->bytes));
    }
    for (size_t i = 0; i < st->n && err == COX_OK; i++) {
        const struct batch *b = &st->log[i];
        if (batch_last(b) > st->cut_seq)
            err = cox_engine_replay(e, b->first_seq, b->n, cox_buf_slice(&b->records));
    }
    return err;
}

enum cox_err store_replay_all(struct sim *s, struct cox_engine *e, size_t n_batches)
{
    enum cox_err err = COX_OK;
    for (size_t i = 0; i < n_batches && err == COX_OK; i++) {
        const struct batch *b = &s->store.log[i];
        err = cox_engine_replay(e, b->first_seq, b->n, cox_buf_slice(&b->records));
    }
    return err;
}
