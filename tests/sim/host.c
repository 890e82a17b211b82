/* Hosts: the real worker agent, driven as cox-worker drives it, and step processes that take their time. */
#include "sim.h"

#include <stdio.h>
#include <string.h>

/* ---- bodies ---- */

static void body_free(struct sim *s, struct body *b)
{
    event_cancel(s, &b->end);
    outcome_fini(&b->outcome);
    for (size_t i = 0; i < b->n_items; i++)
        outcome_fini(&b->items[i]);
    cox_free(b->items);
    cox_free(b->indexes);
    cox_free(b);
}

static struct cox_slice text_slice(const char *text)
{
    return text != NULL ? cox_slice_str(text) : cox_slice(NULL, 0);
}

/* A batch was worked through. Sometimes the worker forgets an item: it counts as the attempt. */
static void say_items(struct sim *s, const struct body *b, struct cox_agent_item_result *items,
                      struct cox_agent_result *r)
{
    for (size_t i = 0; i < b->n_items; i++) {
        const struct outcome *o = &b->items[i];
        bool well = o->code == COX_CODE_NONE;
        if (b->n_items > 1 && befalls(s, KIND_FORGOTTEN, 5))
            continue;
        items[r->n_items++] = (struct cox_agent_item_result){
            .index = b->indexes[i],
            .status = well ? COX_ATTEMPT_SUCCEEDED : COX_ATTEMPT_FAILED,
            .code = o->code,
            .message = well ? cox_slice(NULL, 0) : cox_slice_str("the body says no"),
            .output = text_slice(o->output),
        };
    }
    r->items = items;
}

static void say_usage(const struct body *b, struct cox_agent_usage *ret)
{
    struct cox_usage u = sim_usage(b->ref.token);
    *ret = (struct cox_agent_usage){ .model_calls = u.model_calls,
                                     .input_tokens = u.input_tokens,
                                     .output_tokens = u.output_tokens,
                                     .cached_input_tokens = u.cached_tokens,
                                     .wasted_tokens = u.wasted_tokens,
                                     .cost_micros = u.cost_micros };
    memcpy(ret->currency, u.currency, sizeof u.currency);
}

static void body_ends(struct sim *s, struct event *ev)
{
    struct body *b = COX_CONTAINER_OF(ev, struct body, end);
    struct host *h = b->host;
    if (h->paused_until_ns > s->now_ns) { /* the process has ended; its agent sleeps */
        event_at(s, ev, h->paused_until_ns);
        return;
    }
    if (b->outcome.kills && !b->killed && kind_on(s, KIND_KILLER)) {
        befell(s, KIND_KILLER);
        trace(s, "%s: %s takes it down", h->id, ref_text(b->ref));
        host_die(s, h);
        return;
    }
    struct cox_agent_input in = { .kind = COX_AGENT_SLOT_ENDED };
    struct cox_agent_result *r = &in.u.ended.result;
    in.u.ended.slot = b->slot;
    r->status = COX_ATTEMPT_SUCCEEDED;
    r->run_us = (uint64_t)(s->now_ns - b->started_ns) / 1000;
    r->cpu_us = r->run_us / 2;
    if (b->killed || b->outcome.code != COX_CODE_NONE) {
        r->status = COX_ATTEMPT_FAILED;
        r->code = b->killed ? COX_CODE_EXIT_NONZERO : b->outcome.code;
        r->message = cox_slice_str("the body says no");
        r->has_exit_code = true;
        r->exit_code = b->killed ? 143 : 1;
    }
    if (b->calls_model)
        say_usage(b, &r->usage);
    struct cox_hash pack;
    struct cox_agent_item_result *items = cox_calloc(b->n_items + 1, sizeof items[0]);
    files_end(s, b, r, &pack);
    if (!b->killed) {
        r->output = text_slice(b->outcome.output);
        r->continuation_json = text_slice(b->outcome.continuation);
        say_items(s, b, items, r);
    }
    h->bodies[b->slot] = NULL;
    trace(s, "%s: %s ended %s", h->id, ref_text(b->ref), cox_code_text(r->code));
    host_input(s, h, &in);
    cox_free(items);
    body_free(s, b);
}

static json_t *load(struct sim *s, struct cox_slice json, struct cox_ref ref)
{
    json_t *o = json_loadb((const char *)json.data, json.len, 0, NULL);
    if (o == NULL)
        fail(s, "the spec of %s is not JSON", ref_text(ref));
    return o;
}

/* What `model` hands to its worker is a request; what its body is to do stands in there. */
static json_t *load_spec(struct sim *s, struct body *b, const struct cox_agent_assign *as)
{
    json_t *spec = load(s, as->spec_json, b->ref);
    b->calls_model = cox_slice_is(as->handler, "model");
    if (!b->calls_model)
        return spec;
    json_t *inner = json_incref(json_object_get(json_object_get(spec, "request"), "sim"));
    json_decref(spec);
    if (inner == NULL)
        fail(s, "the spec of %s is no request", ref_text(b->ref));
    return inner;
}

static void start_items(struct sim *s, struct body *b, const struct cox_agent_assign *as)
{
    b->items = cox_calloc(as->n_items, sizeof b->items[0]);
    b->indexes = cox_calloc(as->n_items, sizeof b->indexes[0]);
    for (; b->n_items < as->n_items; b->n_items++) {
        json_t *spec = load(s, as->items[b->n_items].spec_json, b->ref);
        b->items[b->n_items] = outcome_of(spec, NULL, as->attempt);
        b->indexes[b->n_items] = as->items[b->n_items].index;
        b->outcome.run_ms += b->items[b->n_items].run_ms;
        json_decref(spec);
    }
    trace(s, "%s: %s starts %s with %zu items from %u for %lld ms", b->host->id, ref_text(b->ref), "a batch",
          as->n_items, b->indexes[0], (long long)b->outcome.run_ms);
}

static void start_one(struct sim *s, struct body *b, const struct cox_agent_assign *as)
{
    json_t *spec = load_spec(s, b, as);
    json_t *again = as->continuation_json.len > 0 ? load(s, as->continuation_json, b->ref) : NULL;
    if (again != NULL && !asked_came_back(spec, again))
        fail(s, "%s is called again with other steps than it asked for", ref_text(b->ref));
    b->outcome = outcome_of(spec, again, as->attempt);
    trace(s, "%s: %s starts %s attempt %u for %lld ms", b->host->id, ref_text(b->ref),
          json_string_value(json_object_get(spec, "id")), as->attempt, (long long)b->outcome.run_ms);
    json_decref(spec);
    json_decref(again);
}

static void body_start(struct sim *s, struct host *h, const struct cox_agent_action *a)
{
    struct body *b = COX_NEW(struct body);
    const struct cox_agent_assign *as = a->u.assign;
    if (h->bodies[a->slot] != NULL)
        fail(s, "%s starts %s in a slot that is taken", h->id, ref_text(a->ref));
    b->host = h;
    b->slot = a->slot;
    b->ref = a->ref;
    b->started_ns = s->now_ns;
    event_init(&b->end, body_ends);
    files_begin(s, b, as);
    if (as->n_items > 0)
        start_items(s, b, as);
    else
        start_one(s, b, as);
    h->bodies[a->slot] = b;
    bool slow = h->slow && kind_now(s, KIND_SLOW);
    if (slow)
        befell(s, KIND_SLOW);
    event_at(s, &b->end, s->now_ns + b->outcome.run_ms * (slow ? 8 : 1) * MS + between(s, 0, MS));
    s->n.attempts++;
}

static void body_kill(struct sim *s, struct host *h, const struct cox_agent_action *a)
{
    struct body *b = h->bodies[a->slot];
    if (b == NULL || !cox_ref_eq(b->ref, a->ref))
        fail(s, "%s kills %s, which does not run", h->id, ref_text(a->ref));
    trace(s, "%s: %s is killed", h->id, ref_text(a->ref));
    if (chance(s, 100)) { /* it ends by itself at this very moment */
        outcome_fini(&b->outcome);
        b->outcome.kills = false;
        event_soon(s, &b->end, s->now_ns);
        return;
    }
    b->killed = true;
    event_soon(s, &b->end, s->now_ns + between(s, 0, chance(s, 50) ? 5 * SECOND : 50 * MS));
}

bool host_holds(const struct host *h, struct cox_ref ref)
{
    for (uint32_t i = 0; h->up && i < h->slots; i++)
        if (h->bodies[i] != NULL && cox_ref_eq(h->bodies[i]->ref, ref) && !h->bodies[i]->killed)
            return true;
    return false;
}

/* ---- what the agent wants ---- */

static void keep_result(struct sim *s, struct host *h, const struct item *it)
{
    struct message *said = message_new();
    struct item *copy = message_add(said, ITEM_RESULT);
    *copy = *it;
    copy->result = message_keep_result(said, &it->result);
    cox_list_push_back(&h->said, &said->node);
    if (h->n_said++ >= 64) {
        h->n_said--;
        message_free(COX_CONTAINER_OF(h->said.next, struct message, node));
    }
    audit_result(s, it->ref, &it->result);
}

/* Says again what was said long ago, in any order: tokens must see through it. */
static void say_again(struct sim *s, struct host *h, struct message *m)
{
    if (h->n_said == 0 || !befalls(s, KIND_REPEAT, s->cfg.adversary))
        return;
    size_t n = rnd(s, h->n_said);
    struct cox_list *it = h->said.next;
    while (n-- > 0)
        it = it->next;
    const struct item *old = &COX_CONTAINER_OF(it, struct message, node)->items[0];
    struct item *copy = message_add(m, ITEM_RESULT);
    *copy = *old;
    copy->result = message_keep_result(m, &old->result);
    s->n.duplicates++;
}

static void add_hello(struct message *m, const struct cox_agent_action *a)
{
    struct item *it = message_add(m, ITEM_HELLO);
    size_t len = a->u.hello.n_holds * sizeof(struct cox_ref);
    it->number = a->u.hello.shard_uid;
    it->n_holds = a->u.hello.n_holds;
    it->holds = cox_arena_dup(&m->arena, a->u.hello.holds, len);
}

static void add_result(struct sim *s, struct host *h, struct message *m, const struct cox_agent_action *a)
{
    struct item *it = message_add(m, ITEM_RESULT);
    it->ref = a->ref;
    it->result = message_keep_result(m, a->u.result);
    keep_result(s, h, it);
}

static void exit_now(struct sim *s, struct host *h, const char *why)
{
    trace(s, "%s: exits: %s", h->id, why);
    host_die(s, h);
}

/* Rule 8. */
static void hang_up(struct sim *s, struct host *h, const char *why)
{
    trace(s, "%s: hangs up: %s", h->id, why);
    if (strstr(why, "broke the protocol") != NULL)
        fail(s, "%s says that %s", h->id, why);
    if (h->stream != NULL)
        stream_hang_up(s, h->stream);
}

/* One action; false when the host is no more. */
static bool handle(struct sim *s, struct host *h, const struct cox_agent_action *a, struct message *m)
{
    switch (a->kind) {
    case COX_AGENT_START:
        body_start(s, h, a);
        break;
    case COX_AGENT_KILL:
        body_kill(s, h, a);
        break;
    case COX_AGENT_LOG:
    case COX_AGENT_SEND_LOG_END:
        break;
    case COX_AGENT_SEND_HELLO:
        add_hello(m, a);
        break;
    case COX_AGENT_SEND_STARTED:
        message_add(m, ITEM_STARTED)->ref = a->ref;
        break;
    case COX_AGENT_SEND_RESULT:
        add_result(s, h, m, a);
        break;
    case COX_AGENT_SEND_RETURNED:
        message_add(m, ITEM_RETURNED)->ref = a->ref;
        break;
    case COX_AGENT_SEND_CREDIT:
        message_add(m, ITEM_CREDIT)->number = a->u.granted;
        break;
    case COX_AGENT_SEND_DRAINING:
        message_add(m, ITEM_DRAINING);
        break;
    case COX_AGENT_SEND_BEAT:
        message_add(m, ITEM_BEAT);
        break;
    case COX_AGENT_DIAL:
        h->stream = stream_dial(s, h);
        break;
    case COX_AGENT_HANG_UP:
        hang_up(s, h, a->u.why);
        break;
    case COX_AGENT_EXIT:
        exit_now(s, h, a->u.why);
        return false;
    }
    return true;
}

static int item_order(const struct item *it)
{
    return (int)it->kind;
}

/* A message is read in the order of its fields, whatever the order of what happened. */
static void sort_items(struct message *m)
{
    for (size_t i = 1; i < m->n; i++) {
        struct item it = m->items[i];
        size_t k = i;
        for (; k > 0 && item_order(&m->items[k - 1]) > item_order(&it); k--)
            m->items[k] = m->items[k - 1];
        m->items[k] = it;
    }
}

/* Hands on all actions; what goes to coxd as one message. False when the host is no more. */
static bool handle_all(struct sim *s, struct host *h)
{
    struct message *m = message_new();
    bool alive = true;
    struct stream *st = h->stream;
    for (size_t i = 0; i < h->actions.len && alive; i++)
        alive = handle(s, h, &h->actions.items[i], m);
    h->actions.len = 0;
    if (m->n > 0 && st != NULL && alive) {
        say_again(s, h, m);
        sort_items(m);
        stream_send_up(s, st, m);
    } else {
        message_free(m);
    }
    return alive;
}

void host_input(struct sim *s, struct host *h, struct cox_agent_input *in)
{
    in->now_mono_ns = s->now_ns;
    cox_agent_step(h->agent, in, &h->actions);
    if (handle_all(s, h))
        event_soon(s, &h->turn, s->now_ns + between(s, 0, MS / 2));
}

static void turn(struct sim *s, struct event *ev)
{
    struct host *h = COX_CONTAINER_OF(ev, struct host, turn);
    if (h->paused_until_ns > s->now_ns) {
        event_at(s, ev, h->paused_until_ns);
        return;
    }
    struct cox_agent_input in = { .kind = COX_AGENT_TURN, .now_mono_ns = s->now_ns };
    in.u.turn.room_len = chance(s, 900) ? SIZE_MAX : rnd(s, 4000);
    cox_agent_step(h->agent, &in, &h->actions);
    cox_agent_check(h->agent);
    if (!handle_all(s, h))
        return;
    int64_t wake_ns = cox_agent_wake_ns(h->agent);
    if (in.u.turn.room_len != SIZE_MAX) /* what had no room is asked for again */
        wake_ns = wake_ns < s->now_ns + MS ? wake_ns : s->now_ns + MS;
    if (wake_ns != INT64_MAX)
        event_soon(s, &h->turn, wake_ns + between(s, 0, chance(s, 20) ? 150 * MS : MS));
}

/* ---- life ---- */

static struct cox_agent_config agent_config(struct sim *s, const struct host *h)
{
    return (struct cox_agent_config){ .slots = h->slots,
                                      .resources = h->resources,
                                      .n_addresses = 1,
                                      .drain_timeout_ms = 2000,
                                      .orphan_timeout_ms = COX_AGENT_ORPHAN_TIMEOUT_MS,
                                      .seed = rnd(s, UINT64_MAX) };
}

void host_boot(struct sim *s, struct host *h)
{
    if (h->up || h->gone)
        return;
    event_cancel(s, &h->boot_ev);
    h->up = true;
    h->paused_until_ns = 0;
    s->n.reboots += h->boot > 0;
    snprintf(h->boot_id, sizeof h->boot_id, "boot-%u", ++h->boot);
    struct cox_agent_config config = agent_config(s, h);
    h->agent = cox_agent_create(&config);
    trace(s, "%s: boots, %s, %u slots", h->id, h->boot_id, h->slots);
    event_at(s, &h->turn, s->now_ns);
}

/* The process is gone, and its step processes with it. */
void host_die(struct sim *s, struct host *h)
{
    if (!h->up)
        return;
    h->up = false;
    event_cancel(s, &h->turn);
    for (uint32_t i = 0; i < h->slots; i++)
        if (h->bodies[i] != NULL)
            body_free(s, h->bodies[i]);
    memset(h->bodies, 0, h->slots * sizeof h->bodies[0]);
    files_lose(h);
    if (h->stream != NULL) /* a process that dies says so; a machine does not */
        stream_break(s, h->stream, INT64_MAX, chance(s, 600) ? between(s, 0, 100 * MS) : 20 * SECOND);
    h->stream = NULL;
    cox_agent_destroy(h->agent);
    h->agent = NULL;
    h->actions.len = 0;
    if (!h->gone)
        event_at(s, &h->boot_ev, s->now_ns + between(s, 100 * MS, chance(s, 300) ? 40 * SECOND : 3 * SECOND));
}

void host_shutdown(struct sim *s, struct host *h)
{
    if (h->up && h->paused_until_ns <= s->now_ns)
        host_input(s, h, &(struct cox_agent_input){ .kind = COX_AGENT_SHUTDOWN });
}

static void boots(struct sim *s, struct event *ev)
{
    host_boot(s, COX_CONTAINER_OF(ev, struct host, boot_ev));
}

/* Rule 6. */
/* Of the last handler only: no step that must run beside another needs it, which could wait for ever for a
 * worker that has both. No host of a zone is the only one that stays. */
const char *host_version(const struct sim *s, const struct host *h, struct cox_slice handler)
{
    if (!s->cfg.versions || !cox_slice_is(handler, "sim@3"))
        return "";
    return h->zone == 1 ? "1.10.0" : "1.9.3";
}

bool hosts_settled(const struct sim *s)
{
    for (uint32_t i = 0; i < s->n_hosts; i++) {
        const struct host *h = &s->hosts[i];
        struct cox_agent_stats st = { 0 };
        if (h->up)
            cox_agent_stats(h->agent, &st);
        if (st.n_kept + st.n_queued + st.n_running > 0)
            return false;
    }
    return true;
}

/* Host 0 can run anything; the others lack something now and then. What one is does not depend on how many
 * there are. */
static void draw_host(struct sim *s, struct host *h, uint32_t i)
{
    struct cox_rng rng;
    uint64_t parts[3] = { s->opt.seed, 1, i };
    cox_rng_init(&rng, cox_hash64(parts, sizeof parts));
    s->chance = &rng;
    h->index = i;
    snprintf(h->id, sizeof h->id, "w%u", i);
    h->slots = 1 + (uint32_t)rnd(s, chance(s, 200) ? 32 : 6);
    h->zone = i % ZONES;
    h->n_handlers = i == 0 ? HANDLERS : 1 + (uint32_t)rnd(s, HANDLERS);
    h->resources.cpu_milli = i < ZONES || chance(s, 500) ? 2000 + (int64_t)rnd(s, 6000) : 250;
    h->resources.memory_bytes = (i < ZONES || chance(s, 500) ? INT64_C(1200) : 100) << 20;
    if (i < ZONES)
        h->n_handlers = HANDLERS;
    h->slow = cox_rng_below(&s->kinds[KIND_SLOW], 1000) < 80;
    h->bodies = cox_calloc(h->slots, sizeof h->bodies[0]);
    cox_list_init(&h->said);
    cox_list_init(&h->files);
    event_init(&h->turn, turn);
    event_init(&h->boot_ev, boots);
    event_at(s, &h->boot_ev, s->now_ns + between(s, 0, 3 * SECOND));
    s->chance = &s->rng;
}

void hosts_init(struct sim *s)
{
    s->hosts = cox_calloc(s->n_hosts, sizeof s->hosts[0]);
    for (uint32_t i = 0; i < s->n_hosts; i++)
        draw_host(s, &s->hosts[i], i);
}

void hosts_fini(struct sim *s)
{
    for (uint32_t i = 0; i < s->n_hosts; i++) {
        struct host *h = &s->hosts[i];
        h->gone = true;
        host_die(s, h);
        event_cancel(s, &h->boot_ev);
        while (!cox_list_empty(&h->said))
            message_free(COX_CONTAINER_OF(h->said.next, struct message, node));
        cox_agent_actions_fini(&h->actions);
        cox_free(h->bodies);
    }
    cox_free(s->hosts);
}
