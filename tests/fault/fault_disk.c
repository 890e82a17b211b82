#include "fault_disk.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"

#include <string.h>

#define SECTOR 512u
#define BLOCK 4096u

struct fault_block {
    unsigned refs;
    uint8_t bytes[BLOCK];
};

/* ---- content ---- */

static void block_drop(struct fault_block *b)
{
    if (b && --b->refs == 0)
        cox_free(b);
}

/* From here to the end: no blocks, so zeros when the file grows again. */
static void content_shorten(struct fault_content *c, size_t len)
{
    size_t keep = (len + BLOCK - 1) / BLOCK;

    if (len >= c->len)
        return;
    for (size_t i = keep; i < c->n_blocks; i++) {
        block_drop(c->blocks[i]);
        c->blocks[i] = NULL;
    }
    c->len = len;
}

static struct fault_block *content_own(struct fault_content *c, size_t i)
{
    if (i >= c->n_blocks) {
        size_t n = i + 1 > 2 * c->n_blocks ? i + 1 : 2 * c->n_blocks;

        c->blocks = cox_realloc(c->blocks, n, sizeof(c->blocks[0]));
        memset(c->blocks + c->n_blocks, 0, (n - c->n_blocks) * sizeof(c->blocks[0]));
        c->n_blocks = n;
    }
    struct fault_block *old = c->blocks[i];

    if (old && old->refs == 1)
        return old;
    struct fault_block *b = cox_alloc(sizeof(*b));

    b->refs = 1;
    if (old)
        memcpy(b->bytes, old->bytes, BLOCK);
    else
        memset(b->bytes, 0, BLOCK);
    block_drop(old);
    c->blocks[i] = b;
    return b;
}

static void content_write(struct fault_content *c, size_t at, const uint8_t *data, size_t len)
{
    if (c->len < at && c->len % BLOCK != 0) { /* what a shortened file left in its last block */
        size_t i = c->len / BLOCK;

        if (i < c->n_blocks && c->blocks[i])
            memset(content_own(c, i)->bytes + c->len % BLOCK, 0, BLOCK - c->len % BLOCK);
    }
    if (c->len < at + len)
        c->len = at + len;
    while (len > 0) {
        size_t in = at % BLOCK;
        size_t n = len < BLOCK - in ? len : BLOCK - in;

        memcpy(content_own(c, at / BLOCK)->bytes + in, data, n);
        at += n;
        data += n;
        len -= n;
    }
}

static void content_clear(struct fault_content *c)
{
    content_shorten(c, 0);
    cox_free(c->blocks);
    *c = (struct fault_content){ 0 };
}

static void content_share(struct fault_content *to, const struct fault_content *from)
{
    content_clear(to);
    *to = (struct fault_content){ .exists = from->exists,
                                  .len = from->len,
                                  .n_blocks = (from->len + BLOCK - 1) / BLOCK };
    if (to->n_blocks > from->n_blocks)
        to->n_blocks = from->n_blocks;
    if (to->n_blocks == 0)
        return;
    to->blocks = cox_alloc(to->n_blocks * sizeof(to->blocks[0]));
    memcpy(to->blocks, from->blocks, to->n_blocks * sizeof(to->blocks[0]));
    for (size_t i = 0; i < to->n_blocks; i++)
        if (to->blocks[i])
            to->blocks[i]->refs++;
}

static void content_apply(struct fault_content *c, const struct fault_op *op)
{
    switch (op->kind) {
    case FAULT_OP_MAKE:
        c->exists = true;
        break;
    case FAULT_OP_REMOVE:
        content_clear(c);
        break;
    case FAULT_OP_TRUNCATE:
        content_shorten(c, op->at);
        break;
    case FAULT_OP_WRITE:
        content_write(c, op->at, op->bytes.data, op->bytes.len);
        break;
    default:
        COX_ASSERT(!"a sync is never unsynced");
    }
}

static void content_apply_torn(struct fault_content *c, const struct fault_op *op, struct cox_rng *rng)
{
    size_t done = 0;

    while (done < op->bytes.len) {
        size_t len = SECTOR - (op->at + done) % SECTOR;

        if (len > op->bytes.len - done)
            len = op->bytes.len - done;
        if (cox_rng_chance(rng, 500000))
            content_write(c, op->at + done, op->bytes.data + done, len);
        done += len;
    }
}

/* ---- files ---- */

struct fault_file *fault_disk_find(struct fault_disk *d, const char *name)
{
    for (size_t i = 0; i < d->n_files; i++)
        if (strcmp(d->files[i].name, name) == 0)
            return &d->files[i];
    return NULL;
}

struct fault_file *fault_disk_get(struct fault_disk *d, const char *name)
{
    struct fault_file *f = fault_disk_find(d, name);

    if (f)
        return f;
    COX_ASSERT(d->n_files < FAULT_FILES_MAX);
    f = &d->files[d->n_files++];
    *f = (struct fault_file){ .name = cox_strdup(name) };
    f->ops_end = &f->ops;
    return f;
}

static void drop_op(struct fault_file *f)
{
    struct fault_op *op = f->ops;

    f->ops = op->next;
    if (!f->ops)
        f->ops_end = &f->ops;
    f->n_ops--;
    cox_buf_fini(&op->bytes);
    cox_free(op);
}

static void forget_ops(struct fault_file *f)
{
    while (f->ops)
        drop_op(f);
}

void fault_disk_fini(struct fault_disk *d)
{
    for (size_t i = 0; i < d->n_files; i++) {
        struct fault_file *f = &d->files[i];

        forget_ops(f);
        content_clear(&f->seen);
        content_clear(&f->safe);
        cox_free(f->name);
    }
    *d = (struct fault_disk){ 0 };
}

size_t fault_file_read(const struct fault_file *f, size_t at, void *to, size_t want)
{
    const struct fault_content *c = &f->seen;
    uint8_t *out = to;
    size_t have = at >= c->len ? 0 : c->len - at < want ? c->len - at : want;

    for (size_t left = have; left > 0;) {
        size_t i = at / BLOCK, in = at % BLOCK;
        size_t n = left < BLOCK - in ? left : BLOCK - in;

        if (i < c->n_blocks && c->blocks[i])
            memcpy(out, c->blocks[i]->bytes + in, n);
        else
            memset(out, 0, n);
        at += n;
        out += n;
        left -= n;
    }
    return have;
}

static void add_op(struct fault_disk *d, struct fault_file *f, enum fault_op_kind kind, size_t at,
                   struct cox_slice bytes)
{
    if (d->careless) {
        struct fault_op op = { .kind = kind, .at = at };

        op.bytes = (struct cox_buf){ .data = (uint8_t *)bytes.data, .len = bytes.len };
        content_apply(&f->seen, &op);
        return;
    }
    struct fault_op *op = COX_NEW(struct fault_op);

    *op = (struct fault_op){ .kind = kind, .at = at };
    cox_buf_append_slice(&op->bytes, bytes);
    content_apply(&f->seen, op);
    *f->ops_end = op;
    f->ops_end = &op->next;
    f->n_ops++;
}

static void sync_file(struct fault_file *f)
{
    for (struct fault_op *op = f->ops; op; op = op->next)
        if (!op->doomed)
            content_apply(&f->safe, op);
    forget_ops(f);
}

/* Names are safe, contents are not. */
static void sync_name(struct fault_file *f)
{
    size_t n = 0;
    size_t i = 0;

    for (struct fault_op *op = f->ops; op; op = op->next) {
        i++;
        if (op->kind == FAULT_OP_REMOVE || (op->kind == FAULT_OP_MAKE && n + 1 == i))
            n = i;
    }
    for (; n > 0; n--) {
        content_apply(&f->safe, f->ops);
        drop_op(f);
    }
}

void fault_disk_change(struct fault_disk *d, struct fault_file *f, enum fault_op_kind kind, size_t at,
                       struct cox_slice bytes)
{
    if (kind == FAULT_OP_SYNC) {
        sync_file(f);
    } else if (kind == FAULT_OP_SYNC_NAMES) {
        for (size_t i = 0; i < d->n_files; i++)
            sync_name(&d->files[i]);
    } else {
        add_op(d, f, kind, at, bytes);
    }
}

void fault_file_doom(struct fault_file *f)
{
    for (struct fault_op *op = f->ops; op; op = op->next)
        op->doomed = op->kind == FAULT_OP_WRITE;
}

/* ---- power cuts ---- */

static void cut_file(const struct fault_disk *d, size_t at, struct fault_content *to, fault_fate_fn fate,
                     void *user, struct cox_rng *rng)
{
    size_t i = 0;

    for (const struct fault_op *op = d->files[at].ops; op; op = op->next) {
        enum fault_fate what = op->doomed ? FAULT_IS_LOST : fate(user, d, at, i);

        i++;
        if (what == FAULT_IS_LOST && (op->kind == FAULT_OP_MAKE || op->kind == FAULT_OP_REMOVE))
            break; /* what follows happened to a file that has no name now */
        if (what == FAULT_IS_LOST)
            continue;
        if (what == FAULT_IS_TORN && op->kind == FAULT_OP_WRITE)
            content_apply_torn(to, op, rng);
        else
            content_apply(to, op);
    }
    if (!to->exists)
        content_clear(to);
}

void fault_disk_cut(const struct fault_disk *from, struct fault_disk *to, fault_fate_fn fate, void *user,
                    struct cox_rng *rng)
{
    for (size_t i = 0; i < to->n_files && to != from; i++) {
        forget_ops(&to->files[i]);
        content_clear(&to->files[i].safe);
        content_clear(&to->files[i].seen);
    }
    for (size_t i = 0; i < from->n_files; i++) {
        struct fault_file *f = fault_disk_get(to, from->files[i].name);

        if (to != from)
            content_share(&f->safe, &from->files[i].safe);
        cut_file(from, i, &f->safe, fate, user, rng);
        if (to->careless) { /* moved */
            content_clear(&f->seen);
            f->seen = f->safe;
            f->safe = (struct fault_content){ 0 };
        } else {
            content_share(&f->seen, &f->safe);
        }
        if (to == from)
            forget_ops(f);
    }
}
