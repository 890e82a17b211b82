/* What goes wrong, how often, until it is time to see whether everything recovers. */
#include "sim.h"

struct fault {
    struct event ev;
    enum kind kind;
};

static struct host *any_host(struct sim *s)
{
    return &s->hosts[rnd(s, s->n_hosts)];
}

static void pause_host(struct sim *s, struct host *h)
{
    if (!h->up)
        return;
    befell(s, KIND_STALL);
    h->paused_until_ns = s->now_ns + between(s, 10 * MS, chance(s, 300) ? 20 * SECOND : 2 * SECOND);
    trace(s, "%s: stopped until %.3f", h->id, (double)h->paused_until_ns / 1e9);
}

static void pause_coxd(struct sim *s)
{
    if (!s->coxd.up)
        return;
    befell(s, KIND_GAP);
    s->coxd.paused_until_ns = s->now_ns + between(s, 10 * MS, chance(s, 500) ? 30 * SECOND : 2 * SECOND);
    trace(s, "coxd: stopped until %.3f", (double)s->coxd.paused_until_ns / 1e9);
}

static void partition(struct sim *s)
{
    int64_t until_ns = s->now_ns + between(s, 10 * MS, chance(s, 300) ? 30 * SECOND : 3 * SECOND);
    uint32_t n = chance(s, 200) ? s->n_hosts : 1;
    befell(s, KIND_PARTITION);
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
    befell(s, KIND_BREAK);
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
    if (h->up)
        befell(s, forever ? KIND_LOSS : KIND_DEATH);
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
    befell(s, KIND_CLOCK_JUMP);
    trace(s, "the wall clock jumps by %lld ms", (long long)ms);
}

static void crash(struct sim *s)
{
    struct coxd *d = &s->coxd;
    if (chance(s, 400) && kind_now(s, KIND_CRASH_SENDING)) {
        d->crash_in = 1 + (uint32_t)rnd(s, 12);
        return;
    }
    if (d->up)
        befell(s, KIND_CRASH);
    coxd_crash(s, false);
}

static void strike(struct sim *s, enum kind kind)
{
    switch (kind) {
    case KIND_CRASH:
        crash(s);
        break;
    case KIND_POWER_CUT:
        if (s->coxd.up)
            befell(s, kind);
        coxd_crash(s, true);
        break;
    case KIND_STOP:
        coxd_leave(s);
        break;
    case KIND_GAP:
        pause_coxd(s);
        break;
    case KIND_DEATH:
    case KIND_LOSS:
        kill_host(s, kind == KIND_LOSS);
        break;
    case KIND_STALL:
        pause_host(s, any_host(s));
        break;
    case KIND_LEAVE:
        befell(s, kind);
        host_shutdown(s, any_host(s));
        break;
    case KIND_PARTITION:
        partition(s);
        break;
    case KIND_BREAK:
        break_stream(s);
        break;
    case KIND_CLOCK_JUMP:
        wall_jump(s);
        break;
    default:
        fail(s, "a fault comes that has no time of its own");
    }
}

static void next(struct sim *s, struct fault *f)
{
    event_at(s, &f->ev, s->now_ns + between(s, 0, 2 * (int64_t)s->cfg.mean_ms[f->kind]) * MS);
}

/* All that a fault draws is of its kind's own chance. */
static void fires(struct sim *s, struct event *ev)
{
    struct fault *f = COX_CONTAINER_OF(ev, struct fault, ev);
    if (s->healed || s->now_ns >= s->cfg.fault_ns)
        return;
    s->chance = &s->kinds[f->kind];
    strike(s, f->kind);
    next(s, f);
    s->chance = &s->rng;
}

/* How often each comes by itself: in so many histories of a thousand, with a mean time between, ms. */
static const struct {
    enum kind kind;
    uint32_t per_mille, lo_ms, hi_ms;
} drawn[] = {
    { KIND_CRASH, 700, 300, 15000 },       { KIND_POWER_CUT, 400, 2000, 30000 },
    { KIND_STOP, 200, 4000, 30000 },       { KIND_GAP, 300, 3000, 30000 },
    { KIND_DEATH, 500, 500, 20000 },       { KIND_LOSS, 200, 5000, 60000 },
    { KIND_STALL, 400, 500, 20000 },       { KIND_LEAVE, 200, 3000, 30000 },
    { KIND_PARTITION, 400, 1000, 20000 },  { KIND_BREAK, 500, 200, 10000 },
    { KIND_CLOCK_JUMP, 200, 2000, 30000 },
};
#define N_DRAWN (sizeof drawn / sizeof drawn[0])

void faults_draw(struct sim *s)
{
    for (size_t i = 0; i < N_DRAWN; i++) {
        s->chance = &s->kinds[drawn[i].kind];
        uint32_t mean_ms =
            chance(s, drawn[i].per_mille) ? (uint32_t)between(s, drawn[i].lo_ms, drawn[i].hi_ms) : 0;
        s->cfg.mean_ms[drawn[i].kind] = kind_on(s, drawn[i].kind) ? mean_ms : 0;
    }
    s->chance = &s->kinds[KIND_REPEAT];
    s->cfg.adversary = chance(s, 400) ? (uint32_t)rnd(s, 300) : 0;
    s->chance = &s->rng;
}

void faults_init(struct sim *s)
{
    s->faults = cox_calloc(N_DRAWN, sizeof s->faults[0]);
    for (size_t i = 0; i < N_DRAWN; i++) {
        struct fault *f = &s->faults[i];
        f->kind = drawn[i].kind;
        event_init(&f->ev, fires);
        s->chance = &s->kinds[f->kind];
        if (s->cfg.mean_ms[f->kind] > 0)
            next(s, f);
    }
    s->chance = &s->rng;
}

void faults_fini(struct sim *s)
{
    cox_free(s->faults);
}
