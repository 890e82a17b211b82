/* The end of a turn: timers fire, then everything the orchestrator should know leaves as one message.
 *
 * A turn that comes late (the process was stopped, the machine slept) fires nothing: it asks to be called
 * again at once, so that what waits in sockets and rings is read before anybody is declared too slow.
 */
#include "agent_state.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#define LATE_NS (100 * NS_PER_MS)

static struct attempt *first(const struct cox_list *l)
{
    return cox_list_empty(l) ? NULL : COX_CONTAINER_OF(l->next, struct attempt, link);
}

static bool holds_something(const struct cox_agent *a)
{
    return a->n_queued + a->n_running + a->n_kept > 0;
}

static bool runs_something(const struct cox_agent *a)
{
    return a->n_running + a->n_zombies > 0;
}

static int64_t earlier(int64_t x_ns, int64_t y_ns)
{
    return x_ns < y_ns ? x_ns : y_ns;
}

/* ---------------------------------------------------------------- timers */

static void fire_timeouts(struct cox_agent *a, int64_t now_ns, struct cox_agent_actions *actions)
{
    struct cox_heap_node *n = cox_heap_min(&a->deadlines);

    for (; n && n->key <= (uint64_t)now_ns; n = cox_heap_min(&a->deadlines)) {
        cox_heap_remove(&a->deadlines, n);
        agent_kill(COX_CONTAINER_OF(n, struct attempt, deadline), KILL_TIMEOUT, actions);
    }
}

static void preempt_running(struct cox_agent *a, struct cox_agent_actions *actions)
{
    struct cox_list *lists[] = { &a->reported, &a->quiet };

    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        COX_LIST_FOR_EACH (it, lists[i])
            agent_kill(COX_CONTAINER_OF(it, struct attempt, link), KILL_PREEMPTED, actions);
}

static void fire_timers(struct cox_agent *a, int64_t now_ns, struct cox_agent_actions *actions)
{
    fire_timeouts(a, now_ns, actions);
    if (a->draining && now_ns >= a->drain_at_ns) {
        preempt_running(a, actions);
        a->preempted = true;
    }
    if (a->stream != COX_AGENT_UP && holds_something(a) &&
        (COX_PLANTED("orphans-stop-at-once") ||
         now_ns >= agent_after_ms(a->down_since_ns, (uint64_t)a->config.orphan_timeout_ms)))
        agent_forget_all(a, actions);
    if ((a->stream == COX_AGENT_DIALLING || a->stream == COX_AGENT_GREETING) && !a->hang_up_why &&
        now_ns >= agent_after_ms(a->dialled_ns, COX_AGENT_WELCOME_LIMIT_MS))
        a->hang_up_why = "no Welcome came in time";
}

/* ---------------------------------------------------------------- credit */

/* As much work as its slots do in COX_PREFETCH_MS: enough to bridge the way to the orchestrator's disk and
 * back, too little to matter when somebody else could have done it. */
uint32_t agent_prefetch(const struct cox_agent *a)
{
    int64_t n;

    if (a->draining || a->prefetch_shut || a->mean_run_ns == 0)
        return 0;
    n = a->config.slots * COX_PREFETCH_MS * NS_PER_MS / a->mean_run_ns;
    if (n > (int64_t)a->config.slots * COX_AGENT_PREFETCH_SLOT_MAX)
        n = (int64_t)a->config.slots * COX_AGENT_PREFETCH_SLOT_MAX;
    return n < COX_AGENT_PREFETCH_MAX ? (uint32_t)n : COX_AGENT_PREFETCH_MAX;
}

/* Credit is worth a message of its own when the orchestrator could run out of it; else it waits for company.
 */
static void send_credit(struct cox_agent *a, bool company, struct cox_agent_actions *actions)
{
    uint64_t capacity = (uint64_t)a->config.slots + agent_prefetch(a);
    uint64_t taken =
        (uint64_t)a->n_queued + a->n_running + (COX_PLANTED("credit-for-dying-slots") ? 0 : a->n_zombies);
    uint64_t granted = a->assigned + (capacity > taken ? capacity - taken : 0);
    uint64_t outstanding = a->granted - a->assigned;

    if (a->draining || granted <= a->granted || a->kept_len >= a->config.kept_len_max)
        return;
    if (!company && (granted - a->granted) * 4 < capacity && outstanding * 2 >= capacity)
        return;
    a->granted = granted;
    agent_act(actions, COX_AGENT_SEND_CREDIT)->u.granted = granted;
}

/* ---------------------------------------------------------------- messages */

static void add_holds(struct cox_agent *a, const struct cox_list *l, size_t *n)
{
    for (const struct cox_list *it = l->next; it != l; it = it->next)
        a->holds[(*n)++] = ((const struct attempt *)(const void *)it)->assign.ref;
}

static void send_hello(struct cox_agent *a, struct cox_agent_actions *actions)
{
    struct cox_agent_action *act = agent_act(actions, COX_AGENT_SEND_HELLO);
    size_t n_holds = (size_t)a->n_queued + a->n_running + a->n_kept;
    size_t n = 0;

    if (n_holds > a->cap_holds) {
        a->holds = cox_realloc(a->holds, n_holds, sizeof(*a->holds));
        a->cap_holds = n_holds;
    }
    add_holds(a, &a->unsent, &n);
    add_holds(a, &a->quiet, &n);
    add_holds(a, &a->queue, &n);
    COX_ASSERT(n == n_holds);
    act->u.hello.shard_uid = a->shard_uid;
    act->u.hello.holds = a->holds;
    act->u.hello.n_holds = n;
    a->hello_sent = true;
}

static void send_started(struct cox_agent *a, int64_t now_ns, struct cox_agent_actions *actions)
{
    struct attempt *at = first(&a->quiet);

    for (; at && now_ns >= agent_after_ms(at->since_ns, COX_START_REPORT_MS); at = first(&a->quiet)) {
        agent_act(actions, COX_AGENT_SEND_STARTED)->ref = at->assign.ref;
        cox_list_remove(&at->link);
        cox_list_push_back(&a->reported, &at->link);
    }
}

/* One result leaves when there is any room, however large it is; others only as far as they fit, so that a
 * message is never larger than the room, or than one result. */
static void send_results(struct cox_agent *a, size_t room_len, struct cox_agent_actions *actions)
{
    bool is_first = room_len > 0;

    for (struct attempt *at = first(&a->unsent); at; at = first(&a->unsent), is_first = false) {
        size_t len = at->body.len + sizeof(*at);
        struct cox_agent_action *act;

        if (!is_first && len > room_len)
            return;
        act = agent_act(actions, COX_AGENT_SEND_RESULT);
        act->ref = at->assign.ref;
        act->u.result = &at->result;
        cox_list_remove(&at->link);
        cox_list_push_back(&a->sent, &at->link);
        room_len -= len < room_len ? len : room_len;
    }
}

/* What waits too long here may start at once elsewhere. */
static void send_returned(struct cox_agent *a, int64_t now_ns, bool late, struct cox_agent_actions *actions)
{
    struct attempt *at = first(&a->queue);

    for (; at; at = first(&a->queue)) {
        if (!a->draining && (late || COX_PLANTED("returned-late") ||
                             now_ns < agent_after_ms(at->since_ns, COX_PREFETCH_HOLD_MS)))
            return;
        if (at->log_wanted)
            agent_log_end(a, at->assign.ref);
        agent_act(actions, COX_AGENT_SEND_RETURNED)->ref = at->assign.ref;
        agent_forget(a, at);
        a->n_returned++;
        a->prefetch_shut = true;
        if (a->mean_run_ns < COX_PREFETCH_HOLD_MS * NS_PER_MS)
            a->mean_run_ns = COX_PREFETCH_HOLD_MS * NS_PER_MS;
    }
}

static void send_log_ends(struct cox_agent *a, struct cox_agent_actions *actions)
{
    for (size_t i = 0; i < a->n_log_ends; i++)
        agent_act(actions, COX_AGENT_SEND_LOG_END)->ref = a->log_ends[i];
    a->n_log_ends = 0;
}

static void send_all(struct cox_agent *a, int64_t now_ns, size_t room_len, bool late,
                     struct cox_agent_actions *actions)
{
    size_t before = actions->len;

    if (a->stream == COX_AGENT_GREETING && !a->hello_sent)
        send_hello(a, actions);
    if (a->stream == COX_AGENT_UP) {
        if (a->draining && !a->draining_sent) {
            agent_act(actions, COX_AGENT_SEND_DRAINING);
            a->draining_sent = true;
            a->draining_sent_ns = now_ns;
        }
        send_started(a, now_ns, actions);
        send_results(a, room_len, actions);
        send_returned(a, now_ns, late, actions);
        send_log_ends(a, actions);
        send_credit(a, actions->len > before, actions);
        if (actions->len == before && !COX_PLANTED("beats-forgotten") &&
            now_ns >= agent_after_ms(a->last_sent_ns, (uint64_t)a->beat_ms))
            agent_act(actions, COX_AGENT_SEND_BEAT);
    }
    if (actions->len > before)
        a->last_sent_ns = now_ns;
}

/* ---------------------------------------------------------------- dialling and leaving */

static void mind_stream(struct cox_agent *a, int64_t now_ns, struct cox_agent_actions *actions)
{
    if (a->hang_up_why && a->stream != COX_AGENT_DOWN && a->stream != COX_AGENT_LEAVING) {
        agent_act(actions, COX_AGENT_HANG_UP)->u.why = a->hang_up_why;
        a->stream = COX_AGENT_LEAVING;
    }
    if (a->stream == COX_AGENT_DOWN && now_ns >= a->dial_at_ns) {
        agent_act(actions, COX_AGENT_DIAL)->address = a->address;
        a->stream = COX_AGENT_DIALLING;
        a->dialled_ns = now_ns;
    }
}

/* Without a stream that lists them, queued attempts go by not being in the next Hello. */
static void drop_queue(struct cox_agent *a)
{
    struct attempt *at = first(&a->queue);

    for (; at; at = first(&a->queue)) {
        agent_forget(a, at);
        a->n_dropped++;
    }
}

/* The last assignments may still be under way when DRAINING leaves: they come, and are given back. */
static bool lingers(const struct cox_agent *a, int64_t now_ns)
{
    if (a->stream != COX_AGENT_UP)
        return false;
    return !a->draining_sent ||
           (a->granted > a->assigned && now_ns < agent_after_ms(a->draining_sent_ns, COX_AGENT_LINGER_MS));
}

static void mind_idleness(struct cox_agent *a, int64_t now_ns, bool late)
{
    if (holds_something(a) || runs_something(a))
        a->idle_since_ns = NEVER_NS;
    else if (a->idle_since_ns == NEVER_NS)
        a->idle_since_ns = now_ns;
    if (!late && a->config.idle_exit_ms > 0 && a->idle_since_ns != NEVER_NS &&
        now_ns >= agent_after_ms(a->idle_since_ns, (uint64_t)a->config.idle_exit_ms))
        agent_drain(a, "idle for long enough");
}

static void mind_leaving(struct cox_agent *a, int64_t now_ns, bool late, struct cox_agent_actions *actions)
{
    const char *why = NULL;

    if (!a->draining)
        return;
    if (a->stream == COX_AGENT_DOWN || a->stream == COX_AGENT_DIALLING)
        drop_queue(a);
    if (!runs_something(a))
        a->exit_by_ns = earlier(a->exit_by_ns, agent_after_ms(now_ns, COX_AGENT_ANSWER_LIMIT_MS));
    if (!holds_something(a) && !runs_something(a)) {
        if (!lingers(a, now_ns))
            why = a->exit_why;
    } else if (!late && now_ns >= a->exit_by_ns) {
        why = "waited long enough for answers";
    }
    if (why) {
        agent_act(actions, COX_AGENT_EXIT)->u.why = why;
        a->exited = true;
    }
}

/* ---------------------------------------------------------------- turn */

static int64_t next_wake(const struct cox_agent *a)
{
    const struct attempt *quiet = first(&a->quiet);
    const struct attempt *queued = first(&a->queue);
    const struct cox_heap_node *deadline = cox_heap_min(&a->deadlines);
    int64_t wake_ns = deadline ? (int64_t)deadline->key : NEVER_NS;

    switch (a->stream) {
    case COX_AGENT_DOWN:
        wake_ns = earlier(wake_ns, a->dial_at_ns);
        break;
    case COX_AGENT_DIALLING:
    case COX_AGENT_GREETING:
        wake_ns = earlier(wake_ns, agent_after_ms(a->dialled_ns, COX_AGENT_WELCOME_LIMIT_MS));
        break;
    case COX_AGENT_UP:
        wake_ns = earlier(wake_ns, agent_after_ms(a->last_sent_ns, (uint64_t)a->beat_ms));
        if (quiet)
            wake_ns = earlier(wake_ns, agent_after_ms(quiet->since_ns, COX_START_REPORT_MS));
        if (queued)
            wake_ns = earlier(wake_ns, agent_after_ms(queued->since_ns, COX_PREFETCH_HOLD_MS));
        break;
    case COX_AGENT_LEAVING:
        break;
    }
    if (a->stream != COX_AGENT_UP && holds_something(a))
        wake_ns = earlier(wake_ns, agent_after_ms(a->down_since_ns, (uint64_t)a->config.orphan_timeout_ms));
    if (!a->draining && a->config.idle_exit_ms > 0 && a->idle_since_ns != NEVER_NS)
        wake_ns = earlier(wake_ns, agent_after_ms(a->idle_since_ns, (uint64_t)a->config.idle_exit_ms));
    if (a->draining) {
        wake_ns = earlier(wake_ns, a->exit_by_ns);
        if (a->n_running > 0 && !a->preempted)
            wake_ns = earlier(wake_ns, a->drain_at_ns);
        if (a->stream == COX_AGENT_UP && a->draining_sent && !holds_something(a) && !runs_something(a))
            wake_ns = earlier(wake_ns, agent_after_ms(a->draining_sent_ns, COX_AGENT_LINGER_MS));
    }
    return wake_ns;
}

void agent_turn(struct cox_agent *a, int64_t now_ns, size_t room_len, struct cox_agent_actions *actions)
{
    bool late = a->wake_ns != NEVER_NS && now_ns - a->wake_ns > LATE_NS;

    if (!late || COX_PLANTED("late-turn-fires"))
        fire_timers(a, now_ns, actions);
    agent_start_ready(a, now_ns, actions);
    mind_idleness(a, now_ns, late);
    if (!a->hang_up_why)
        send_all(a, now_ns, room_len, late, actions);
    mind_leaving(a, now_ns, late, actions);
    if (a->exited) {
        a->wake_ns = NEVER_NS;
        return;
    }
    mind_stream(a, now_ns, actions);
    a->wake_ns = late ? now_ns : next_wake(a);
}
