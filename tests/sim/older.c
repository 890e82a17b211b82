/* Records and entities as earlier versions wrote them, wherever they had words for what is written: a shard
 * that is upgraded finds both kinds, in one log and under one checkpoint.
 *
 * A reader finds zeroes where an older body ends, so a body may be cut in front of fields that are zero, and
 * only there: what an older version could not say is written as it is today. */
#include "audit.h"

#include <string.h>

/* ---- records ---- */

/* Bytes at the end of a body that came later, when they say nothing. */
static size_t record_later_len(const struct record *r)
{
    switch (r->type) {
    case RECORD_FRAME_OPENED: /* the pins of its templates */
        return r->u.frame.pins.len == 0 ? sizeof(uint32_t) : 0;
    case RECORD_CONTINUED: /* what the steps it asked for have used */
        return r->u.continued.cpu_us == 0 ? sizeof(uint64_t) : 0;
    case RECORD_TASK_FORKED: /* what it is made of */
        return r->u.forked.from == 0 ? sizeof(uint64_t) : 0;
    default:
        return 0;
    }
}

void older_records(struct sim *s, struct cox_buf *records)
{
    struct cox_reader in = cox_reader(cox_buf_slice(records));
    struct cox_buf out = { 0 };
    struct record r;
    for (size_t at = 0; record_decode(&in, &r);) {
        size_t end = records->len - cox_reader_left(&in), cut = record_later_len(&r), len_at = out.len + 1;
        cox_buf_append(&out, records->data + at, end - at - cut);
        cox_set_u32(&out, len_at, (uint32_t)(end - at - cut - 5)); /* behind type and length */
        if (cut > 0)
            befell(s, KIND_OLD_RECORD);
        at = end;
    }
    cox_buf_fini(records);
    *records = out;
}

/* ---- entities: version 1 ended where expansion begins ---- */

enum { KIND_META = 1, KIND_WORKER, KIND_KEY, KIND_TASK, KIND_PAGE }; /* as the engine numbers them */
static const size_t later_len[] = {
    [KIND_META] = 16,  /* templates, schedules */
    [KIND_WORKER] = 1, /* cordoned */
    [KIND_KEY] = 0,
    [KIND_TASK] = 41, /* words and frame */
};

static bool zeroes_cut(struct cox_buf *b, size_t n)
{
    static const uint8_t zeroes[64];
    if (b->len <= n || memcmp(b->data + b->len - n, zeroes, n) != 0)
        return false;
    b->len -= n;
    return true;
}

static void keep(struct cox_buf *out, struct cox_reader *in, size_t len)
{
    struct cox_slice raw = cox_get_raw(in, len);
    cox_buf_append_slice(out, raw);
}

static void keep_text(struct cox_buf *out, struct cox_reader *in)
{
    cox_put_bytes(out, cox_get_bytes(in));
}

/* A step that something happened to. False: that has no place in version 1. */
static bool step_cut(struct cox_buf *out, struct cox_reader *in)
{
    struct cox_payload output;
    keep(out, in, 61);  /* token, times, worker, tries, codes */
    keep_text(out, in); /* message */
    payload_decode(in, &output);
    payload_encode(out, &output);
    if (cox_get_u8(in) != 0)
        return false; /* an expansion */
    uint32_t n = cox_get_u32(in);
    cox_put_u32(out, n);
    if (n > 0)
        keep(out, in, 8);
    for (uint32_t i = 0; i < n && !in->bad; i++) {
        keep(out, in, 32);
        keep_text(out, in);
        keep(out, in, 8);
        if (cox_get_u64(in) != 0)
            return false; /* of a frame */
    }
    return true;
}

static bool page_cut(struct cox_buf *b)
{
    struct cox_reader in = cox_reader(cox_buf_slice(b));
    struct cox_buf out = { 0 };
    bool ok = true;
    keep(&out, &in, 1 + 4);
    while (ok && cox_reader_left(&in) > 0) {
        uint8_t touched = cox_get_u8(&in);
        cox_put_u8(&out, touched);
        keep(&out, &in, 1 + 1 + 4);
        ok = !in.bad && (touched == 0 || step_cut(&out, &in));
    }
    if (ok && !in.bad) {
        cox_buf_fini(b);
        *b = out;
        return true;
    }
    cox_buf_fini(&out);
    return false;
}

void older_entity(struct sim *s, uint8_t kind, struct cox_buf *bytes)
{
    bool cut = kind == KIND_PAGE ? page_cut(bytes) : kind < KIND_PAGE && zeroes_cut(bytes, later_len[kind]);
    if (!cut)
        return;
    bytes->data[0] = 1;
    befell(s, KIND_OLD_RECORD);
}
