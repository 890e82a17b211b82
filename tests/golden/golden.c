/* cox-golden FILE: what this version makes of a log, and of the checkpoint beside it, that some version
 * wrote. Prints every task, step and attempt; the two ways of recovery must come to the same state. Exit: 0
 * read, 1 not.
 *
 * A file is what `cox-sim --save-log` wrote, integers little-endian: "coxgold1"; u64 last record, u64 last
 * record that was cut; u32 n, n rows of u8 kind, u64 id, u32 sub, u64 applied_seq, u32 length, bytes; u32 n,
 * n batches of u64 first record, u32 records, u32 length, bytes, from the first record on. */
#include "cox/base/alloc.h"
#include "cox/base/buf.h"
#include "cox/engine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROW_ARCHIVE 100 /* of an ended task; below: of the engine */
#define NOW_WALL_MS INT64_C(1800000000000)

struct golden {
    struct cox_buf file;
    uint64_t last_seq, cut_seq;
    uint32_t n_rows, n_batches;
    size_t rows_at, batches_at;
};
struct row {
    struct cox_entity_key key;
    uint64_t seq;
    struct cox_slice bytes;
};
struct batch {
    uint64_t first_seq;
    uint32_t n;
    struct cox_slice bytes;
};

_Noreturn static void give_up(const char *what)
{
    fprintf(stderr, "cox-golden: %s\n", what);
    exit(1);
}

/* ---- the file ---- */

static struct cox_reader reader_at(const struct golden *g, size_t at)
{
    return cox_reader(cox_slice(g->file.data + at, g->file.len - at));
}

static size_t place(const struct golden *g, const struct cox_reader *r)
{
    return g->file.len - cox_reader_left(r);
}

static struct row next_row(struct cox_reader *r)
{
    struct row row = { .key.kind = cox_get_u8(r) };
    row.key.id = cox_get_u64(r);
    row.key.sub = cox_get_u32(r);
    row.seq = cox_get_u64(r);
    row.bytes = cox_get_bytes(r);
    return row;
}

static struct batch next_batch(struct cox_reader *r)
{
    struct batch b = { .first_seq = cox_get_u64(r) };
    b.n = cox_get_u32(r);
    b.bytes = cox_get_bytes(r);
    return b;
}

static void open_golden(struct golden *g, const char *path)
{
    char chunk[4096];
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        give_up("the file cannot be opened");
    for (size_t n = 1; n > 0;) {
        n = fread(chunk, 1, sizeof chunk, f);
        cox_buf_append(&g->file, chunk, n);
    }
    fclose(f);
    struct cox_reader r = reader_at(g, 0);
    struct cox_slice magic = cox_get_raw(&r, 8);
    if (!cox_slice_is(magic, "coxgold1"))
        give_up("the file is not what cox-sim saves");
    g->last_seq = cox_get_u64(&r);
    g->cut_seq = cox_get_u64(&r);
    g->n_rows = cox_get_u32(&r);
    g->rows_at = place(g, &r);
    for (uint32_t i = 0; i < g->n_rows; i++)
        (void)next_row(&r);
    g->n_batches = cox_get_u32(&r);
    g->batches_at = place(g, &r);
    for (uint32_t i = 0; i < g->n_batches; i++)
        (void)next_batch(&r);
    if (r.bad || cox_reader_left(&r) != 0)
        give_up("the file is cut short or too long");
}

/* ---- recovery ---- */

static struct cox_engine *rebuild(const struct golden *g, bool from_checkpoint)
{
    struct cox_engine *e = cox_engine_create(&(struct cox_engine_config){ .seed = 1 });
    struct cox_reader r = reader_at(g, g->rows_at);
    for (uint32_t i = 0; i < g->n_rows; i++) {
        struct row row = next_row(&r);
        if (from_checkpoint && row.key.kind < ROW_ARCHIVE &&
            cox_engine_load(e, row.key, row.seq, row.bytes) != COX_OK)
            give_up("an entity of the checkpoint cannot be read");
    }
    r = reader_at(g, g->batches_at);
    for (uint32_t i = 0; i < g->n_batches; i++) {
        struct batch b = next_batch(&r);
        if (from_checkpoint && b.first_seq + b.n - 1 <= g->cut_seq)
            continue;
        if (cox_engine_replay(e, b.first_seq, b.n, b.bytes) != COX_OK)
            give_up("a batch of the log cannot be replayed");
    }
    return e;
}

/* ---- what there is ---- */

static void print_text(const char *name, struct cox_slice s)
{
    if (s.len > 0)
        printf(" %s=%.*s%s", name, (int)(s.len < 40 ? s.len : 40), (const char *)s.data,
               s.len > 40 ? "..." : "");
}

static void print_payload(const struct cox_payload *p)
{
    if (p->kind == COX_PAYLOAD_INLINE)
        print_text("output", p->bytes);
    else if (p->kind == COX_PAYLOAD_STORED)
        printf(" output=%02x%02x%02x%02x.. of %" PRIu64, p->hash.b[0], p->hash.b[1], p->hash.b[2],
               p->hash.b[3], p->size);
}

static void print_step(const struct cox_engine *e, const struct cox_task *t, uint32_t i)
{
    struct cox_step_view v;
    cox_step_view(e, t, i, &v);
    printf("  %" PRIu32 " %s", i, cox_step_status_text(v.status));
    if (v.code != COX_CODE_NONE)
        printf(" %s", cox_code_text(v.code));
    print_text("message", v.message);
    print_payload(&v.output);
    printf("%s\n", v.via_fallback ? " fallback" : "");
    for (uint32_t k = 0; k < v.n_attempts; k++) {
        struct cox_attempt_view at;
        cox_attempt_view(e, t, i, k, &at);
        printf("    #%" PRIu32 " %s %s %" PRIu64 ".%" PRIu64 " %" PRId64 "..%" PRId64, at.number,
               cox_attempt_status_text(at.status), cox_code_text(at.code), at.ref.token.epoch,
               at.ref.token.counter, at.started_wall_ms, at.finished_wall_ms);
        print_text("worker", at.worker_id);
        printf("\n");
    }
}

/* Nothing where no model was called: most logs are older than calls. */
static void print_usage(const struct cox_usage *u)
{
    if (u->model_calls + u->wasted_tokens > 0)
        printf(" calls=%" PRIu64 " tokens=%" PRIu64 "+%" PRIu64 " cached=%" PRIu64 " wasted=%" PRIu64
               " cost=%" PRIu64 "%.8s",
               u->model_calls, u->input_tokens, u->output_tokens, u->cached_tokens, u->wasted_tokens,
               u->cost_micros, u->currency);
}

static void print_task(const char *where, const struct cox_engine *e, const struct cox_task *t)
{
    struct cox_task_view v;
    struct cox_image_task doc;
    cox_task_view(t, &v);
    cox_image_task(v.image, &doc);
    printf("%s %" PRIu64 " %.*s %s %s %" PRId64 "..%" PRId64 " cpu=%" PRIu64, where, (uint64_t)v.id,
           (int)doc.name.len, (const char *)doc.name.data, cox_task_status_text(v.status),
           cox_code_text(v.code), v.created_wall_ms, v.finished_wall_ms, v.cpu_us);
    print_text("message", v.message);
    print_payload(&v.outputs);
    print_usage(&v.usage);
    printf("\n");
    for (uint32_t i = 0; i < v.image->n_steps; i++)
        print_step(e, t, i);
}

static int by_id(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* Each task's id stands in its own records; other records have other numbers there, or the same again. */
static void print_live(const struct golden *g, const struct cox_engine *e)
{
    struct cox_buf ids = { 0 };
    struct cox_reader r = reader_at(g, g->batches_at);
    for (uint32_t i = 0; i < g->n_batches; i++) {
        struct cox_reader in = cox_reader(next_batch(&r).bytes);
        while (cox_reader_left(&in) > 0) {
            (void)cox_get_u8(&in);
            struct cox_reader body = cox_reader(cox_get_raw(&in, cox_get_u32(&in)));
            uint64_t id = cox_get_u64(&body);
            cox_buf_append(&ids, &id, sizeof id);
        }
    }
    uint64_t *list = (uint64_t *)(void *)ids.data, before = 0;
    size_t n = ids.len / sizeof *list;
    if (n > 0)
        qsort(list, n, sizeof *list, by_id);
    for (size_t i = 0; i < n; before = list[i++]) {
        const struct cox_task *t = list[i] != before ? cox_engine_find(e, list[i]) : NULL;
        if (t != NULL)
            print_task("live", e, t);
    }
    cox_buf_fini(&ids);
}

static void print_archive(const struct golden *g)
{
    struct cox_reader r = reader_at(g, g->rows_at);
    for (uint32_t i = 0; i < g->n_rows; i++) {
        struct row row = next_row(&r);
        struct cox_task *t;
        if (row.key.kind != ROW_ARCHIVE)
            continue;
        if (cox_task_thaw(row.bytes, &t) != COX_OK)
            give_up("an archived task cannot be read");
        print_task("archived", NULL, t);
        cox_task_free(t);
    }
}

int main(int argc, char **argv)
{
    struct golden g = { 0 };
    struct cox_effects fx = { 0 };
    if (argc != 2)
        give_up("usage: cox-golden FILE");
    open_golden(&g, argv[1]);
    struct cox_engine *genesis = rebuild(&g, false), *e = rebuild(&g, true);
    if (cox_engine_hash(genesis) != cox_engine_hash(e))
        give_up("checkpoint and tail make another state than all records");
    cox_engine_destroy(genesis);
    if (cox_engine_recovered(e, (struct cox_now){ 1, NOW_WALL_MS }, g.last_seq, &fx) != COX_OK)
        give_up("the state does not fit together");
    cox_engine_check(e);
    printf("records %" PRIu64 ", cut %" PRIu64 "\n", g.last_seq, g.cut_seq);
    print_live(&g, e);
    print_archive(&g);
    cox_engine_destroy(e);
    cox_effects_fini(&fx);
    cox_buf_fini(&g.file);
    return 0;
}
