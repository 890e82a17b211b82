/* The stream to the engine and the turns of the agent. Whatever happens only changes state and asks for a
 * turn, which comes from the loop: so nothing here runs inside of the router or of the port, and what happens
 * together leaves as one message. */
#include "steps_internal.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/units.h"
#include "cox/wire.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define ROOM_LEN ((size_t)4 << 20) /* under way to the engine; what is more waits here */
#define ENDED_MAX 512u             /* a turn: the agent bounds how many ends of logs it keeps */
#define PROGRAMS_MAX 65536u /* tasks whose end is waited for; beyond, the longest unused is told ended */

struct step_program {
    struct cox_list node;
    struct cox_buf id, tenant;
};

/* The text of an attempt that has ended, until it is sent. */
struct last_words {
    struct cox_list node;
    struct cox_ref ref;
    struct cox_buf text;
    size_t from;
    bool anew;
};

void steps_stir(struct steps *s)
{
    const struct timeval now = { 0, 0 };

    if (!s->in_turn)
        event_add(s->turn, &now);
}

/* ---- programs ---- */

static void program_end(struct steps *s, struct step_program *p)
{
    router_program_end(s->config.router, cox_buf_slice(&p->tenant), cox_buf_slice(&p->id));
    cox_mapb_remove(&s->programs, cox_buf_slice(&p->id));
    cox_list_remove(&p->node);
    cox_buf_fini(&p->id);
    cox_buf_fini(&p->tenant);
    cox_free(p);
}

/* Who says that a task has ended, or will call again, names no tenant. */
static void program_note(struct steps *s, const struct cox_agent_assign *as)
{
    struct step_program *p = cox_mapb_get(&s->programs, as->task_id);

    if (!p) {
        if (s->programs.len >= PROGRAMS_MAX)
            program_end(s, COX_CONTAINER_OF(s->program_list.next, struct step_program, node));
        p = COX_NEW(struct step_program);
        cox_list_init(&p->node);
        cox_buf_append_slice(&p->id, as->task_id);
        cox_buf_append_slice(&p->tenant, as->tenant.len > 0 ? as->tenant : cox_slice_str("default"));
        cox_mapb_set(&s->programs, as->task_id, p);
    }
    cox_list_remove(&p->node);
    cox_list_push_back(&s->program_list, &p->node);
}

static void on_released(struct steps *s, const char *task_id)
{
    struct step_program *p = cox_mapb_get(&s->programs, cox_slice_str(task_id));

    if (p)
        program_end(s, p);
}

static void on_expect(struct steps *s, const Coxswain__V1__Expect *m)
{
    struct step_program *p = cox_mapb_get(&s->programs, cox_slice_str(m->task_id));

    if (p && m->in_ms <= INT64_MAX)
        router_expect(s->config.router, cox_buf_slice(&p->tenant), cox_buf_slice(&p->id), (int64_t)m->in_ms);
}

/* ---- the agent ---- */

static void watch_text(struct steps *s, struct step_call *c, bool wanted)
{
    c->log_wanted = wanted;
    c->log_anew = c->log_anew || c->log_sent_len > 0;
    c->log_sent_len = 0;
    cox_list_remove(&c->chatty);
    if (wanted)
        cox_list_push_back(&s->chatty, &c->chatty);
}

static void start(struct steps *s, const struct cox_agent_action *act)
{
    COX_ASSERT(!s->slots[act->slot]);
    program_note(s, act->u.assign);
    s->slots[act->slot] = step_call_start(s, act->slot, act->u.assign);
}

/* Does what cannot wait for the turn's end. Actions that send exist only at that end. */
static void act(struct steps *s)
{
    for (size_t i = 0; i < s->actions.len; i++) {
        const struct cox_agent_action *a = &s->actions.items[i];

        if (a->kind == COX_AGENT_START)
            start(s, a);
        else if (a->kind == COX_AGENT_KILL)
            step_call_kill(s->slots[a->slot]);
        else if (a->kind == COX_AGENT_LOG)
            watch_text(s, s->slots[a->slot], a->wanted);
    }
    s->actions.len = 0;
}

static void feed(void *user, struct cox_agent_input *in)
{
    struct steps *s = user;

    in->now_mono_ns = cox_clock_mono_ns();
    cox_agent_step(s->agent, in, &s->actions);
    if (in->kind != COX_AGENT_TURN)
        act(s);
}

/* ---- what the turn says ---- */

static void keep_last_words(struct steps *s, struct step_call *c)
{
    if (!c->log_wanted || c->answer.text.len <= c->log_sent_len)
        return;
    struct last_words *w = COX_NEW(struct last_words);

    w->ref = c->assign->ref;
    w->text = c->answer.text;
    w->from = c->log_sent_len;
    w->anew = c->log_anew;
    c->answer.text = (struct cox_buf){ 0 };
    cox_list_init(&w->node);
    cox_list_push_back(&s->released, &w->node);
}

static void take_ended(struct steps *s)
{
    for (unsigned n = 0; n < ENDED_MAX && !cox_list_empty(&s->ended); n++) {
        struct step_call *c = COX_CONTAINER_OF(s->ended.next, struct step_call, node);
        struct cox_agent_input in = { .kind = COX_AGENT_SLOT_ENDED,
                                      .u.ended = { c->slot, step_call_result(c) } };

        cox_list_remove(&c->node);
        keep_last_words(s, c);
        s->slots[c->slot] = NULL;
        feed(s, &in);
        step_call_destroy(c);
    }
}

static void stop_spoilt(struct steps *s)
{
    while (!cox_list_empty(&s->spoilt)) {
        struct step_call *c = COX_CONTAINER_OF(s->spoilt.next, struct step_call, node);

        cox_list_remove(&c->node);
        if (c->call)
            router_cancel(c->call);
    }
}

/* At most so many bytes, and no part of a character. */
static size_t cut(struct cox_slice text)
{
    size_t len = text.len < COX_ATTACH_LOG_LEN_MAX ? text.len : COX_ATTACH_LOG_LEN_MAX;

    while (len < text.len && len > 0 && (text.data[len] & 0xc0) == 0x80)
        len--;
    return len;
}

struct pieces {
    struct cox_attach_log *items;
    size_t len, cap;
    size_t n_bytes;
};

static size_t put_pieces(struct pieces *p, struct cox_ref ref, struct cox_slice text, size_t from, bool anew,
                         size_t room_len)
{
    while (from < text.len && p->n_bytes < room_len) {
        struct cox_slice rest = cox_slice(text.data + from, text.len - from);
        size_t len = cut(rest);

        if (p->len == p->cap) {
            p->cap = p->cap ? p->cap * 2 : 64;
            p->items = cox_realloc(p->items, p->cap, sizeof(*p->items));
        }
        p->items[p->len++] = (struct cox_attach_log){ ref, COXSWAIN__V1__LOG_STREAM__LOG_STREAM_TOKENS,
                                                      cox_slice(rest.data, len), anew };
        p->n_bytes += len + 64;
        from += len;
        anew = false;
    }
    return from;
}

/* What there is no room for stays, and is sent once the engine has taken what is under way: nothing is lost
 * on the way to it. */
static void collect(struct steps *s, struct pieces *p, size_t room_len)
{
    for (struct cox_list *it = s->released.next; it != &s->released; it = it->next) {
        struct last_words *w = COX_CONTAINER_OF(it, struct last_words, node);

        (void)put_pieces(p, w->ref, cox_buf_slice(&w->text), w->from, w->anew, SIZE_MAX);
    }
    COX_LIST_FOR_EACH (it, &s->chatty) {
        struct step_call *c = COX_CONTAINER_OF(it, struct step_call, chatty);
        size_t before = c->log_sent_len;

        c->log_sent_len =
            put_pieces(p, c->assign->ref, cox_buf_slice(&c->answer.text), before, c->log_anew, room_len);
        if (c->log_sent_len > before)
            c->log_anew = false;
        if (c->log_sent_len == c->answer.text.len)
            cox_list_remove(it);
    }
}

static void forget_last_words(struct steps *s)
{
    while (!cox_list_empty(&s->released)) {
        struct last_words *w = COX_CONTAINER_OF(s->released.next, struct last_words, node);

        cox_list_remove(&w->node);
        cox_buf_fini(&w->text);
        cox_free(w);
    }
}

static struct cox_attach_spend spend_of(const struct attempts_spend *from)
{
    struct cox_attach_spend m = { .ref = from->ref,
                                  .usage = { .model_calls = from->n_calls,
                                             .input_tokens = from->input_tokens,
                                             .output_tokens = from->output_tokens,
                                             .cached_input_tokens = from->cached_tokens,
                                             .wasted_tokens = from->wasted_tokens,
                                             .cost_micros = from->cost_micros },
                                  .n_ended = from->n_ended,
                                  .released = from->released.reserved,
                                  .released_guess = from->released.guessed };

    memcpy(m.usage.currency, from->currency, sizeof(m.usage.currency));
    return m;
}

/* In the arena. Without a stream they stay where they are. */
static const struct cox_attach_spend *take_spends(struct steps *s, size_t *ret_n)
{
    struct cox_attach_spend *all = NULL;
    struct attempts_spend spend;
    size_t cap = 0;

    *ret_n = 0;
    while (s->config.attempts && s->welcomed && attempts_take(s->config.attempts, &spend)) {
        if (*ret_n == cap) {
            struct cox_attach_spend *larger =
                cox_arena_alloc(&s->arena, (cap ? cap * 2 : 16) * sizeof(*larger));

            if (cap > 0)
                memcpy(larger, all, cap * sizeof(*larger));
            cap = cap ? cap * 2 : 16;
            all = larger;
        }
        all[(*ret_n)++] = spend_of(&spend);
    }
    return all;
}

static void send_all(struct steps *s, const struct pieces *p)
{
    static const char *const handlers[] = { "model" };
    static const struct cox_attach_label labels[] = { { "role", "router" } };
    const struct cox_attach_who who = { .worker_id = COX_ATTACH_ROUTER_ID,
                                        .boot_id = s->boot_id,
                                        .version = s->config.version,
                                        .slots = s->config.slots,
                                        .labels = labels,
                                        .n_labels = 1,
                                        .handlers = handlers,
                                        .n_handlers = 1 };
    struct cox_attach_turn turn = {
        .acts = s->actions.items, .n_acts = s->actions.len, .logs = p->items, .n_logs = p->len
    };

    turn.spends = take_spends(s, &turn.n_spends);
    Coxswain__V1__AttachRequest *m = cox_attach_pack(&s->arena, &who, &turn);

    if (m && s->is_open) {
        struct cox_buf packed = { 0 };

        coxswain__v1__attach_request__pack(
            m, cox_buf_extend(&packed, coxswain__v1__attach_request__get_packed_size(m)));
        s->unread_len += packed.len;
        s->config.port->send(s->config.port_user, cox_buf_slice(&packed));
        cox_buf_fini(&packed);
    }
    cox_arena_reset(&s->arena);
}

static void hang_up(struct steps *s, const char *why)
{
    if (!s->is_open)
        return;
    cox_log(COX_LOG_WARN, "the router leaves its stream to the engine", "why", why, NULL);
    s->config.port->close(s->config.port_user);
}

/* The rest of a turn's actions. Each may change the agent, so they are copied first. */
static void steer(struct steps *s)
{
    struct cox_agent_action wishes[2];
    size_t n = 0;

    for (size_t i = 0; i < s->actions.len && n < 2; i++)
        if (s->actions.items[i].kind >= COX_AGENT_DIAL)
            wishes[n++] = s->actions.items[i];
    act(s);
    for (size_t i = 0; i < n; i++) {
        if (wishes[i].kind == COX_AGENT_HANG_UP) {
            hang_up(s, wishes[i].u.why);
        } else if (wishes[i].kind == COX_AGENT_EXIT) {
            s->leaves = true;
        } else if (wishes[i].kind == COX_AGENT_DIAL) {
            s->is_open = true;
            s->unread_len = 0;
            s->config.port->open(s->config.port_user);
            feed(s, &(struct cox_agent_input){ .kind = COX_AGENT_STREAM_OPEN });
            steps_stir(s);
        }
    }
}

/* Who calls from a step's process has his answer, and the engine is to hear what that used. */
static void mind_leaving(struct steps *s)
{
    if (!s->leaves || (s->config.attempts && attempts_any(s->config.attempts)))
        return;
    s->leaves = false;
    if (s->is_open)
        s->config.port->close(s->config.port_user);
}

static void wait_for(struct steps *s, int64_t wake_ns)
{
    int64_t left_ns = wake_ns - cox_clock_mono_ns();
    int64_t us = left_ns > 0 ? left_ns / 1000 + 1 : 0;
    const struct timeval tv = { (time_t)(us / 1000000), (suseconds_t)(us % 1000000) };

    if (!cox_list_empty(&s->ended) || !cox_list_empty(&s->spoilt))
        steps_stir(s);
    else if (wake_ns != INT64_MAX && !event_pending(s->turn, EV_TIMEOUT, NULL))
        event_add(s->turn, &tv);
}

static void on_turn(int fd, short what, void *arg)
{
    struct steps *s = arg;
    struct pieces pieces = { 0 };
    size_t room_len = s->unread_len < ROOM_LEN ? ROOM_LEN - s->unread_len : 0;

    (void)fd, (void)what;
    s->in_turn = true;
    stop_spoilt(s);
    take_ended(s);
    if (s->welcomed)
        collect(s, &pieces, room_len);
    feed(s, &(struct cox_agent_input){ .kind = COX_AGENT_TURN, .u.turn.room_len = room_len });
    send_all(s, &pieces);
    forget_last_words(s);
    cox_free(pieces.items);
    s->in_turn = false;
    steer(s);
    mind_leaving(s);
    wait_for(s, cox_agent_wake_ns(s->agent));
}

/* ---- from the port ---- */

void steps_on_message(struct steps *s, struct cox_slice packed)
{
    Coxswain__V1__AttachResponse *m =
        coxswain__v1__attach_response__unpack(&cox_wire_allocator, packed.len, packed.data);

    if (!m || !cox_attach_named(m)) {
        hang_up(s, "a message that cannot be read, or names no attempt");
    } else {
        s->welcomed = s->welcomed || m->welcome;
        cox_attach_read(m, feed, s);
        for (size_t i = 0; i < m->n_released; i++)
            on_released(s, m->released[i]);
        for (size_t i = 0; i < m->n_expects; i++)
            on_expect(s, m->expects[i]);
        for (size_t i = 0; i < m->n_fenced && s->config.attempts; i++)
            attempts_fence(s->config.attempts, cox_attach_ref(m->fenced[i]));
    }
    if (m)
        coxswain__v1__attach_response__free_unpacked(m, &cox_wire_allocator);
    steps_stir(s);
}

void steps_on_read(struct steps *s, size_t len)
{
    bool was_full = s->unread_len >= ROOM_LEN;

    s->unread_len -= len < s->unread_len ? len : s->unread_len;
    if (was_full || !cox_list_empty(&s->chatty))
        steps_stir(s);
}

void steps_on_closed(struct steps *s, bool superseded)
{
    s->is_open = false;
    s->welcomed = false;
    s->unread_len = 0;
    feed(s, &(struct cox_agent_input){ .kind = COX_AGENT_STREAM_CLOSED, .u.closed.superseded = superseded });
    steps_stir(s);
}

void steps_on_spend(struct steps *s)
{
    steps_stir(s);
}

void steps_stats(const struct steps *s, struct steps_stats *ret)
{
    cox_agent_stats(s->agent, &ret->agent);
    ret->n_calls = s->n_calls;
}

/* ---- life ---- */

static void make_boot_id(char ret[33])
{
    uint8_t random[16];

    COX_ASSERT(getrandom(random, sizeof(random), 0) == (ssize_t)sizeof(random));
    for (size_t i = 0; i < sizeof(random); i++)
        snprintf(ret + 2 * i, 3, "%02x", random[i]);
}

struct steps *steps_create(const struct steps_config *config)
{
    struct steps *s = COX_NEW(struct steps);

    s->config = *config;
    if (s->config.drain_ms == 0)
        s->config.drain_ms = STEPS_DRAIN_MS;
    if (s->config.slots == 0)
        s->config.slots = STEPS_SLOTS;
    if (s->config.held_len_max == 0)
        s->config.held_len_max = STEPS_HELD_LEN_MAX;
    said_cache_init(&s->said, config->said_len_max > 0 ? config->said_len_max : STEPS_SAID_LEN_MAX);
    make_boot_id(s->boot_id);
    s->agent = cox_agent_create(&(struct cox_agent_config){ .slots = s->config.slots,
                                                            .n_addresses = 1,
                                                            .drain_timeout_ms = s->config.drain_ms,
                                                            .orphan_timeout_ms = COX_AGENT_ORPHAN_TIMEOUT_MS,
                                                            .seed = (uint64_t)cox_clock_mono_ns() });
    s->slots = cox_calloc(s->config.slots, sizeof(*s->slots));
    cox_list_init(&s->spoilt);
    cox_list_init(&s->ended);
    cox_list_init(&s->chatty);
    cox_list_init(&s->released);
    cox_list_init(&s->program_list);
    s->turn = event_new(config->base, -1, 0, on_turn, s);
    COX_ASSERT(s->turn);
    steps_stir(s);
    return s;
}

void steps_shutdown(struct steps *s)
{
    feed(s, &(struct cox_agent_input){ .kind = COX_AGENT_SHUTDOWN });
    steps_stir(s);
}

void steps_destroy(struct steps *s)
{
    if (!s)
        return;
    s->ending = true;
    for (uint32_t i = 0; i < s->config.slots; i++)
        if (s->slots[i])
            step_call_abandon(s->slots[i]);
    forget_last_words(s);
    while (!cox_list_empty(&s->program_list))
        program_end(s, COX_CONTAINER_OF(s->program_list.next, struct step_program, node));
    cox_mapb_fini(&s->programs);
    said_cache_fini(&s->said);
    cox_agent_destroy(s->agent);
    cox_agent_actions_fini(&s->actions);
    cox_arena_fini(&s->arena);
    event_free(s->turn);
    cox_free(s->slots);
    cox_free(s);
}
