/* Logs of running attempts, from their worker to whoever reads them.
 *
 * A worker sends an attempt's log once, from its beginning, however many read it here. What came is kept
 * while somebody reads, so that another reader is given the same; beyond a bound only the worker has it all,
 * and then it is asked to begin anew, for all of them. */
#include "session.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/limits.h"

#include <string.h>

struct relay_piece {
    struct cox_list node;
    Coxswain__V1__LogStream stream;
    size_t len;
    uint8_t data[];
};

struct relay {
    struct cox_list node; /* of its session's */
    struct cox_ref ref;
    struct cox_list readers;
    struct cox_list pieces; /* all that came */
    size_t len;             /* of them, overhead included */
    bool whole;             /* they are all that its worker has */
    bool relaying;          /* readers are being told */
};

static struct relay *relay_find(const struct cox_session *s, struct cox_ref ref)
{
    for (const struct cox_list *it = s->relays.next; it != &s->relays; it = it->next) {
        struct relay *x = (struct relay *)(uintptr_t)it; /* node is first */

        if (cox_token_eq(x->ref.token, ref.token))
            return x;
    }
    return NULL;
}

static void forget_pieces(struct cox_fleet *f, struct relay *x)
{
    COX_LIST_FOR_EACH (it, &x->pieces) {
        cox_list_remove(it);
        cox_free(COX_CONTAINER_OF(it, struct relay_piece, node));
    }
    f->relayed_len -= x->len;
    x->len = 0;
    x->whole = false;
}

static struct relay *relay_create(struct cox_session *s, struct cox_ref ref)
{
    struct relay *x = COX_NEW(struct relay);

    x->ref = ref;
    x->whole = true;
    cox_list_init(&x->node);
    cox_list_init(&x->readers);
    cox_list_init(&x->pieces);
    cox_list_push_back(&s->relays, &x->node);
    return x;
}

static void relay_destroy(struct cox_fleet *f, struct relay *x)
{
    forget_pieces(f, x);
    cox_list_remove(&x->node);
    cox_free(x);
}

/* From a reset on comes the beginning again, or the oldest that its worker still has. */
static void keep_piece(struct cox_fleet *f, struct relay *x, const Coxswain__V1__LogChunk *m)
{
    size_t cost = sizeof(struct relay_piece) + m->data.len;

    if (m->reset) {
        forget_pieces(f, x);
        x->whole = !COX_PLANTED("relay-never-whole-again");
    }
    if (x->len + cost > COX_RELAY_LEN_MAX || f->relayed_len + cost > COX_RELAYS_LEN_MAX)
        forget_pieces(f, x);
    if (!x->whole || m->data.len == 0)
        return;
    struct relay_piece *p = cox_alloc(cost);

    p->stream = m->stream;
    p->len = m->data.len;
    memcpy(p->data, m->data.data, m->data.len);
    cox_list_push_back(&x->pieces, &p->node);
    x->len += cost;
    f->relayed_len += cost;
}

/* ---- from the worker ---- */

/* A reader that is told may leave; it must not start or stop another. */
void cox_session_relay(struct cox_session *s, const Coxswain__V1__LogChunk *m)
{
    struct cox_ref ref;
    struct relay *x = cox_ref_read(m->ref, &ref) ? relay_find(s, ref) : NULL;

    if (!x)
        return;
    keep_piece(s->fleet, x, m);
    x->relaying = true;
    COX_LIST_FOR_EACH (it, &x->readers) {
        struct cox_log_reader *r = COX_CONTAINER_OF(it, struct cox_log_reader, node);

        if (r->waits && !m->reset && !m->end)
            continue; /* it was on its way before the worker heard that it is to begin anew */
        r->waits = false;
        if (m->end) {
            cox_list_remove(&r->node);
            r->session = 0;
        }
        r->on_chunk(r, m);
    }
    x->relaying = false;
    if (m->end || cox_list_empty(&x->readers)) {
        if (!m->end && !s->dead)
            cox_session_want_log(s, &x->ref, false);
        relay_destroy(s->fleet, x);
    }
}

void cox_session_relays_end(struct cox_session *s)
{
    while (!cox_list_empty(&s->relays)) {
        struct relay *x = COX_CONTAINER_OF(s->relays.next, struct relay, node);

        while (!cox_list_empty(&x->readers)) {
            struct cox_log_reader *r = COX_CONTAINER_OF(x->readers.next, struct cox_log_reader, node);
            cox_list_remove(&r->node);
            r->session = 0;
            r->on_chunk(r, NULL);
        }
        relay_destroy(s->fleet, x);
    }
}

/* ---- to readers ---- */

static void show_pieces(const struct relay *x, struct cox_log_reader *r)
{
    Coxswain__V1__LogChunk chunk = COXSWAIN__V1__LOG_CHUNK__INIT;

    for (const struct cox_list *it = x->pieces.next; it != &x->pieces && r->session; it = it->next) {
        const struct relay_piece *p = (const struct relay_piece *)(const void *)it; /* node is first */

        chunk.stream = p->stream;
        chunk.data.data = (uint8_t *)(uintptr_t)p->data; /* only read */
        chunk.data.len = p->len;
        r->on_chunk(r, &chunk);
    }
}

/* Its first piece will say `reset`, so that those who read it already forget what they have. */
static void begin_anew(struct cox_session *s, struct relay *x)
{
    cox_session_want_log(s, &x->ref, false);
    cox_session_want_log(s, &x->ref, true);
}

bool cox_fleet_log_start(struct cox_fleet *f, uint32_t session, struct cox_log_reader *r)
{
    struct cox_session *s = cox_session_find(f, session);

    if (!s || s->dead)
        return false;
    struct relay *x = relay_find(s, r->ref);
    bool is_first = x == NULL;

    r->waits = false;
    if (is_first) {
        x = relay_create(s, r->ref);
    } else if (!x->whole) {
        r->waits = true;
        begin_anew(s, x);
    }
    r->session = session;
    cox_list_push_back(&x->readers, &r->node);
    if (is_first)
        cox_session_want_log(s, &r->ref, true);
    else if (!COX_PLANTED("late-reader-misses")) {
        x->relaying = true;
        show_pieces(x, r);
        x->relaying = false;
    }
    return true;
}

void cox_fleet_log_stop(struct cox_fleet *f, struct cox_log_reader *r)
{
    struct cox_session *s = r->session ? cox_session_find(f, r->session) : NULL;
    struct relay *x = s ? relay_find(s, r->ref) : NULL;

    if (!s)
        return;
    cox_list_remove(&r->node);
    r->session = 0;
    if (!x || x->relaying || !cox_list_empty(&x->readers))
        return;
    relay_destroy(f, x);
    if (!s->dead)
        cox_session_want_log(s, &r->ref, false);
}
