/* Workers: attach, adoption, credit, liveness, loss (ARCHITECTURE rules 7 and 8).
 *
 * A worker is (worker_id, boot_id); its newest stream wins. Silence is not death: a worker may come back, and
 * its attempts wait for it until its liveness timer ends. After recovery every worker that holds attempts has
 * the adoption window to come back. What its Hello lists stays with it; what it does not list goes to others.
 */
#include "route.h"
#include "stats.h"
#include "workspace.h"

#include "cox/base/plant.h"

#include <string.h>

#define GAPS_MAX 8u /* that excuse one silence: a host on which they never end shall see its dead */
#define ADOPTION_EXTENSION_MS 10000 /* a reconnect says that more are on their way */
#define LARGE_FLEET 10
#define MASS_LOSS_PERCENT 20

struct worker *worker_by_ref(const struct cox_engine *e, uint32_t ref)
{
    return ref < e->n_workers_cap ? e->workers[ref] : NULL;
}

struct worker *worker_by_session(const struct cox_engine *e, uint32_t session)
{
    return session == 0 ? NULL : cox_map64_get(&e->sessions, session);
}

struct worker *worker_make(struct cox_engine *e, uint32_t ref, struct cox_slice id)
{
    if (ref >= e->n_workers_cap) {
        size_t cap = e->n_workers_cap == 0 ? 64 : e->n_workers_cap;
        while (cap <= ref)
            cap *= 2;
        e->workers = cox_realloc(e->workers, cap, sizeof e->workers[0]);
        memset(e->workers + e->n_workers_cap, 0, (cap - e->n_workers_cap) * sizeof e->workers[0]);
        e->n_workers_cap = cap;
    }
    struct worker *w = COX_NEW(struct worker);
    entity_init(&w->entity, ENTITY_WORKER, ref, 0);
    w->ref = ref;
    w->id = cox_strndup((const char *)id.data, id.len);
    cox_list_init(&w->attempts);
    cox_list_init(&w->in_fleet);
    cox_list_init(&w->in_available);
    cox_list_init(&w->in_woken);
    cox_list_init(&w->pinned);
    cox_heap_node_init(&w->liveness.node);
    w->liveness.kind = TIMER_WORKER;
    e->workers[ref] = w;
    cox_mapb_set(&e->workers_by_id, id, w);
    return w;
}

static void worker_clear_hello(struct worker *w)
{
    for (size_t i = 0; i < w->n_labels; i++) {
        cox_free((void *)(uintptr_t)w->labels[i].name.data);
        cox_free((void *)(uintptr_t)w->labels[i].value.data);
    }
    for (size_t i = 0; i < w->n_handlers; i++) {
        cox_free((void *)(uintptr_t)w->handlers[i].data);
        cox_free((void *)(uintptr_t)w->versions[i].data);
    }
    cox_free(w->labels);
    cox_free(w->handlers);
    cox_free(w->versions);
    cox_free(w->boot_id);
    cox_free(w->version);
    w->labels = NULL;
    w->handlers = w->versions = NULL;
    w->n_labels = w->n_handlers = 0;
    w->boot_id = w->version = NULL;
}

void worker_destroy(struct worker *w)
{
    if (w == NULL)
        return;
    worker_clear_hello(w);
    cox_free(w->eligible);
    cox_free(w->unreleased);
    cox_free(w->id);
    cox_free(w);
}

static struct cox_slice own(struct cox_slice s)
{
    return cox_slice(text_own(s), s.len);
}

static void worker_take_hello(struct worker *w, const struct cox_in_attach *in)
{
    worker_clear_hello(w);
    w->boot_id = cox_strndup((const char *)in->boot_id.data, in->boot_id.len);
    w->version = cox_strndup((const char *)in->version.data, in->version.len);
    w->slots = in->slots;
    w->resources = in->resources;
    w->labels = cox_calloc(in->n_labels > 0 ? in->n_labels : 1, sizeof w->labels[0]);
    for (; w->n_labels < in->n_labels; w->n_labels++)
        w->labels[w->n_labels] =
            (struct cox_label){ own(in->labels[w->n_labels].name), own(in->labels[w->n_labels].value) };
    w->handlers = cox_calloc(in->n_handlers > 0 ? in->n_handlers : 1, sizeof w->handlers[0]);
    w->versions = cox_calloc(in->n_handlers > 0 ? in->n_handlers : 1, sizeof w->versions[0]);
    for (size_t i = 0; i < in->n_handlers; i++) {
        w->handlers[i] = own(in->handlers[i]);
        if (in->versions != NULL && in->versions[i].len > 0)
            w->versions[i] = own(in->versions[i]);
    }
    w->n_handlers = in->n_handlers;
}

void worker_in_fleet(struct cox_engine *e, struct worker *w)
{
    bool is = w->session != 0 || w->n_attempts > 0;
    if (is && cox_list_empty(&w->in_fleet))
        cox_list_push_back(&e->fleet, &w->in_fleet);
    else if (!is)
        cox_list_remove(&w->in_fleet);
}

static void refuse_session(struct cox_engine *e, uint32_t session, enum cox_err err, const char *message)
{
    struct cox_action *a = act(e, COX_ACT_CLOSE);
    a->u.close.session = session;
    a->u.close.err = err;
    a->u.close.message = message;
}

static void close_session(struct cox_engine *e, struct worker *w, enum cox_err err, const char *message)
{
    refuse_session(e, w->session, err, message);
    worker_detach(e, w);
}

void worker_detach(struct cox_engine *e, struct worker *w)
{
    cox_map64_remove(&e->sessions, w->session);
    e->n_attached -= !w->inner;
    stats_slots(e, w, -1);
    w->session_before = w->session;
    w->session = 0;
    if (!COX_PLANTED("credit-carried-over"))
        w->granted = w->taken = 0;
    stats_worker(e, w);
    worker_in_fleet(e, w);
    placement_worker_gone(e, w);
    worker_watch_liveness(e, w);
}

/* ---- adoption ---- */

/* Marks what the worker still has; what it has no right to is stopped. */
static void mark_holds(struct cox_engine *e, struct worker *w, const struct cox_in_attach *in)
{
    for (size_t i = 0; i < in->n_holds; i++) {
        struct cox_ref ref = in->holds[i];
        enum cox_answer why;
        struct attempt *held = attempt_find(e, ref, &why);
        if (held != NULL && held->worker == w) {
            held->holds_mark = in->session;
            continue;
        }
        struct cox_action *a = act(e, COX_ACT_CANCEL);
        a->u.attempt.session = in->session;
        a->u.attempt.ref = ref;
    }
}

/* The worker has it, so the start limit is over; how long it has run is not known here, so its timeout is
 * counted anew as a backstop: the worker itself keeps the true one. */
static void adopt(struct cox_engine *e, struct attempt *a)
{
    struct cox_image_call call;
    attempt_arrived(e, a);
    step_call(a->task, a->step_index, a->step, &call);
    if (a->cancelling || a->task->stopping != COX_TASK_NONE || a->step->flags & STEP_STOPPING) {
        a->cancelling = false;
        attempt_cancel(e, a);
    } else if (call.timeout_ms > 0) {
        timer_set(e, &a->timer, timeout_at(e, &call, a));
    }
    changed(e, a->task, a->step_index); /* its worker is no longer away */
}

static void settle_attempts(struct cox_engine *e, struct worker *w, uint32_t session, bool rebooted)
{
    struct cox_list mine;
    cox_list_init(&mine);
    COX_LIST_FOR_EACH (it, &w->attempts) { /* moved aside: what follows may assign to this worker again */
        cox_list_remove(it);
        cox_list_push_back(&mine, it);
    }
    while (!cox_list_empty(&mine)) {
        struct attempt *a = COX_CONTAINER_OF(mine.next, struct attempt, in_worker);
        cox_list_remove(&a->in_worker);
        cox_list_push_back(&w->attempts, &a->in_worker);
        if (a->holds_mark == session && !COX_PLANTED("double-dispatch-after-adoption"))
            adopt(e, a);
        else if (rebooted && !COX_PLANTED("reboot-not-charged"))
            attempt_lost(e, a);
        else
            attempt_withdraw(e, a, false);
    }
}

void worker_attach(struct cox_engine *e, const struct cox_in_attach *in)
{
    struct worker *w = cox_mapb_get(&e->workers_by_id, in->worker_id);
    if (w == NULL) {
        struct record r = { .type = RECORD_WORKER_NAMED };
        r.u.worker.ref = e->meta.last_worker_ref + 1;
        r.u.worker.id = in->worker_id;
        emit(e, &r);
        w = worker_by_ref(e, r.u.worker.ref);
    }
    if (w->session != 0 && w->inner && !in->inner) { /* its name is taken, whoever says so */
        refuse_session(e, in->session, COX_ERR_INVALID, "hello.worker_id: this is the router's");
        return;
    }
    if (w->session != 0 && !COX_PLANTED("older-stream-stays"))
        close_session(e, w, COX_ERR_STALE, "a newer stream of this worker was opened");
    bool rebooted = w->boot_id != NULL && !cox_slice_is(in->boot_id, w->boot_id);
    bool another = rebooted || w->boot_id == NULL;
    worker_take_hello(w, in);
    w->inner = in->inner;
    if (in->inner) {
        e->router = w;
        ledgers_edge_back(e);
    }
    w->session = in->session;
    if (!COX_PLANTED("credit-carried-over"))
        w->granted = w->taken = 0;
    w->draining = w->gone = false;
    w->attached_wall_ms = e->now.wall_ms;
    cox_map64_set(&e->sessions, in->session, w);
    worker_in_fleet(e, w);
    e->n_attached += !w->inner;
    stats_slots(e, w, 1);
    stats_worker(e, w);
    workspaces_release_late(e, w);
    mark_holds(e, w, in);
    settle_attempts(e, w, in->session, rebooted);
    if (another)
        route_worker_changed(e, w); /* files that steps wait for are gone with the process before */
    placement_worker_classes(e, w);
    worker_seen(e, w);
    worker_watch_liveness(e, w);
    int64_t extended = e->now.mono_ns + ADOPTION_EXTENSION_MS * NS_PER_MS;
    if (e->now.mono_ns < e->adoption_until_ns && extended > e->adoption_until_ns)
        e->adoption_until_ns = extended;
}

/* ---- credit ---- */

void worker_credit(struct cox_engine *e, struct worker *w, uint64_t granted)
{
    if (granted < w->granted) {
        close_session(e, w, COX_ERR_INVALID, "credit.granted fell; it is cumulative on a stream");
        return;
    }
    if (granted > w->taken + COX_WORKER_SLOTS_MAX)
        granted = w->taken + COX_WORKER_SLOTS_MAX; /* a bound on what one worker may hoard */
    if (granted > w->granted && !(COX_PLANTED("lost-credit") && w->taken > 0 && w->taken == w->granted))
        w->granted = granted;
    placement_worker_changed(e, w);
}

void worker_draining(struct cox_engine *e, struct worker *w)
{
    w->draining = true;
    stats_worker(e, w);
    placement_worker_changed(e, w);
    route_worker_changed(e, w);
}

/* ---- what operators say ---- */

void worker_policy(struct cox_engine *e, const struct cox_in_policy *in)
{
    struct worker *w = cox_mapb_get(&e->workers_by_id, in->worker_id);
    bool cordon = in->what != COX_POLICY_UNCORDON;
    if (w != NULL && w->inner)
        w = NULL; /* no host of anybody's */
    if (w != NULL && w->cordoned != cordon) {
        struct record r = { .type = RECORD_POLICY, .wall_ms = e->now.wall_ms };
        r.u.policy.ref = w->ref;
        r.u.policy.cordoned = cordon;
        emit(e, &r);
        stats_worker(e, w);
        placement_worker_changed(e, w);
        if (cordon)
            route_worker_changed(e, w);
    }
    if (w != NULL && in->what == COX_POLICY_DRAIN && w->session != 0)
        act(e, COX_ACT_DRAIN)->u.worker.session = w->session;
    act(e, COX_ACT_REPLY)->u.reply =
        (struct cox_act_reply){ .request = in->request, .err = w != NULL ? COX_OK : COX_ERR_NOT_FOUND };
}

/* ---- liveness: the timer is moved when it fires, not at each sign of life ---- */

void worker_seen(struct cox_engine *e, struct worker *w)
{
    w->last_seen_mono_ns = e->now.mono_ns;
    w->n_gaps_seen = e->n_gaps;
}

/* What was said while we were stopped comes late, and who has lost us has to find us again: nobody is judged
 * by a silence that was ours. */
void fleet_gap(struct cox_engine *e, int64_t gap_ns)
{
    int64_t patience_ns = gap_ns < COX_LOST_MS * NS_PER_MS ? gap_ns : COX_LOST_MS * NS_PER_MS;
    if (e->now.mono_ns - gap_ns < e->adoption_until_ns && e->n_gaps < GAPS_MAX)
        e->adoption_until_ns += gap_ns;
    e->n_gaps++;
    e->woke_ns = e->now.mono_ns;
    e->patience_until_ns = COX_PLANTED("gap-in-the-timeout") ? 0 : e->now.mono_ns + patience_ns;
}

/* A silence that began after `since` gaps is not to be judged yet. */
bool gap_excuses(const struct cox_engine *e, uint32_t since)
{
    return e->now.mono_ns < e->patience_until_ns &&
           (e->n_gaps - since <= GAPS_MAX || COX_PLANTED("gaps-excuse-for-ever"));
}

/* We were stopped a moment ago, and it may not have found the time to say that it lives, or what it has done.
 */
bool worker_unheard(const struct cox_engine *e, const struct worker *w)
{
    return gap_excuses(e, w->n_gaps_seen) && (w->session == 0 || w->last_seen_mono_ns < e->woke_ns);
}

static int64_t lost_at(const struct cox_engine *e, const struct worker *w)
{
    int64_t at = w->last_seen_mono_ns + COX_LOST_MS / (COX_PLANTED("lost-too-soon") ? 4 : 1) * NS_PER_MS;
    if (w->boot_id == NULL && at < e->adoption_until_ns && !COX_PLANTED("adoption-window-ignored"))
        at = e->adoption_until_ns; /* not seen since recovery */
    if (at < e->loss_suspended_until_ns)
        at = e->loss_suspended_until_ns;
    if (at < e->patience_until_ns && worker_unheard(e, w))
        at = e->patience_until_ns;
    return at;
}

void worker_watch_liveness(struct cox_engine *e, struct worker *w)
{
    bool waited_for = w->n_attempts > 0 || !cox_list_empty(&w->pinned) || w->boot_id != NULL;
    if ((w->session == 0 && (w->gone || !waited_for)) || COX_PLANTED("silence-is-patience"))
        timer_clear(e, &w->liveness);
    else
        timer_set(e, &w->liveness, lost_at(e, w));
}

/* Many workers silent at once is a network or orchestrator fault more often than many deaths. */
static bool mass_loss(struct cox_engine *e)
{
    uint64_t n_fleet = 0, n_silent = 0;
    COX_LIST_FOR_EACH (it, &e->fleet) {
        const struct worker *w = COX_CONTAINER_OF(it, struct worker, in_fleet);
        n_fleet++;
        if (e->now.mono_ns - w->last_seen_mono_ns >= COX_LOST_MS * NS_PER_MS)
            n_silent++;
    }
    return n_fleet >= LARGE_FLEET && n_silent * 100 > n_fleet * MASS_LOSS_PERCENT &&
           !COX_PLANTED("mass-loss-believed");
}

static bool suspend_losses(struct cox_engine *e, const struct worker *w)
{
    int64_t window_ns = COX_ADOPTION_MS * NS_PER_MS;
    if (w->boot_id == NULL)
        return false; /* not seen since recovery: the adoption window was its chance */
    if (e->loss_suspended_until_ns != 0 && e->now.mono_ns < e->loss_suspended_until_ns + window_ns)
        return false; /* one window at a time */
    if (!mass_loss(e))
        return false;
    e->loss_suspended_until_ns = e->now.mono_ns + window_ns;
    act(e, COX_ACT_ALARM)->u.alarm.text = "more than 20 % of the fleet fell silent together: no worker is "
                                          "declared lost for one adoption window";
    return true;
}

void worker_timer(struct cox_engine *e, struct worker *w)
{
    if (lost_at(e, w) > e->now.mono_ns || suspend_losses(e, w)) {
        worker_watch_liveness(e, w);
        return;
    }
    if (w->session != 0)
        close_session(e, w, COX_ERR_TIMEOUT, "silent for longer than lost_ms");
    w->gone = true; /* what follows is not to wait for it */
    while (!cox_list_empty(&w->attempts))
        attempt_lost(e, COX_CONTAINER_OF(w->attempts.next, struct attempt, in_worker));
    route_worker_gone(e, w);
    stats_worker(e, w);
    timer_clear(e, &w->liveness);
}
