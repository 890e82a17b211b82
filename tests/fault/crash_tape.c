#include "crash_tape.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/store.h"

#include <string.h>

#define SOME 3 /* changes that are lost or kept alone, of one moment */

void crash_tape_init(struct crash_tape *t)
{
    *t = (struct crash_tape){ 0 };
    pthread_mutex_init(&t->mutex, NULL);
}

static void clear(struct crash_tape *t)
{
    for (size_t i = 0; i < t->n; i++)
        cox_buf_fini(&t->entries[i].bytes);
    for (size_t i = 0; i < t->n_names; i++)
        cox_free(t->names[i]);
    t->n = t->n_names = 0;
}

void crash_tape_fini(struct crash_tape *t)
{
    clear(t);
    cox_free(t->entries);
    pthread_mutex_destroy(&t->mutex);
}

static uint8_t name_no(struct crash_tape *t, const char *name)
{
    for (size_t i = 0; i < t->n_names; i++)
        if (strcmp(t->names[i], name) == 0)
            return (uint8_t)i;
    COX_ASSERT(t->n_names < FAULT_FILES_MAX);
    t->names[t->n_names] = cox_strdup(name);
    return (uint8_t)t->n_names++;
}

/* With the mutex held. */
static struct crash_entry *add(struct crash_tape *t)
{
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 1024;
        t->entries = cox_realloc(t->entries, t->cap, sizeof(t->entries[0]));
    }
    struct crash_entry *e = &t->entries[t->n++];

    *e = (struct crash_entry){ .acked_seq = t->store ? cox_store_durable_seq(t->store) : t->base_seq };
    return e;
}

static void on_change(void *user, const char *name, enum fault_op_kind kind, size_t at,
                      struct cox_slice bytes)
{
    struct crash_tape *t = user;

    pthread_mutex_lock(&t->mutex);
    struct crash_entry *e = add(t);

    e->kind = kind;
    e->file = name_no(t, name);
    e->at = at;
    cox_buf_append_slice(&e->bytes, bytes);
    pthread_mutex_unlock(&t->mutex);
}

void crash_tape_record(struct crash_tape *t, struct fault_vfs *v, uint64_t base_seq)
{
    clear(t);
    t->store = NULL;
    t->base_seq = base_seq;
    fault_vfs_watch(v, on_change, t);
}

void crash_tape_set_store(struct crash_tape *t, const struct cox_store *s, uint64_t base_seq)
{
    pthread_mutex_lock(&t->mutex);
    t->store = s;
    t->base_seq = base_seq;
    pthread_mutex_unlock(&t->mutex);
}

void crash_tape_note(struct crash_tape *t, uint64_t at, uint64_t note)
{
    pthread_mutex_lock(&t->mutex);
    struct crash_entry *e = add(t);

    e->is_note = true;
    e->at = at;
    e->note = note;
    pthread_mutex_unlock(&t->mutex);
}

void crash_tape_play(const struct crash_tape *t, size_t i, struct fault_disk *d)
{
    const struct crash_entry *e = &t->entries[i];

    if (!e->is_note)
        fault_disk_change(d, fault_disk_get(d, t->names[e->file]), e->kind, e->at, cox_buf_slice(&e->bytes));
}

/* ---- cuts ---- */

struct chosen {
    const struct crash_variant *v;
    struct cox_rng rng;
    uint32_t lost_ppm, torn_ppm;
};

static enum fault_fate decide(void *user, const struct fault_disk *d, size_t file, size_t op)
{
    struct chosen *c = user;
    const struct crash_variant *v = c->v;
    bool it = file == v->file && op == v->op;

    (void)d;
    switch (v->kind) {
    case CRASH_NOTHING:
        return FAULT_IS_LOST;
    case CRASH_EVERYTHING:
        return FAULT_ARRIVES;
    case CRASH_ALL_BUT:
        return it ? FAULT_IS_LOST : FAULT_ARRIVES;
    case CRASH_ONLY:
        return it ? FAULT_ARRIVES : FAULT_IS_LOST;
    case CRASH_TORN:
        return it ? FAULT_IS_TORN : FAULT_ARRIVES;
    case CRASH_FILE:
        return file == v->file ? FAULT_ARRIVES : FAULT_IS_LOST;
    case CRASH_LUCK:
        break;
    }
    if (cox_rng_chance(&c->rng, c->lost_ppm))
        return FAULT_IS_LOST;
    return cox_rng_chance(&c->rng, c->torn_ppm) ? FAULT_IS_TORN : FAULT_ARRIVES;
}

void crash_cut(const struct fault_disk *from, struct fault_disk *to, const struct crash_variant *v)
{
    static const uint32_t ppm[] = { 900000, 500000, 500000, 100000 };
    struct chosen c = { .v = v };

    cox_rng_init(&c.rng, v->seed);
    c.lost_ppm = ppm[v->seed % 4];
    c.torn_ppm = ppm[v->seed / 4 % 4];
    fault_disk_cut(from, to, decide, &c, &c.rng);
}

const char *crash_variant_name(const struct crash_variant *v)
{
    static const char *const names[] = { "nothing arrives",
                                         "everything arrives",
                                         "one change is lost",
                                         "one change arrives",
                                         "one change is torn",
                                         "one file arrives",
                                         "by luck" };

    return names[v->kind];
}

/* The n-th unsynced change, oldest file first. */
static struct crash_variant the(const struct fault_disk *d, size_t n)
{
    struct crash_variant v = { 0 };

    while (n >= d->files[v.file].n_ops)
        n -= d->files[v.file++].n_ops;
    v.op = n;
    return v;
}

size_t crash_variants(const struct fault_disk *d, struct cox_rng *rng, struct crash_variant *ret, size_t cap)
{
    struct crash_variant v[2 + FAULT_FILES_MAX + 3 * SOME + SOME];
    size_t n = 0, pending = 0, files = 0;

    for (size_t i = 0; i < d->n_files; i++) {
        pending += d->files[i].n_ops;
        files += d->files[i].n_ops > 0;
    }
    v[n++] = (struct crash_variant){ .kind = CRASH_NOTHING };
    if (pending > 0)
        v[n++] = (struct crash_variant){ .kind = CRASH_EVERYTHING };
    for (size_t i = 0; i < d->n_files && files > 1; i++)
        if (d->files[i].n_ops > 0)
            v[n++] = (struct crash_variant){ .kind = CRASH_FILE, .file = i };
    for (size_t i = 0; i < SOME && i < pending; i++) {
        v[n] = the(d, cox_rng_below(rng, pending));
        v[n++].kind = CRASH_TORN;
        v[n] = the(d, cox_rng_below(rng, pending));
        v[n++].kind = CRASH_ALL_BUT;
        if (pending == 1)
            break;
        v[n] = the(d, cox_rng_below(rng, pending));
        v[n++].kind = CRASH_ONLY;
        v[n++] = (struct crash_variant){ .kind = CRASH_LUCK };
    }
    for (size_t i = 0; i < n; i++)
        v[i].seed = cox_rng_u64(rng);
    for (size_t i = 0; n > cap; i++) { /* drawn */
        size_t out = cox_rng_below(rng, n);

        v[out] = v[--n];
    }
    memcpy(ret, v, n * sizeof(v[0]));
    return n;
}

struct crash_variant *crash_variants_of(const struct fault_disk *d, const char *name, struct cox_rng *rng,
                                        size_t *ret_n)
{
    struct crash_variant *v = NULL;
    size_t n = 0;

    for (size_t file = 0; file < d->n_files; file++) {
        size_t n_ops = strstr(d->files[file].name, name) ? d->files[file].n_ops : 0;

        v = cox_realloc(v, n + 2 + 4 * n_ops, sizeof(*v));
        for (size_t op = 0; op < n_ops; op++) {
            v[n++] = (struct crash_variant){ .kind = CRASH_ALL_BUT, .file = file, .op = op };
            v[n++] = (struct crash_variant){ .kind = CRASH_ONLY, .file = file, .op = op };
            v[n++] = (struct crash_variant){ .kind = CRASH_TORN, .file = file, .op = op };
            v[n++] = (struct crash_variant){ .kind = CRASH_LUCK };
        }
        if (n_ops > 0)
            v[n++] = (struct crash_variant){ .kind = CRASH_FILE, .file = file };
    }
    v[n++] = (struct crash_variant){ .kind = CRASH_NOTHING };
    for (size_t i = 0; i < n; i++)
        v[i].seed = cox_rng_u64(rng);
    *ret_n = n;
    return v;
}
