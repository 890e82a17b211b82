#include "sse.h"

#include "cox/base/plant.h"

#include <string.h>

void sse_fini(struct sse *s)
{
    cox_buf_fini(&s->line);
    cox_buf_fini(&s->data);
}

/* A piece, and what is known of it: line ends are looked for once, however the piece is made. */
struct feed {
    struct sse *s;
    const uint8_t *p, *end;
    const uint8_t *lf, *cr; /* the next at or behind p; `end` when there is none */
    struct cox_slice only;  /* the one line of data so far, in the piece; data NULL: none, or in s->data */
};

static const uint8_t *find(const uint8_t *known, const uint8_t *p, const uint8_t *end, int c)
{
    if (known >= p)
        return known;
    known = memchr(p, c, (size_t)(end - p));
    return known ? known : end;
}

static void keep(struct feed *f)
{
    if (!f->only.data)
        return;
    cox_buf_append_slice(&f->s->data, f->only);
    cox_put_u8(&f->s->data, '\n');
    f->only.data = NULL;
}

/* The value of a field `data`; NULL when the line is another field or a comment. */
static const uint8_t *data_of(struct cox_slice line, size_t *ret_len)
{
    const uint8_t *value = line.data + 4;

    if (line.len < 4 || memcmp(line.data, "data", 4) != 0 || (line.len > 4 && line.data[4] != ':'))
        return NULL;
    if (line.len > 4)
        value += line.len > 5 && line.data[5] == ' ' ? 2 : 1;
    *ret_len = (size_t)(line.data + line.len - value);
    return value;
}

/* A line that is not empty. `in_piece`: it can be referred to until the feed ends. */
static void take_field(struct feed *f, struct cox_slice line, bool in_piece)
{
    size_t len;
    const uint8_t *value = data_of(line, &len);

    if (!value)
        return;
    keep(f);
    f->only = cox_slice(value, len);
    if (!in_piece || f->s->data.len > 0)
        keep(f);
}

/* An empty line: an event, unless no data came. False: stop. */
static bool dispatch(struct feed *f, const uint8_t *start, sse_on_event *on_event, void *user)
{
    struct sse *s = f->s;
    struct cox_slice data = f->only;
    bool more;

    if (!data.data && s->data.len == 0)
        return true;
    if (!data.data)
        data = cox_slice(s->data.data, s->data.len - 1);
    f->only.data = NULL;
    s->n_events++;
    more = on_event(user, data, (size_t)(f->p - start));
    cox_buf_clear(&s->data);
    return more;
}

static struct cox_slice without_mark(struct sse *s, struct cox_slice line)
{
    bool has = !s->begun && line.len >= 3 && memcmp(line.data, "\xef\xbb\xbf", 3) == 0;

    s->begun = true;
    return has ? cox_slice(line.data + 3, line.len - 3) : line;
}

/* The line that ends at `at`, with p behind its end. False: stop. */
static bool take_line(struct feed *f, const uint8_t *start, const uint8_t *at, sse_on_event *on_event,
                      void *user)
{
    struct sse *s = f->s;
    struct cox_slice line = cox_slice(f->p, (size_t)(at - f->p));
    bool in_piece = s->line.len == 0, more = true;

    if (!in_piece) {
        cox_buf_append_slice(&s->line, line);
        line = cox_buf_slice(&s->line);
    }
    f->p = at + 1;
    if (*at == '\r') {
        s->cr = f->p == f->end && !COX_PLANTED("sse-cut-line-end");
        if (!s->cr && *f->p == '\n')
            f->p++;
    }
    line = without_mark(s, line);
    if (line.len == 0)
        more = dispatch(f, start, on_event, user);
    else
        take_field(f, line, in_piece);
    cox_buf_clear(&s->line);
    return more;
}

enum cox_err sse_feed(struct sse *s, struct cox_slice piece, sse_on_event *on_event, void *user)
{
    struct feed f = { .s = s, .p = piece.data };

    if (piece.len == 0)
        return COX_OK;
    f.end = piece.data + piece.len;
    if (s->cr && *f.p == '\n')
        f.p++;
    s->cr = false;
    while (f.p < f.end) {
        const uint8_t *at;

        f.lf = find(f.lf, f.p, f.end, '\n');
        f.cr = find(f.cr, f.p, f.end, '\r');
        at = f.lf < f.cr ? f.lf : f.cr;
        if (s->line.len + s->data.len + f.only.len + (size_t)(at - f.p) > SSE_EVENT_LEN_MAX)
            return COX_ERR_FULL;
        if (at == f.end) {
            cox_buf_append(&s->line, f.p, (size_t)(f.end - f.p));
            break;
        }
        if (!take_line(&f, piece.data, at, on_event, user))
            return COX_OK;
    }
    keep(&f);
    return COX_OK;
}
