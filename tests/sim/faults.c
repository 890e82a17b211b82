/* What goes wrong, how often, until it is time to see whether everything recovers. */
#include "sim.h"

enum fault_kind {
    FAULT_CRASH,
    FAULT_POWER_CUT,
    FAULT_LEAVE,
    FAULT_COXD_PAUSE,
    FAULT_HOST_DEATH,
    FAULT_HOST_GONE,
    FAULT_HOST_PAUSE,
    FAULT_HOST_TERM,
    FAULT_PARTITION,
    FAULT_BREAK,
    FAULT_WALL_JUMP,
    FAULT_NR
};

struct fault {
    struct event ev;
    enum fault_kind kind;
    uint32_t mean_ms;
};

static struct host *any_host(struct sim *s)
{
    return &s->hosts[rnd(s, s->n_hosts)];
}

static void pause_host(struct sim *s, struct host *h)
{
    if (!h->up)
        return;
    h->paused_until_ns = s->now_ns + between(s, 10 * MS, chance(s, 300) ? 20 * SECOND : 2 * SECOND);
    trace(s, "%s: stopped until %.3f", h->id, (double)h->paused_until_ns / 1e9);
}

static void pause_coxd(struct sim *s)
{
    if (!s->coxd.up)
        return;
    s->coxd.paused_until_ns = s->now_ns + between(s, 10 * MS, chance(s, 500) ? 30 * SECOND : 2 * SECOND);
    trace(s, "coxd: stopped until %.3f", (double)s->coxd.paused_until_ns / 1e9);
}

static void partition(struct sim *s)
{
    int64_t until_ns = s->now_ns + between(s, 10 * MS, chance(s, 300) ? 30 * SECOND : 3 * SECOND);
    uint32_t n = chance(s, 200) ? s->n_hosts : 1;
    for (uint32_t i = 0; i < n; i++) {
        struct host *h = n == 1 ? any_host(s) : &s->hosts[i];
        h->cut_off_until_ns = until_ns;
        trace(s, "%s: cut off until %.3f", h->id, (double)until_ns / 1e9);
        if (h->stream != NULL && chance(s, 300)) /* keepalive gives up on either side, in its time */
            stream_break(s, h->stream, between(s, 5 * SECOND, 20 * SECOND),
                         between(s, 5 * SECOND, 20 * SECOND));
    }
}

static void break_stream(struct sim *s)
{
    struct host *h = any_host(s);
    if (h->stream == NULL || h->stream->broken)
        return;
    bool half_open = chance(s, 300);
    trace(s, "%s: its stream breaks", h->id);
    stream_break(s, h->stream, between(s, 0, half_open && chance(s, 500) ? 15 * SECOND : 20 * MS),
                 between(s, 0, half_open ? 15 * SECOND : 20 * MS));
}

static void kill_host(struct sim *s, bool forever)
{
    struct host *h = any_host(s);
    if (forever && h->index < ZONES)
        return; /* somebody must be left who can run anything */
    h->gone = forever;
    trace(s, "%s: dies%s", h->id, forever ? " for good" : "");
    s->n.deaths += h->up;
    host_die(s, h);
    if (forever)
        event_cancel(s, &h->boot_ev);
}

static void wall_jump(struct sim *s)
{
    int64_t ms = between(s, -60000, 60000);
    if (chance(s, 20))
        ms = 25 * 3600 * 1000; /* idempotency keys expire */
    s->wall_offset_ms += ms;
    trace(s, "the wall clock jumps by %lld ms", (long long)ms);
}

static void strike(struct sim *s, enum fault_kind kind)
{
    switch (kind) {
    case FAULT_CRASH:
        if (chance(s, 300))
            s->coxd.crash_in = 1 + (uint32_t)rnd(s, 4); /* in the middle of what leaves */
        else
            coxd_crash(s, false);
        break;
    case FAULT_POWER_CUT:
        coxd_crash(s, true);
        break;
    case FAULT_LEAVE:
        coxd_leave(s);
        break;
    case FAULT_COXD_PAUSE:
        pause_coxd(s);
        break;
    case FAULT_HOST_DEATH:
    case FAULT_HOST_GONE:
        kill_host(s, kind == FAULT_HOST_GONE);
        break;
    case FAULT_HOST_PAUSE:
        pause_host(s, any_host(s));
        break;
    case FAULT_HOST_TERM:
        host_shutdown(s, any_host(s));
        break;
    case FAULT_PARTITION:
        partition(s);
        break;
    case FAULT_BREAK:
        break_stream(s);
        break;
    case FAULT_WALL_JUMP:
        wall_jump(s);
        break;
    case FAULT_NR:
        break;
    }
}

static void next(struct sim *s, struct fault *f)
{
    event_at(s, &f->ev, s->now_ns + between(s, 0, 2 * (int64_t)f->mean_ms) * MS);
}

static void fires(struct sim *s, struct event *ev)
{
    struct fault *f = COX_CONTAINER_OF(ev, struct fault, ev);
    if (s->now_ns >= s->cfg.fault_ns)
        return;
    strike(s, f->kind);
    next(s, f);
}

void faults_init(struct sim *s)
{
    const struct fault_rates *r = &s->cfg.rates;
    const uint32_t means[FAULT_NR] = {
        r->crash_ms,      r->power_cut_ms, r->leave_ms,      r->coxd_pause_ms,
        r->host_death_ms, r->host_gone_ms, r->host_pause_ms, r->host_term_ms,
        r->partition_ms,  r->break_ms,     r->wall_jump_ms,
    };
    s->faults = cox_calloc(FAULT_NR, sizeof s->faults[0]);
    for (uint32_t i = 0; i < FAULT_NR; i++) {
        s->faults[i].kind = (enum fault_kind)i;
        s->faults[i].mean_ms = means[i];
        event_init(&s->faults[i].ev, fires);
        if (means[i] > 0)
            next(s, &s->faults[i]);
    }
}

void faults_fini(struct sim *s)
{
    cox_free(s->faults);
}
