/* The log and the state as they are after a crash, in a file that later versions must be able to read
 * (tests/golden says what is in it). */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_rows(struct cox_buf *b, const struct table *t)
{
    uint32_t n = 0;
    for (size_t i = 0; i < t->n; i++)
        n += t->rows[i].key.kind <= ROW_ARCHIVE;
    cox_put_u32(b, n);
    for (size_t i = 0; i < t->n; i++) {
        const struct row *r = &t->rows[i];
        if (r->key.kind > ROW_ARCHIVE)
            continue; /* a payload: recovery does not read it */
        cox_put_u8(b, r->key.kind);
        cox_put_u64(b, r->key.id);
        cox_put_u32(b, r->key.sub);
        cox_put_u64(b, r->seq);
        cox_put_bytes(b, cox_buf_slice(&r->bytes));
    }
}

void save_log(struct sim *s)
{
    const struct store *st = &s->store;
    if (s->opt.save_log == NULL || s->n.crashes != s->opt.save_crash)
        return;
    struct cox_buf b = { 0 };
    cox_buf_append_str(&b, "coxgold1");
    cox_put_u64(&b, st->durable_seq);
    cox_put_u64(&b, st->cut_seq);
    put_rows(&b, &st->live);
    cox_put_u32(&b, (uint32_t)st->n);
    for (size_t i = 0; i < st->n; i++) {
        cox_put_u64(&b, st->log[i].first_seq);
        cox_put_u32(&b, st->log[i].n);
        cox_put_bytes(&b, cox_buf_slice(&st->log[i].records));
    }
    FILE *f = fopen(s->opt.save_log, "wb");
    if (f == NULL || fwrite(b.data, 1, b.len, f) != b.len || fclose(f) != 0)
        fail(s, "%s cannot be written", s->opt.save_log);
    cox_buf_fini(&b);
    exit(0);
}
