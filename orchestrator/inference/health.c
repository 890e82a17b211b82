#include "health_turn.h"

#include "breaker.h"
#include "endpoint_url.h"
#include "signals.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/plant.h"
#include "cox/base/rng.h"
#include "cox/base/units.h"

#include <string.h>

#define NS_PER_MS INT64_C(1000000)
#define SCRAPE_MS 200
/* Of all endpoints together; of so many that they would be older than placement believes, more: 80 us each,
 * and two thirds of it the kernel's and curl's. */
#define SCRAPES_PER_S 2000u
#define SCRAPES_PER_S_MAX 6000u
#define SCRAPE_SELDOM_MS 1800
#define SCRAPES_AT_ONCE 2048u /* hosts that are silent keep a place for a second each */
#define STALE_MS 2000
#define AWAY_MS 1000 /* between scrapes of one that cannot be reached */
#define SILENT_MIN_MS 1000
#define SILENT_MAX_MS 60000 /* between scrapes of one that has nothing to say */
#define TURN_MS 5           /* between turns: what is due together is done together */
#define VISITS_A_TURN 64u   /* calls have their turn between them, though thousands are due at once */
#define METRICS_LEN_MAX (8u << 20)
#define OUT_PERCENT 30u

static const struct placement_signals nothing_said = { -1, -1, -1, 0 };

struct endpoint_health {
    struct health *health;
    struct endpoint *e;
    struct cox_heap_node due;
    struct breaker breaker;
    enum placement_gate told;      /* the gate that is known outside */
    uint32_t told_room;            /* likewise */
    bool is_out, is_out_for_calls; /* as counted of its model */
    bool paused; /* it has been closed for a pause, and what it has room for is to be told */
    uint64_t n_calls, n_failures;

    char *metrics_url, *health_url;
    struct upstream_target metrics, alive;
    struct upstream_call *scrape, *probe;
    int scrape_status, probe_status;
    struct signals_reader reader;
    size_t read_len;
    int64_t next_scrape_ns, silent_ms, said_ns;
    unsigned n_away; /* scrapes in a row that found no server */
    bool scraped;    /* `said` is of now */
    bool has_said;
    bool no_health; /* it has no /health: /models is asked for */
    struct signals said;
};

struct health {
    struct health_config config;
    struct event *timer;
    int64_t armed_ns; /* when it fires, while it is pending */
    struct cox_heap due;
    struct cox_rng rng;
    uint32_t n_endpoints, n_scraping;
};

static const struct upstream_timeouts scrape_timeouts = { .connect_ms = 1000, .total_ms = 2000 };
static const struct upstream_timeouts probe_timeouts = { .connect_ms = 1000, .total_ms = 5000 };

/* ---- when ---- */

/* So many endpoints as there are share what may be spent on looking at them. */
static int64_t scrape_every_ms(const struct health *h)
{
    int64_t ms = h->config.scrape_ms ? h->config.scrape_ms : SCRAPE_MS;
    int64_t share_ms = (int64_t)h->n_endpoints * 1000 / SCRAPES_PER_S;
    int64_t least_ms = (int64_t)h->n_endpoints * 1000 / SCRAPES_PER_S_MAX;

    if (share_ms > SCRAPE_SELDOM_MS)
        share_ms = least_ms > SCRAPE_SELDOM_MS ? least_ms : SCRAPE_SELDOM_MS;
    return share_ms > ms ? share_ms : ms;
}

static int64_t stale_ns(const struct health *h)
{
    int64_t ms = 3 * scrape_every_ms(h);

    return (ms > STALE_MS ? ms : STALE_MS) * NS_PER_MS;
}

/* A tenth more or less, so that endpoints do not answer all at once. */
static int64_t jittered_ns(struct health *h, int64_t ms)
{
    return ms * NS_PER_MS * 9 / 10 + (int64_t)cox_rng_below(&h->rng, (uint64_t)(ms * NS_PER_MS / 5 + 1));
}

static bool scrapes(const struct health *h)
{
    return h->config.scrape_ms >= 0;
}

/* No server was found there, again and again. */
static bool is_away(const struct endpoint_health *eh)
{
    return scrapes(eh->health) && eh->n_away >= BREAKER_ROW;
}

static int64_t due_ns(const struct endpoint_health *eh, int64_t now_ns)
{
    int64_t due = breaker_wake_ns(&eh->breaker, now_ns), stale = eh->said_ns + stale_ns(eh->health);

    if ((eh->probe || is_away(eh)) && !(now_ns < eh->breaker.slow_until_ns))
        due = INT64_MAX; /* its end comes by itself; who is away is found by the next scrape */
    if (scrapes(eh->health) && !eh->scrape && eh->next_scrape_ns < due)
        due = eh->next_scrape_ns;
    return eh->scraped && stale < due ? stale : due;
}

static void arm(struct health *h, int64_t now_ns)
{
    const struct cox_heap_node *first = cox_heap_min(&h->due);
    int64_t in_ns = first ? (int64_t)first->key - now_ns : -1;

    if (!first)
        return;
    if (in_ns < TURN_MS * NS_PER_MS)
        in_ns = TURN_MS * NS_PER_MS;
    /* Each call's end comes here: were it put off each time, it would never fire under load. */
    if (evtimer_pending(h->timer, NULL) && h->armed_ns <= now_ns + in_ns && !COX_PLANTED("health-put-off"))
        return;
    const struct timeval in = { in_ns / 1000000000, in_ns % 1000000000 / 1000 };

    h->armed_ns = now_ns + in_ns;
    evtimer_add(h->timer, &in);
}

static void schedule(struct endpoint_health *eh, int64_t now_ns)
{
    int64_t due = due_ns(eh, now_ns);

    if (due == INT64_MAX)
        cox_heap_remove(&eh->health->due, &eh->due);
    else
        cox_heap_set(&eh->health->due, &eh->due, (uint64_t)due);
}

/* After what did not come from the timer: it may be due earlier now. */
static void reschedule(struct endpoint_health *eh)
{
    int64_t now_ns = cox_clock_mono_ns();

    schedule(eh, now_ns);
    arm(eh->health, now_ns);
}

/* ---- the gate ---- */

/* Among its model's that are out, or not. */
static void count_out(struct endpoint_health *eh, bool out, bool for_calls)
{
    struct model *m = eh->e->model;

    m->n_out += (size_t)out - (size_t)eh->is_out;
    m->n_out_for_calls += (size_t)for_calls - (size_t)eh->is_out_for_calls;
    eh->is_out = out;
    eh->is_out_for_calls = for_calls;
}

static void tell_room(struct endpoint_health *eh, int64_t now_ns)
{
    uint32_t room = breaker_room(&eh->breaker);
    struct health *h = eh->health;

    if (now_ns < eh->breaker.slow_until_ns || (room == eh->told_room && !eh->paused))
        return;
    eh->told_room = room;
    if (h->config.on_room)
        h->config.on_room(h->config.user, eh->e, room, eh->paused);
    eh->paused = false;
}

static void tell_gate(struct endpoint_health *eh, int64_t now_ns, bool forget)
{
    enum placement_gate gate = breaker_gate(&eh->breaker, now_ns);
    struct health *h = eh->health;

    bool out = eh->breaker.gate == PLACEMENT_CLOSED;

    count_out(eh, out, out && eh->breaker.for_calls);
    eh->paused = eh->paused || now_ns < eh->breaker.slow_until_ns;
    tell_room(eh, now_ns);
    if (gate == eh->told && !forget)
        return;
    eh->told = gate;
    if (h->config.on_gate)
        h->config.on_gate(h->config.user, eh->e, gate, forget);
}

/* The last endpoint of a model stays in: an error says more than a call that waits for ever. For how calls
 * went, a share of them goes out, and one may always: a fault of all of them is none of each. */
static bool may_go_out(const struct endpoint_health *eh, bool for_calls)
{
    const struct model *m = eh->e->model;

    if (m->n_out + 1 >= m->n_endpoints && !COX_PLANTED("breaker-last-one"))
        return false;
    return !for_calls || m->n_out_for_calls == 0 ||
           (m->n_out_for_calls + 1) * 100 <= OUT_PERCENT * m->n_endpoints;
}

static void take_out(struct endpoint_health *eh, int64_t now_ns, const char *why, bool for_calls)
{
    if (eh->breaker.gate == PLACEMENT_CLOSED || !may_go_out(eh, for_calls))
        return;
    breaker_out(&eh->breaker, now_ns, why, for_calls);
    cox_log(COX_LOG_WARN, "an endpoint is out", "model", eh->e->model->name, "endpoint", eh->e->name, "why",
            why, "for_ms", COX_LOG_NUM(eh->breaker.hold_ms), NULL);
}

void health_tell(struct health *h, struct endpoint *e, enum health_word word, int64_t retry_after_ms)
{
    struct endpoint_health *eh = e->health;
    int64_t now_ns = cox_clock_mono_ns();
    const char *why = NULL;

    (void)h;
    if (!eh)
        return; /* gone; the call was under way */
    enum placement_gate before = eh->breaker.gate;

    eh->n_calls++;
    eh->n_failures += word == HEALTH_BAD || word == HEALTH_DENIED;
    if (word == HEALTH_GOOD)
        breaker_good(&eh->breaker, now_ns);
    else if (word == HEALTH_SLOW_DOWN)
        breaker_slow(&eh->breaker, now_ns, retry_after_ms);
    else if (breaker_bad(&eh->breaker, now_ns, &why) || word == HEALTH_DENIED)
        take_out(eh, now_ns, word == HEALTH_DENIED ? "it refuses the key" : why, true);
    if (before == PLACEMENT_HALF_OPEN && eh->breaker.gate == PLACEMENT_OPEN)
        cox_log(COX_LOG_INFO, "an endpoint is back", "model", e->model->name, "endpoint", e->name, NULL);
    tell_gate(eh, now_ns, false);
    reschedule(eh);
}

/* ---- probes ---- */

static void on_probe_head(void *user, const struct upstream_head *head)
{
    ((struct endpoint_health *)user)->probe_status = head->status;
}

static void on_no_data(void *user, struct cox_slice piece)
{
    (void)user;
    (void)piece;
}

static void start_probe(struct endpoint_health *eh);

static void on_probe_end(void *user, enum upstream_end end, const char *message)
{
    struct endpoint_health *eh = user;
    int64_t now_ns = cox_clock_mono_ns();
    int status = end == UPSTREAM_OK ? eh->probe_status : 0;

    (void)message;
    eh->probe = NULL;
    if (!eh->no_health && (status == 404 || status == 405 || status == 501)) {
        eh->no_health = true;
        start_probe(eh);
        return;
    }
    /* A key that is refused at /models is known to calls; whoever refuses it is alive. */
    breaker_probed(&eh->breaker, now_ns, (status >= 200 && status < 300) || status == 401 || status == 403);
    tell_gate(eh, now_ns, false);
    reschedule(eh);
}

static void start_probe(struct endpoint_health *eh)
{
    static const struct upstream_events events = { on_probe_head, on_no_data, on_probe_end };
    const struct upstream_target *models = &eh->e->targets[3];
    const struct upstream_request request = {
        .target = &eh->alive, .method = "GET", .timeouts = probe_timeouts, .events = &events, .user = eh
    };

    eh->alive = *models;
    if (!eh->no_health)
        eh->alive.url = eh->health_url;
    eh->probe_status = 0;
    eh->probe = upstream_start(eh->health->config.upstream, &request);
}

/* ---- /metrics ---- */

static void tell_signals(struct endpoint_health *eh, const struct placement_signals *signals)
{
    struct health *h = eh->health;

    if (h->config.on_signals)
        h->config.on_signals(h->config.user, eh->e, signals);
}

static void on_scrape_head(void *user, const struct upstream_head *head)
{
    ((struct endpoint_health *)user)->scrape_status = head->status;
}

static void on_scrape_data(void *user, struct cox_slice piece)
{
    struct endpoint_health *eh = user;

    eh->read_len += piece.len;
    if (eh->scrape_status == 200 && eh->read_len <= METRICS_LEN_MAX)
        signals_feed(&eh->reader, piece);
}

/* It has spoken, and is an engine that we know. */
static void heard(struct endpoint_health *eh, const struct signals *said, int64_t now_ns)
{
    bool restarted = eh->has_said && signals_restarted(&eh->said, said);

    if (restarted)
        cox_log(COX_LOG_INFO, "an endpoint was started anew", "model", eh->e->model->name, "endpoint",
                eh->e->name, NULL);
    eh->said = *said;
    eh->has_said = eh->scraped = true;
    eh->said_ns = now_ns;
    eh->silent_ms = 0;
    tell_signals(eh, &said->load);
    if (restarted)
        tell_gate(eh, now_ns, true);
}

static bool is_unseen(enum upstream_end end)
{
    return end == UPSTREAM_CONNECT || end == UPSTREAM_CONNECT_TIMEOUT;
}

static int64_t next_scrape_ms(struct endpoint_health *eh, enum upstream_end end, bool known)
{
    int64_t every_ms = scrape_every_ms(eh->health);

    if (is_unseen(end) && ++eh->n_away >= BREAKER_ROW)
        return AWAY_MS > 3 * every_ms ? AWAY_MS : 3 * every_ms;
    if (end == UPSTREAM_OK && !known) {
        eh->silent_ms = eh->silent_ms ? eh->silent_ms * 2 : SILENT_MIN_MS;
        if (eh->silent_ms > SILENT_MAX_MS)
            eh->silent_ms = SILENT_MAX_MS;
        return eh->silent_ms > every_ms ? eh->silent_ms : every_ms;
    }
    return every_ms;
}

static void on_scrape_end(void *user, enum upstream_end end, const char *message)
{
    struct endpoint_health *eh = user;
    int64_t now_ns = cox_clock_mono_ns();
    struct signals said;

    (void)message;
    eh->scrape = NULL;
    eh->health->n_scraping--;
    signals_end(&eh->reader, &said);
    bool known =
        end == UPSTREAM_OK && eh->scrape_status == 200 && eh->read_len <= METRICS_LEN_MAX && *said.engine;

    eh->next_scrape_ns = now_ns + jittered_ns(eh->health, next_scrape_ms(eh, end, known));
    if (!is_unseen(end)) {
        if (eh->n_away >= BREAKER_ROW && eh->breaker.gate == PLACEMENT_CLOSED && !eh->breaker.for_calls)
            eh->breaker.until_ns = now_ns; /* it is there again: ask it whether it serves */
        eh->n_away = 0;
    } else if (eh->n_away >= BREAKER_ROW) {
        take_out(eh, now_ns, "no connection", false);
    }
    if (known)
        heard(eh, &said, now_ns);
    tell_gate(eh, now_ns, false);
    reschedule(eh);
}

static void start_scrape(struct endpoint_health *eh)
{
    static const struct upstream_events events = { on_scrape_head, on_scrape_data, on_scrape_end };
    const struct upstream_request request = {
        .target = &eh->metrics, .method = "GET", .timeouts = scrape_timeouts, .events = &events, .user = eh
    };

    eh->metrics = eh->e->targets[3];
    eh->metrics.url = eh->metrics_url;
    eh->scrape_status = 0;
    eh->read_len = 0;
    eh->health->n_scraping++;
    eh->scrape = upstream_start(eh->health->config.upstream, &request);
}

/* ---- turns ---- */

static void visit(struct endpoint_health *eh, int64_t now_ns)
{
    struct health *h = eh->health;

    tell_gate(eh, now_ns, false);
    if (!eh->probe && !is_away(eh) && breaker_wants_probe(&eh->breaker, now_ns))
        start_probe(eh);
    if (scrapes(h) && !eh->scrape && now_ns >= eh->next_scrape_ns) {
        if (h->n_scraping < SCRAPES_AT_ONCE)
            start_scrape(eh);
        else
            eh->next_scrape_ns = now_ns + jittered_ns(h, SCRAPE_MS);
    }
    if (eh->scraped && now_ns >= eh->said_ns + stale_ns(h)) {
        eh->scraped = false;
        tell_signals(eh, &nothing_said);
    }
}

int64_t health_turn(struct health *h, int64_t now_ns)
{
    struct cox_heap_node *first;
    unsigned n = 0;

    while ((first = cox_heap_min(&h->due)) && (int64_t)first->key <= now_ns &&
           (n++ < VISITS_A_TURN || COX_PLANTED("health-all-at-once"))) {
        struct endpoint_health *eh = COX_CONTAINER_OF(first, struct endpoint_health, due);

        visit(eh, now_ns);
        schedule(eh, now_ns);
        if (cox_heap_has(&eh->due) && (int64_t)eh->due.key <= now_ns) /* only ever later: the loop ends */
            cox_heap_set(&h->due, &eh->due, (uint64_t)(now_ns + TURN_MS * NS_PER_MS));
    }
    return first ? (int64_t)first->key : INT64_MAX;
}

static void on_timer(evutil_socket_t fd, short what, void *user)
{
    struct health *h = user;
    int64_t now_ns = cox_clock_mono_ns();

    (void)fd;
    (void)what;
    health_turn(h, now_ns);
    arm(h, now_ns);
}

/* ---- life ---- */

struct health *health_create(const struct health_config *config)
{
    struct health *h = COX_NEW(struct health);

    h->config = *config;
    h->timer = evtimer_new(config->base, on_timer, h);
    cox_rng_init(&h->rng, (uint64_t)cox_clock_mono_ns());
    return h;
}

void health_destroy(struct health *h)
{
    if (!h)
        return;
    COX_ASSERT(h->n_endpoints == 0);
    event_free(h->timer);
    cox_heap_fini(&h->due);
    cox_free(h);
}

static char *below_root(const char *url, const char *path)
{
    struct cox_buf text = { 0 };

    endpoint_url_put_root(&text, url);
    cox_buf_append_str(&text, path);
    char *ret = cox_strdup(cox_buf_cstr(&text));

    cox_buf_fini(&text);
    return ret;
}

void health_add(struct health *h, struct endpoint *e)
{
    struct endpoint_health *eh = COX_NEW(struct endpoint_health);

    eh->health = h;
    eh->e = e;
    eh->told = PLACEMENT_OPEN;
    eh->metrics_url = below_root(e->url, "/metrics");
    eh->health_url = below_root(e->url, "/health");
    cox_heap_node_init(&eh->due);
    e->health = eh;
    h->n_endpoints++;
    if (scrapes(h)) {
        int64_t every_ns = scrape_every_ms(h) * NS_PER_MS;

        eh->next_scrape_ns = cox_clock_mono_ns() + (int64_t)cox_rng_below(&h->rng, (uint64_t)every_ns);
    }
    reschedule(eh);
}

void health_remove(struct health *h, struct endpoint *e)
{
    struct endpoint_health *eh = e->health;

    if (!eh)
        return;
    if (eh->scrape) {
        upstream_cancel(eh->scrape);
        h->n_scraping--;
    }
    if (eh->probe)
        upstream_cancel(eh->probe);
    cox_heap_remove(&h->due, &eh->due);
    count_out(eh, false, false);
    e->health = NULL;
    h->n_endpoints--;
    cox_free(eh->metrics_url);
    cox_free(eh->health_url);
    cox_free(eh);
}

void health_view(const struct endpoint *e, struct health_view *ret)
{
    const struct endpoint_health *eh = e->health;
    int64_t now_ns = cox_clock_mono_ns();

    *ret = (struct health_view){
        .gate = PLACEMENT_CLOSED, .why = "gone", .engine = "", .signals = nothing_said
    };
    if (!eh)
        return;
    ret->gate = breaker_gate(&eh->breaker, now_ns);
    ret->why = eh->breaker.gate == PLACEMENT_OPEN && ret->gate == PLACEMENT_CLOSED ? "it asked for a pause"
               : ret->gate == PLACEMENT_OPEN                                       ? ""
                                                                                   : eh->breaker.why;
    ret->n_calls = eh->n_calls;
    ret->n_failures = eh->n_failures;
    ret->scraped = eh->scraped;
    ret->engine = eh->has_said ? eh->said.engine : "";
    if (eh->scraped)
        ret->signals = eh->said.load;
}
