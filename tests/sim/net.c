/* Streams between hosts and coxd: in order, never twice, and broken at any moment. What is under way when a
 * stream breaks is lost in both directions; each side learns of it in its own time, or not before it asks. */
#include "sim.h"

#include <string.h>

/* ---- messages ---- */

struct message *message_new(void)
{
    struct message *m = COX_NEW(struct message);
    cox_list_init(&m->node);
    return m;
}

void message_free(struct message *m)
{
    if (m == NULL)
        return;
    if (m->in_inbox && m->stream != NULL)
        m->stream->n_inbox--;
    cox_list_remove(&m->node);
    cox_arena_fini(&m->arena);
    cox_free(m->items);
    cox_free(m);
}

struct item *message_add(struct message *m, enum item_kind kind)
{
    if (m->n == m->cap) {
        m->cap = m->cap == 0 ? 8 : m->cap * 2;
        m->items = cox_realloc(m->items, m->cap, sizeof m->items[0]);
    }
    struct item *it = &m->items[m->n++];
    *it = (struct item){ .kind = kind };
    return it;
}

struct cox_slice message_keep(struct message *m, struct cox_slice s)
{
    return cox_slice(cox_arena_dup(&m->arena, s.data, s.len), s.len);
}

struct cox_agent_result message_keep_result(struct message *m, const struct cox_agent_result *r)
{
    struct cox_agent_result kept = *r;
    struct cox_agent_item_result *items = cox_arena_dup(&m->arena, r->items, r->n_items * sizeof r->items[0]);
    kept.message = message_keep(m, r->message);
    kept.output = message_keep(m, r->output);
    kept.files.packs = cox_arena_dup(&m->arena, r->files.packs, r->files.n_packs * sizeof r->files.packs[0]);
    kept.continuation_json = message_keep(m, r->continuation_json);
    for (size_t i = 0; i < r->n_items; i++) {
        items[i].message = message_keep(m, r->items[i].message);
        items[i].output = message_keep(m, r->items[i].output);
    }
    kept.items = items;
    return kept;
}

static void messages_free(struct cox_list *list)
{
    while (!cox_list_empty(list))
        message_free(COX_CONTAINER_OF(list->next, struct message, node));
}

/* ---- delivery ---- */

static bool cut_off(const struct sim *s, const struct stream *st)
{
    return st->host->cut_off_until_ns > s->now_ns;
}

/* The head of a direction when it is due; else the event is set for when it will be. */
static struct message *head_due(struct sim *s, struct stream *st, struct cox_list *list, struct event *ev)
{
    if (st->broken || cox_list_empty(list))
        return NULL;
    struct message *m = COX_CONTAINER_OF(list->next, struct message, node);
    int64_t due_ns = m->due_ns;
    if (cut_off(s, st))
        due_ns = st->host->cut_off_until_ns + between(s, 0, 200 * MS); /* sent again until it gets through */
    if (due_ns > s->now_ns) {
        event_at(s, ev, due_ns);
        return NULL;
    }
    cox_list_remove(&m->node);
    return m;
}

static void coxd_hears(struct sim *s, struct stream *st, struct message *m)
{
    if (!s->coxd.up || st->coxd_over) {
        message_free(m);
        return;
    }
    s->n.reordered += m->sent < s->last_heard;
    s->last_heard = m->sent > s->last_heard ? m->sent : s->last_heard;
    m->in_inbox = true;
    st->n_inbox++;
    cox_list_push_back(&s->coxd.inbox, &m->node);
    coxd_poke(s);
}

static void up_arrives(struct sim *s, struct event *ev)
{
    struct stream *st = COX_CONTAINER_OF(ev, struct stream, up_ev);
    struct message *m;
    while ((m = head_due(s, st, &st->up, ev)) != NULL)
        coxd_hears(s, st, m);
}

static bool host_sleeps(struct sim *s, struct stream *st, struct event *ev)
{
    if (st->host->paused_until_ns <= s->now_ns)
        return false;
    event_at(s, ev, st->host->paused_until_ns);
    return true;
}

static bool current(const struct stream *st)
{
    return st->host->up && st->host->stream == st && !st->host_over;
}

static void host_over(struct sim *s, struct stream *st, bool superseded)
{
    if (!current(st))
        return;
    st->host_over = true;
    st->host->stream = NULL;
    trace(s, "%s: stream %u is over%s", st->host->id, st->session, superseded ? ", superseded" : "");
    struct cox_agent_input in = { .kind = COX_AGENT_STREAM_CLOSED };
    in.u.closed.superseded = superseded;
    host_input(s, st->host, &in);
}

static void host_hears(struct sim *s, struct stream *st, const struct item *it)
{
    struct cox_agent_input in = { .kind = COX_AGENT_TURN };
    in.u.ref = it->ref;
    switch (it->kind) {
    case ITEM_WELCOME:
        in.kind = COX_AGENT_WELCOME;
        in.u.welcome.shard_uid = it->number;
        in.u.welcome.beat_ms = COX_BEAT_MS;
        in.u.welcome.lost_ms = COX_LOST_MS;
        break;
    case ITEM_ANSWER:
        in.kind = COX_AGENT_ANSWER;
        break;
    case ITEM_CANCEL:
        in.kind = COX_AGENT_CANCEL;
        break;
    case ITEM_ASSIGN:
        in.kind = COX_AGENT_ASSIGN;
        in.u.assign = it->assign;
        break;
    case ITEM_DRAIN:
        in.kind = COX_AGENT_DRAIN;
        break;
    case ITEM_RECONNECT:
        in.kind = COX_AGENT_RECONNECT;
        break;
    case ITEM_END:
        host_over(s, st, it->number != 0);
        return;
    default:
        fail(s, "the simulator sends item %d down", (int)it->kind);
    }
    host_input(s, st->host, &in);
}

static void down_arrives(struct sim *s, struct event *ev)
{
    struct stream *st = COX_CONTAINER_OF(ev, struct stream, down_ev);
    struct message *m;
    if (host_sleeps(s, st, ev))
        return;
    while ((m = head_due(s, st, &st->down, ev)) != NULL) {
        for (size_t i = 0; i < m->n && current(st); i++)
            host_hears(s, st, &m->items[i]);
        message_free(m);
    }
}

static void send(struct sim *s, struct stream *st, struct cox_list *list, struct event *ev, struct message *m)
{
    int64_t due_ns = s->now_ns + latency(s, s->cfg.net_ns);
    s->n.messages++;
    m->stream = st;
    if (st->broken) {
        s->n.lost_messages++;
        message_free(m);
        return;
    }
    if (!cox_list_empty(list)) { /* in order */
        const struct message *last = COX_CONTAINER_OF(list->prev, struct message, node);
        due_ns = last->due_ns > due_ns ? last->due_ns : due_ns;
    }
    m->due_ns = due_ns;
    cox_list_push_back(list, &m->node);
    if (list->next == &m->node)
        event_at(s, ev, due_ns);
}

void stream_send_up(struct sim *s, struct stream *st, struct message *m)
{
    m->sent = ++s->n_sent;
    send(s, st, &st->up, &st->up_ev, m);
}

void stream_send_down(struct sim *s, struct stream *st, struct message *m)
{
    send(s, st, &st->down, &st->down_ev, m);
}

/* ---- ends ---- */

static void host_end(struct sim *s, struct event *ev)
{
    struct stream *st = COX_CONTAINER_OF(ev, struct stream, host_end);
    if (!host_sleeps(s, st, ev))
        host_over(s, st, false);
}

/* coxd learns of an end as it learns of everything: after what was said before. */
static void coxd_end(struct sim *s, struct event *ev)
{
    struct stream *st = COX_CONTAINER_OF(ev, struct stream, coxd_end);
    struct message *m = message_new();
    m->stream = st;
    m->sent = ++s->n_sent;
    message_add(m, ITEM_END);
    coxd_hears(s, st, m);
}

void stream_break(struct sim *s, struct stream *st, int64_t host_delay_ns, int64_t coxd_delay_ns)
{
    if (!st->broken) {
        s->n.breaks++;
        st->broken = true;
        messages_free(&st->up);
        messages_free(&st->down);
        event_cancel(s, &st->up_ev);
        event_cancel(s, &st->down_ev);
        event_cancel(s, &st->open_ev);
    }
    if (host_delay_ns != INT64_MAX)
        event_soon(s, &st->host_end, s->now_ns + host_delay_ns);
    if (coxd_delay_ns != INT64_MAX)
        event_soon(s, &st->coxd_end, s->now_ns + coxd_delay_ns);
}

void stream_hang_up(struct sim *s, struct stream *st)
{
    if (!st->open || st->broken) {
        stream_break(s, st, latency(s, s->cfg.net_ns), st->open ? between(s, 0, 12 * SECOND) : INT64_MAX);
        return;
    }
    struct message *m = message_new();
    message_add(m, ITEM_END);
    stream_send_up(s, st, m);
    event_soon(s, &st->host_end, s->now_ns + latency(s, s->cfg.net_ns));
}

static void opens(struct sim *s, struct event *ev)
{
    struct stream *st = COX_CONTAINER_OF(ev, struct stream, open_ev);
    if (host_sleeps(s, st, ev))
        return;
    if (cut_off(s, st)) {
        event_at(s, ev, st->host->cut_off_until_ns);
        return;
    }
    if (!s->coxd.up || !s->coxd.listening || s->coxd.leaving) {
        stream_break(s, st, 0, INT64_MAX);
        return;
    }
    st->open = true;
    st->heard_ns = s->now_ns;
    if (current(st))
        host_input(s, st->host, &(struct cox_agent_input){ .kind = COX_AGENT_STREAM_OPEN });
}

struct stream *stream_dial(struct sim *s, struct host *h)
{
    struct stream *st = COX_NEW(struct stream);
    st->host = h;
    st->boot = h->boot;
    cox_list_init(&st->up);
    cox_list_init(&st->down);
    event_init(&st->up_ev, up_arrives);
    event_init(&st->down_ev, down_arrives);
    event_init(&st->open_ev, opens);
    event_init(&st->host_end, host_end);
    event_init(&st->coxd_end, coxd_end);
    cox_list_push_back(&s->streams, &st->node);
    event_at(s, &st->open_ev, s->now_ns + 2 * latency(s, s->cfg.net_ns));
    return st;
}

void stream_free(struct stream *st)
{
    cox_list_remove(&st->node);
    messages_free(&st->up);
    messages_free(&st->down);
    message_free(st->out);
    cox_free(st);
}

void streams_free(struct sim *s)
{
    while (!cox_list_empty(&s->streams))
        stream_free(COX_CONTAINER_OF(s->streams.next, struct stream, node));
}
