/* One history: its dimensions are drawn from the seed, so that a thousand seeds are a thousand different
 * machines, and not one machine a thousand times. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>

#define GIVE_UP_NS (6 * 60 * MINUTE)

static void draw(struct sim *s)
{
    struct config *c = &s->cfg;
    static const uint32_t rings[] = { 3, 8, 64, 256 };
    s->n_hosts = s->opt.n_hosts > 0 ? s->opt.n_hosts : ZONES + (uint32_t)rnd(s, chance(s, 200) ? 14 : 4);
    s->n_jobs = s->opt.n_jobs > 0 ? s->opt.n_jobs : 1 + (uint32_t)rnd(s, chance(s, 200) ? 40 : 12);
    if (s->n_hosts < ZONES)
        s->n_hosts = ZONES;
    c->load_ns = between(s, SECOND, chance(s, 300) ? 60 * SECOND : 10 * SECOND);
    c->fault_ns = c->load_ns + between(s, 0, 60 * SECOND);
    c->net_ns = between(s, 50000, chance(s, 200) ? 100 * MS : 2 * MS);
    c->commit_ns = between(s, 50000, chance(s, 200) ? 200 * MS : 5 * MS);
    c->state_ns = between(s, 50000, chance(s, 200) ? 100 * MS : 5 * MS);
    c->compile_ns = between(s, 10000, chance(s, 200) ? 10 * MS : MS);
    c->ring = rings[rnd(s, 4)];
    c->checkpoint_len = chance(s, 200) ? SIZE_MAX : 1000 + rnd(s, chance(s, 300) ? 1000000 : 60000);
    if (chance(s, 100)) /* one after the other, while there is anything new */
        c->checkpoint_len = 1;
    if (!kind_on(s, KIND_CHECKPOINT))
        c->checkpoint_len = SIZE_MAX;
    c->checkpoint_slice = 1 + rnd(s, chance(s, 500) ? 1000 : 60000);
    c->read_cut = chance(s, 300) ? (uint32_t)rnd(s, 800) : 0;
    c->live_steps_max = chance(s, 100) ? 2000 : 0;
    c->scenes = chance(s, 400) ? 0 : (uint32_t)between(s, 200, 1000);
    if (!kind_on(s, KIND_SCENE))
        c->scenes = 0;
    if (!kind_on(s, KIND_CUT_READ))
        c->read_cut = 0;
    c->versions = cox_rng_below(&s->kinds[KIND_VERSION], 1000) < 400 && kind_on(s, KIND_VERSION);
    c->logged_max = COX_LOGGED_PAYLOAD_LEN_MAX;
    if (kind_on(s, KIND_BLOB) && cox_rng_below(&s->kinds[KIND_BLOB], 1000) < 400)
        c->logged_max = COX_INLINE_PAYLOAD_LEN_MAX + cox_rng_below(&s->kinds[KIND_BLOB], 6000);
    c->older_records = cox_rng_below(&s->kinds[KIND_OLD_RECORD], 1000) < 500 && kind_on(s, KIND_OLD_RECORD);
    if (s->opt.faults)
        faults_draw(s);
    else
        c->fault_ns = 0;
}

/* Faults are over: what is down comes back, and everything must come to rest. */
static void heal(struct sim *s)
{
    trace(s, "no more faults");
    s->healed = true;
    s->cfg.fault_ns = s->now_ns;
    s->cfg.adversary = 0;
    s->coxd.crash_in = 0;
    for (uint32_t i = 0; i < s->n_hosts; i++)
        if (!s->hosts[i].up)
            event_soon(s, &s->hosts[i].boot_ev, s->now_ns);
}

static bool log_settled(const struct sim *s)
{
    for (size_t i = 0; i < s->audit.n; i++)
        if (!s->audit.list[i]->archived)
            return false;
    return s->store.n_queue == 0 && s->store.n_durable == s->store.n;
}

static void reap_streams(struct sim *s)
{
    COX_LIST_FOR_EACH (it, &s->streams) {
        struct stream *st = COX_CONTAINER_OF(it, struct stream, node);
        const struct event *events[] = { &st->up_ev, &st->down_ev, &st->open_ev, &st->host_end,
                                         &st->coxd_end };
        bool busy = st->host->stream == st || (st->open && !st->coxd_over) || st->n_inbox > 0;
        for (size_t i = 0; i < sizeof events / sizeof events[0]; i++)
            busy = busy || cox_heap_has(&events[i]->node);
        if (!busy)
            stream_free(st);
    }
}

static void say_who_waits(struct sim *s)
{
    for (size_t i = 0; i < s->audit.n; i++) {
        const struct audit_task *t = s->audit.list[i];
        for (uint32_t k = t->first; k < t->first + t->n_members && !t->finished; k++)
            if (!cox_step_status_final((enum cox_step_status)t->steps[k].status))
                trace(s, "%s %llu/%u is %s", t->job->plan.name, (unsigned long long)t->id & 0xffffff, k,
                      cox_step_status_text((enum cox_step_status)t->steps[k].status));
    }
    for (size_t i = 0; i < s->audit.n; i++)
        if (!s->audit.list[i]->archived)
            trace(s, "%s %llu is not archived", s->audit.list[i]->job->plan.name,
                  (unsigned long long)s->audit.list[i]->id & 0xffffff);
    for (uint32_t i = 0; i < s->n_jobs; i++)
        if (s->jobs[i].state != JOB_OVER || s->jobs[i].n_words > 0)
            trace(s, "client of %s is in state %d, %u words unanswered", s->jobs[i].plan.name,
                  (int)s->jobs[i].state, s->jobs[i].n_words);
    if (!operator_settled(s))
        trace(s, "the operator has not done what is left to do");
    for (uint32_t i = 0; i < s->n_hosts; i++) {
        struct cox_agent_stats st = { 0 };
        if (s->hosts[i].up)
            cox_agent_stats(s->hosts[i].agent, &st);
        trace(s, "%s: up %d stream %d, %u queued, %u running, %u unanswered, credit %llu of %llu",
              s->hosts[i].id, s->hosts[i].up, (int)st.stream, st.n_queued, st.n_running, st.n_kept,
              (unsigned long long)st.assigned, (unsigned long long)st.granted);
    }
}

static void history(struct sim *s)
{
    for (;;) {
        struct cox_heap_node *node = cox_heap_min(&s->events);
        if (node == NULL)
            fail(s, "nothing more will ever happen, and not all is done");
        cox_heap_remove(&s->events, node);
        s->now_ns = (int64_t)node->key;
        s->n.events++;
        if (s->opt.events_max > 0 && s->n.events > s->opt.events_max)
            exit(3);
        if (!s->healed &&
            (s->now_ns >= s->cfg.fault_ns || (s->opt.faults_until > 0 && s->n.events >= s->opt.faults_until)))
            heal(s);
        struct event *ev = COX_CONTAINER_OF(node, struct event, node);
        ev->fn(s, ev);
        if (s->n.events % 256 == 0)
            reap_streams(s);
        if (s->healed && s->n.events % 16 == 0 && coxd_settled(s) && log_settled(s) && clients_settled(s) &&
            operator_settled(s) && hosts_settled(s))
            return;
        if (s->now_ns > s->cfg.fault_ns + GIVE_UP_NS) {
            say_who_waits(s);
            fail(s, "no end in sight, hours after the last fault");
        }
    }
}

static void counts_add(struct counts *to, const struct counts *from)
{
#define ADD(name) to->name += from->name;
    COUNTS_TABLE(ADD)
#undef ADD
    for (size_t i = 0; i < KIND_NR; i++)
        to->kinds[i] += from->kinds[i];
}

uint64_t sim_run(const struct options *opt, struct counts *total, int64_t *ret_virtual_ms)
{
    struct sim *s = COX_NEW(struct sim);
    s->opt = *opt;
    s->lines = cox_calloc(TRACE_LINES, sizeof s->lines[0]);
    sim_current = s;
    cox_rng_init(&s->rng, opt->seed);
    for (uint64_t i = 0; i < KIND_NR; i++) {
        uint64_t parts[2] = { opt->seed, i };
        cox_rng_init(&s->kinds[i], cox_hash64(parts, sizeof parts));
    }
    s->chance = &s->rng;
    cox_list_init(&s->streams);
    draw(s);
    cox_rng_init(&s->rng, opt->seed ^ (opt->salt + 1) * UINT64_C(0x9e3779b97f4a7c15));
    store_init(s);
    coxd_init(s);
    hosts_init(s);
    operator_init(s);
    clients_init(s);
    faults_init(s);
    history(s);
    coxd_check_hashes(s);
    verify_all(s);
    trace(s, "all is well");
    uint64_t hash = s->trace_hash;
    counts_add(total, &s->n);
    *ret_virtual_ms += s->now_ns / MS;
    hosts_fini(s);
    cox_heap_fini(&s->events); /* whoever owns an event may go now */
    clients_coxd_gone(s);
    coxd_fini(s);
    streams_free(s);
    clients_fini(s);
    operator_fini(s);
    faults_fini(s);
    audit_fini(s);
    store_fini(s);
    sim_current = NULL;
    cox_free(s->lines);
    cox_free(s);
    return hash;
}
