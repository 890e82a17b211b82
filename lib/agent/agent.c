/* The agent's memory, and what each input does to it. What a turn's end does is in agent_turn.c.
 *
 * An attempt is in exactly one list and, while anybody may ask for it, in the index. Whatever ends it, a
 * result, a return or being forgotten, happens once, because each is the way out of its list.
 */
#include "agent_state.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"

#define BODY_CAP_KEEP 4096u /* larger buffers are not kept in the pool */
#define MEAN_RUN_MIN_NS INT64_C(1000)
#define MEAN_WEIGHT 8

/* ---------------------------------------------------------------- small things */

int64_t agent_after_ms(int64_t ns, uint64_t ms)
{
    int64_t delta_ns;
    int64_t sum_ns;

    if (__builtin_mul_overflow(ms, NS_PER_MS, &delta_ns) || __builtin_add_overflow(ns, delta_ns, &sum_ns))
        return NEVER_NS;
    return sum_ns;
}

struct cox_agent_action *agent_act(struct cox_agent_actions *actions, enum cox_agent_action_kind kind)
{
    struct cox_agent_action *act;

    if (actions->len == actions->cap) {
        actions->cap = actions->cap ? actions->cap * 2 : 64;
        actions->items = cox_realloc(actions->items, actions->cap, sizeof(*actions->items));
    }
    act = &actions->items[actions->len++];
    *act = (struct cox_agent_action){ .kind = kind };
    return act;
}

void cox_agent_actions_fini(struct cox_agent_actions *actions)
{
    cox_free(actions->items);
    *actions = (struct cox_agent_actions){ 0 };
}

/* Moves all of `from` to the front of `to`, order kept. */
static void splice_front(struct cox_list *to, struct cox_list *from)
{
    if (cox_list_empty(from))
        return;
    from->prev->next = to->next;
    to->next->prev = from->prev;
    to->next = from->next;
    from->next->prev = to;
    cox_list_init(from);
}

static void clear_body(struct cox_buf *b)
{
    if (b->cap > BODY_CAP_KEEP)
        cox_buf_fini(b);
    else
        cox_buf_clear(b);
}

/* ---------------------------------------------------------------- index and pool */

static uint64_t index_key(struct cox_ref ref)
{
    return ref.token.counter ^ (ref.token.epoch << 40 | ref.token.epoch >> 24);
}

static struct attempt *find(const struct cox_agent *a, struct cox_ref ref)
{
    struct attempt *at = cox_map64_get(&a->index, index_key(ref));

    while (at && !cox_ref_eq(at->assign.ref, ref))
        at = at->next_same;
    return at;
}

static void index_add(struct cox_agent *a, struct attempt *at)
{
    at->next_same = cox_map64_set(&a->index, index_key(at->assign.ref), at);
}

static void index_remove(struct cox_agent *a, struct attempt *at)
{
    uint64_t key = index_key(at->assign.ref);
    struct attempt *head = cox_map64_get(&a->index, key);

    if (head != at) {
        while (head->next_same != at)
            head = head->next_same;
        head->next_same = at->next_same;
    } else if (at->next_same) {
        cox_map64_set(&a->index, key, at->next_same);
    } else {
        cox_map64_remove(&a->index, key);
    }
    at->next_same = NULL;
}

/* An attempt with a place in the index and in no list. */
static struct attempt *take(struct cox_agent *a, struct cox_ref ref, int64_t now_ns)
{
    struct attempt *at;

    if (cox_list_empty(&a->pool)) {
        at = COX_NEW(struct attempt);
        cox_list_init(&at->link);
        cox_heap_node_init(&at->deadline);
    } else {
        at = COX_CONTAINER_OF(a->pool.next, struct attempt, link);
        cox_list_remove(&at->link);
    }
    at->cause = KILL_NONE;
    at->log_wanted = false;
    at->since_ns = now_ns;
    at->assign = (struct cox_agent_assign){ .ref = ref };
    index_add(a, at);
    a->idle_since_ns = NEVER_NS;
    return at;
}

static size_t kept_cost(const struct attempt *at)
{
    return sizeof(*at) + at->body.len;
}

static void to_pool(struct cox_agent *a, struct attempt *at)
{
    cox_list_remove(&at->link);
    clear_body(&at->body);
    cox_list_push_front(&a->pool, &at->link);
}

void agent_forget(struct cox_agent *a, struct attempt *at)
{
    COX_ASSERT(at->state == ATTEMPT_QUEUED || at->state == ATTEMPT_ENDED);
    if (at->state == ATTEMPT_QUEUED) {
        a->n_queued--;
    } else {
        a->n_kept--;
        a->kept_len -= kept_cost(at);
    }
    index_remove(a, at);
    to_pool(a, at);
}

/* ---------------------------------------------------------------- running */

static bool fits(const struct cox_agent *a, const struct cox_resources *want)
{
    const struct cox_resources *has = &a->config.resources;

    return (has->cpu_milli == 0 || want->cpu_milli <= has->cpu_milli - a->used.cpu_milli) &&
           (has->memory_bytes == 0 || want->memory_bytes <= has->memory_bytes - a->used.memory_bytes) &&
           (has->disk_bytes == 0 || want->disk_bytes <= has->disk_bytes - a->used.disk_bytes);
}

/* Sums of undeclared resources are never looked at and would overflow: only declared ones are kept. */
static void occupy(struct cox_agent *a, const struct cox_resources *r, int64_t sign)
{
    const struct cox_resources *has = &a->config.resources;

    a->used.cpu_milli += has->cpu_milli ? sign * r->cpu_milli : 0;
    a->used.memory_bytes += has->memory_bytes ? sign * r->memory_bytes : 0;
    a->used.disk_bytes += has->disk_bytes ? sign * r->disk_bytes : 0;
}

/* The time limit is each item's; the slots mind that, this the sum. */
static int64_t deadline_ns(const struct cox_agent_assign *assign, int64_t now_ns)
{
    uint64_t total_ms;

    if (__builtin_mul_overflow(assign->timeout_ms, assign->n_items > 1 ? assign->n_items : 1, &total_ms))
        return NEVER_NS;
    return agent_after_ms(now_ns, total_ms);
}

static void start(struct cox_agent *a, struct attempt *at, int64_t now_ns, struct cox_agent_actions *actions)
{
    struct cox_agent_action *act = agent_act(actions, COX_AGENT_START);

    cox_list_remove(&at->link);
    cox_list_push_back(&a->quiet, &at->link);
    a->n_queued--;
    a->n_running++;
    a->n_started++;
    at->state = ATTEMPT_RUNNING;
    at->since_ns = now_ns;
    at->slot = a->free_slots[--a->n_free_slots];
    a->slots[at->slot] = at;
    occupy(a, &at->assign.resources, 1);
    if (at->assign.timeout_ms > 0)
        cox_heap_set(&a->deadlines, &at->deadline, (uint64_t)deadline_ns(&at->assign, now_ns));
    act->slot = at->slot;
    act->ref = at->assign.ref;
    act->u.assign = &at->assign;
    if (at->log_wanted) {
        act = agent_act(actions, COX_AGENT_LOG);
        act->slot = at->slot;
        act->ref = at->assign.ref;
        act->wanted = true;
    }
}

void agent_start_ready(struct cox_agent *a, int64_t now_ns, struct cox_agent_actions *actions)
{
    while (a->n_free_slots > 0 && !cox_list_empty(&a->queue) && !a->draining) {
        struct attempt *at = COX_CONTAINER_OF(a->queue.next, struct attempt, link);

        if (!fits(a, &at->assign.resources))
            return;
        start(a, at, now_ns, actions);
    }
}

void agent_kill(struct attempt *at, enum kill_cause cause, struct cox_agent_actions *actions)
{
    struct cox_agent_action *act;

    if (at->cause != KILL_NONE)
        return;
    at->cause = cause;
    act = agent_act(actions, COX_AGENT_KILL);
    act->slot = at->slot;
    act->ref = at->assign.ref;
}

static void forget_running(struct cox_agent *a, struct attempt *at, struct cox_agent_actions *actions)
{
    agent_kill(at, KILL_FORGOTTEN, actions);
    index_remove(a, at);
    cox_heap_remove(&a->deadlines, &at->deadline);
    cox_list_remove(&at->link);
    cox_list_push_back(&a->zombies, &at->link);
    at->state = ATTEMPT_ZOMBIE;
    a->n_running--;
    a->n_zombies++;
    a->n_dropped++;
}

void agent_forget_all(struct cox_agent *a, struct cox_agent_actions *actions)
{
    struct cox_list *waiting[] = { &a->queue, &a->unsent, &a->sent };
    struct cox_list *running[] = { &a->reported, &a->quiet };

    for (size_t i = 0; i < sizeof(waiting) / sizeof(waiting[0]); i++)
        COX_LIST_FOR_EACH (it, waiting[i]) {
            agent_forget(a, COX_CONTAINER_OF(it, struct attempt, link));
            a->n_dropped++;
        }
    for (size_t i = 0; i < sizeof(running) / sizeof(running[0]); i++)
        COX_LIST_FOR_EACH (it, running[i])
            forget_running(a, COX_CONTAINER_OF(it, struct attempt, link), actions);
}

/* ---------------------------------------------------------------- ending */

/* `at` is in no list and in no count: it becomes a kept result. */
static void finish(struct cox_agent *a, struct attempt *at, const struct cox_agent_result *result)
{
    struct cox_buf *b = &a->spare;
    struct cox_buf body;

    cox_agent_copy_result(b, &at->result, result);
    body = at->body;
    at->body = a->spare;
    a->spare = body;
    clear_body(&a->spare);
    at->state = ATTEMPT_ENDED;
    cox_list_remove(&at->link);
    cox_list_push_back(&a->unsent, &at->link);
    a->n_kept++;
    a->n_ended++;
    a->kept_len += kept_cost(at);
}

static void finish_cancelled(struct cox_agent *a, struct attempt *at)
{
    struct cox_agent_result result = {
        .status = COX_ATTEMPT_CANCELLED,
        .code = COX_CODE_CANCELLED,
        .message = cox_slice_str("cancelled before it started"),
    };

    finish(a, at, &result);
}

/* What a killed attempt reports, whatever it made of its last moments. The text lives in `text`. */
static void judge_killed(const struct attempt *at, struct cox_agent_result *result, struct cox_buf *text)
{
    switch (at->cause) {
    case KILL_NONE:
    case KILL_FORGOTTEN:
        return;
    case KILL_TIMEOUT:
        if (COX_PLANTED("killed-counts-as-done"))
            return;
        result->status = COX_ATTEMPT_TIMED_OUT;
        result->code = COX_CODE_TIMEOUT;
        cox_buf_append_str(text, "stopped after its time limit of ");
        cox_put_duration(text, (int64_t)at->assign.timeout_ms);
        break;
    case KILL_CANCELLED:
        result->status = COX_ATTEMPT_CANCELLED;
        result->code = COX_CODE_CANCELLED;
        cox_buf_append_str(text, "cancelled while it ran");
        break;
    case KILL_PREEMPTED:
        result->status = COX_ATTEMPT_FAILED;
        result->code = COX_CODE_PREEMPTED;
        cox_buf_append_str(text, "stopped because its worker had to leave");
        break;
    }
    result->message = cox_buf_slice(text);
    result->continuation_json = result->artifacts_json = cox_slice(NULL, 0); /* they go with success */
}

static void on_slot_ended(struct cox_agent *a, const struct cox_agent_input *in,
                          struct cox_agent_actions *actions)
{
    uint32_t slot = in->u.ended.slot;
    struct cox_agent_result result = in->u.ended.result;
    struct cox_buf text = { 0 };
    struct attempt *at;
    int64_t run_ns;

    COX_ASSERT(slot < a->config.slots && a->slots[slot]);
    at = a->slots[slot];
    a->slots[slot] = NULL;
    a->free_slots[a->n_free_slots++] = slot;
    occupy(a, &at->assign.resources, -1);

    run_ns = in->now_mono_ns - at->since_ns;
    a->mean_run_ns = a->mean_run_ns ? a->mean_run_ns + (run_ns - a->mean_run_ns) / MEAN_WEIGHT : run_ns;
    if (a->mean_run_ns < MEAN_RUN_MIN_NS)
        a->mean_run_ns = MEAN_RUN_MIN_NS;
    a->prefetch_shut = false;

    if (at->state == ATTEMPT_ZOMBIE) {
        a->n_zombies--;
        to_pool(a, at);
    } else {
        a->n_running--;
        cox_heap_remove(&a->deadlines, &at->deadline);
        judge_killed(at, &result, &text);
        if (at->log_wanted)
            agent_log_end(a, at->assign.ref);
        finish(a, at, &result);
        cox_buf_fini(&text);
    }
    agent_start_ready(a, in->now_mono_ns, actions);
}

/* ---------------------------------------------------------------- from the orchestrator */

static void hang_up(struct cox_agent *a, const char *why)
{
    if (!a->hang_up_why)
        a->hang_up_why = why;
}

static void on_welcome(struct cox_agent *a, const struct cox_agent_input *in,
                       struct cox_agent_actions *actions)
{
    if (a->stream != COX_AGENT_GREETING || !a->hello_sent) {
        hang_up(a, "the orchestrator broke the protocol: a second Welcome, or one before Hello");
        return;
    }
    if (a->shard_uid != 0 && a->shard_uid != in->u.welcome.shard_uid && !COX_PLANTED("other-shard-keeps"))
        agent_forget_all(a, actions);
    a->shard_uid = in->u.welcome.shard_uid;
    a->beat_ms = in->u.welcome.beat_ms ? in->u.welcome.beat_ms : COX_BEAT_MS;
    a->stream = COX_AGENT_UP;
    a->welcomed = true;
    a->backoff_ms = COX_AGENT_DIAL_BACKOFF_MS;
}

static void on_answer(struct cox_agent *a, const struct cox_agent_input *in)
{
    struct attempt *at = find(a, in->u.ref);

    if (at && at->state == ATTEMPT_ENDED)
        agent_forget(a, at);
}

static void on_cancel(struct cox_agent *a, const struct cox_agent_input *in,
                      struct cox_agent_actions *actions)
{
    struct attempt *at = find(a, in->u.ref);

    if (!at) {
        /* It never came here or was given back. A result nobody expects is answered as well as another, and
         * the orchestrator that still waits for one gets it. */
        if (a->kept_len >= 2 * a->config.kept_len_max) {
            hang_up(a, "the orchestrator broke the protocol: it cancels and does not answer");
            return;
        }
        finish_cancelled(a, take(a, in->u.ref, in->now_mono_ns));
    } else if (at->state == ATTEMPT_QUEUED) {
        if (at->log_wanted)
            agent_log_end(a, at->assign.ref);
        a->n_queued--;
        finish_cancelled(a, at);
        agent_start_ready(a, in->now_mono_ns, actions);
    } else if (at->state == ATTEMPT_RUNNING) {
        agent_kill(at, KILL_CANCELLED, actions);
    }
}

static void on_assign(struct cox_agent *a, const struct cox_agent_input *in,
                      struct cox_agent_actions *actions)
{
    const struct cox_agent_assign *as = &in->u.assign;
    struct attempt *at;

    if (a->assigned >= a->granted) {
        hang_up(a, "the orchestrator broke the protocol: it assigned more than credit allows");
        return;
    }
    a->assigned++;
    at = find(a, as->ref);
    if (at && !COX_PLANTED("repeated-assign-runs-again")) {
        if (at->state == ATTEMPT_ENDED) {
            cox_list_remove(&at->link);
            cox_list_push_back(&a->unsent, &at->link);
        }
        return;
    }
    at = take(a, as->ref, in->now_mono_ns);
    cox_agent_copy_assign(&at->body, &at->assign, as);
    at->assign.resources = (struct cox_resources){
        .cpu_milli = as->resources.cpu_milli > 0 ? as->resources.cpu_milli : 0,
        .memory_bytes = as->resources.memory_bytes > 0 ? as->resources.memory_bytes : 0,
        .disk_bytes = as->resources.disk_bytes > 0 ? as->resources.disk_bytes : 0,
    };
    at->state = ATTEMPT_QUEUED;
    cox_list_push_back(&a->queue, &at->link);
    a->n_queued++;
    agent_start_ready(a, in->now_mono_ns, actions);
}

void agent_log_end(struct cox_agent *a, struct cox_ref ref)
{
    if (a->n_log_ends == LOG_ENDS_MAX)
        hang_up(a, "the orchestrator broke the protocol: it asks for too many logs at once");
    else
        a->log_ends[a->n_log_ends++] = ref;
}

static void on_log_wanted(struct cox_agent *a, const struct cox_agent_input *in,
                          struct cox_agent_actions *actions)
{
    struct attempt *at = find(a, in->u.log.ref);
    bool wanted = in->u.log.wanted;
    struct cox_agent_action *act;

    if (!at || at->state == ATTEMPT_ENDED) {
        if (wanted)
            agent_log_end(a, in->u.log.ref);
        return;
    }
    if (at->log_wanted == wanted)
        return;
    at->log_wanted = wanted;
    if (at->state != ATTEMPT_RUNNING)
        return;
    act = agent_act(actions, COX_AGENT_LOG);
    act->slot = at->slot;
    act->ref = at->assign.ref;
    act->wanted = wanted;
}

/* ---------------------------------------------------------------- the stream and the host */

static void on_stream_open(struct cox_agent *a)
{
    if (a->stream != COX_AGENT_DIALLING)
        return;
    a->stream = COX_AGENT_GREETING;
    a->hello_sent = false;
    a->welcomed = false;
    a->draining_sent = false;
    a->granted = 0;
    a->assigned = 0;
    splice_front(&a->quiet, &a->reported);
    if (!COX_PLANTED("sent-means-delivered"))
        splice_front(&a->unsent, &a->sent);
}

/* Nobody reads logs across streams: who still wants them asks again. */
static void stop_logs(struct cox_agent *a, struct cox_agent_actions *actions)
{
    struct cox_list *lists[] = { &a->queue, &a->reported, &a->quiet };

    a->n_log_ends = 0;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        COX_LIST_FOR_EACH (it, lists[i]) {
            struct attempt *at = COX_CONTAINER_OF(it, struct attempt, link);
            struct cox_agent_action *act;

            if (!at->log_wanted)
                continue;
            at->log_wanted = false;
            if (at->state != ATTEMPT_RUNNING)
                continue;
            act = agent_act(actions, COX_AGENT_LOG);
            act->slot = at->slot;
            act->ref = at->assign.ref;
        }
}

static void on_stream_closed(struct cox_agent *a, const struct cox_agent_input *in,
                             struct cox_agent_actions *actions)
{
    int64_t delay_ms = 0;

    if (a->stream == COX_AGENT_DOWN)
        return;
    if (a->welcomed)
        a->down_since_ns = in->now_mono_ns;
    if (in->u.closed.superseded)
        a->backoff_ms = COX_AGENT_DIAL_BACKOFF_MAX_MS;
    if (!a->redial_at_once || in->u.closed.superseded) {
        delay_ms = a->backoff_ms / 2 + (int64_t)cox_rng_below(&a->rng, (uint64_t)a->backoff_ms / 2 + 1);
        a->backoff_ms = a->backoff_ms * 2 < COX_AGENT_DIAL_BACKOFF_MAX_MS ? a->backoff_ms * 2
                                                                          : COX_AGENT_DIAL_BACKOFF_MAX_MS;
    }
    a->stream = COX_AGENT_DOWN;
    a->welcomed = false;
    a->redial_at_once = false;
    a->hang_up_why = NULL;
    a->dial_at_ns = agent_after_ms(in->now_mono_ns, (uint64_t)delay_ms);
    a->address = (a->address + 1) % a->config.n_addresses;
    stop_logs(a, actions);
}

void agent_drain(struct cox_agent *a, const char *why)
{
    if (a->draining)
        return;
    a->draining = true;
    a->exit_why = why;
}

static void on_shutdown(struct cox_agent *a, int64_t now_ns)
{
    bool again = a->drain_at_ns != NEVER_NS;

    agent_drain(a, "asked to stop");
    a->preempted = false;
    a->drain_at_ns = again ? now_ns : agent_after_ms(now_ns, (uint64_t)a->config.drain_timeout_ms);
    a->exit_by_ns = agent_after_ms(a->drain_at_ns, COX_AGENT_ANSWER_LIMIT_MS);
}

/* ---------------------------------------------------------------- step */

static void from_orchestrator(struct cox_agent *a, const struct cox_agent_input *in,
                              struct cox_agent_actions *actions)
{
    bool up = a->stream == COX_AGENT_UP;

    /* What still comes while we leave is as if it had been lost with the stream: Hello tells what arrived. */
    if (a->hang_up_why || (!up && a->stream != COX_AGENT_GREETING))
        return;
    if (in->kind == COX_AGENT_WELCOME) {
        on_welcome(a, in, actions);
    } else if (in->kind == COX_AGENT_RECONNECT) {
        a->redial_at_once = true;
        hang_up(a, "to dial again at once");
    } else if (!up) {
        hang_up(a, "the orchestrator broke the protocol: no Welcome in its first message");
    } else if (in->kind == COX_AGENT_ANSWER) {
        on_answer(a, in);
    } else if (in->kind == COX_AGENT_CANCEL) {
        on_cancel(a, in, actions);
    } else if (in->kind == COX_AGENT_ASSIGN) {
        on_assign(a, in, actions);
    } else if (in->kind == COX_AGENT_LOG_WANTED) {
        on_log_wanted(a, in, actions);
    } else {
        agent_drain(a, "drained by the orchestrator");
    }
}

void cox_agent_step(struct cox_agent *a, const struct cox_agent_input *in, struct cox_agent_actions *actions)
{
    if (a->exited)
        return;
    if (!a->clock_known) {
        a->clock_known = true;
        a->dial_at_ns = in->now_mono_ns;
        a->down_since_ns = in->now_mono_ns;
        a->idle_since_ns = in->now_mono_ns;
        a->wake_ns = in->now_mono_ns;
    }
    switch (in->kind) {
    case COX_AGENT_TURN:
        agent_turn(a, in->now_mono_ns, in->u.turn.room_len, actions);
        break;
    case COX_AGENT_STREAM_OPEN:
        on_stream_open(a);
        break;
    case COX_AGENT_STREAM_CLOSED:
        on_stream_closed(a, in, actions);
        break;
    case COX_AGENT_WELCOME:
    case COX_AGENT_ANSWER:
    case COX_AGENT_CANCEL:
    case COX_AGENT_ASSIGN:
    case COX_AGENT_LOG_WANTED:
    case COX_AGENT_DRAIN:
    case COX_AGENT_RECONNECT:
        from_orchestrator(a, in, actions);
        break;
    case COX_AGENT_SLOT_ENDED:
        on_slot_ended(a, in, actions);
        break;
    case COX_AGENT_SHUTDOWN:
        on_shutdown(a, in->now_mono_ns);
        break;
    }
}

/* ---------------------------------------------------------------- life */

struct cox_agent *cox_agent_create(const struct cox_agent_config *config)
{
    struct cox_agent *a = COX_NEW(struct cox_agent);
    struct cox_list *lists[] = { &a->queue, &a->quiet,   &a->reported, &a->unsent,
                                 &a->sent,  &a->zombies, &a->pool };

    COX_ASSERT(config->slots > 0 && config->slots <= COX_WORKER_SLOTS_MAX && config->n_addresses > 0);
    a->config = *config;
    if (a->config.kept_len_max == 0)
        a->config.kept_len_max = COX_AGENT_KEPT_LEN_MAX;
    cox_rng_init(&a->rng, config->seed);
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        cox_list_init(lists[i]);
    a->slots = cox_calloc(config->slots, sizeof(*a->slots));
    a->free_slots = cox_calloc(config->slots, sizeof(*a->free_slots));
    for (uint32_t slot = config->slots; slot > 0; slot--)
        a->free_slots[a->n_free_slots++] = slot - 1;
    a->log_ends = cox_calloc(LOG_ENDS_MAX, sizeof(*a->log_ends));
    a->stream = COX_AGENT_DOWN;
    a->backoff_ms = COX_AGENT_DIAL_BACKOFF_MS;
    a->drain_at_ns = NEVER_NS;
    a->exit_by_ns = NEVER_NS;
    return a;
}

static void free_list(struct cox_list *l)
{
    COX_LIST_FOR_EACH (it, l) {
        struct attempt *at = COX_CONTAINER_OF(it, struct attempt, link);

        cox_buf_fini(&at->body);
        cox_free(at);
    }
}

void cox_agent_destroy(struct cox_agent *a)
{
    if (!a)
        return;
    cox_heap_fini(&a->deadlines); /* before the attempts whose nodes it lets go */
    free_list(&a->queue);
    free_list(&a->quiet);
    free_list(&a->reported);
    free_list(&a->unsent);
    free_list(&a->sent);
    free_list(&a->zombies);
    free_list(&a->pool);
    cox_map64_fini(&a->index);
    cox_buf_fini(&a->spare);
    cox_free(a->slots);
    cox_free(a->free_slots);
    cox_free(a->holds);
    cox_free(a->log_ends);
    cox_free(a);
}

/* ---------------------------------------------------------------- reading */

int64_t cox_agent_wake_ns(const struct cox_agent *a)
{
    return a->wake_ns;
}

void cox_agent_stats(const struct cox_agent *a, struct cox_agent_stats *ret)
{
    *ret = (struct cox_agent_stats){
        .stream = a->stream,
        .draining = a->draining,
        .n_queued = a->n_queued,
        .n_running = a->n_running,
        .n_kept = a->n_kept,
        .kept_len = a->kept_len,
        .prefetch = agent_prefetch(a),
        .granted = a->granted,
        .assigned = a->assigned,
        .n_started = a->n_started,
        .n_ended = a->n_ended,
        .n_returned = a->n_returned,
        .n_dropped = a->n_dropped,
    };
}

/* Counts a list whose members must all be in `state`; adds up what they cost and occupy. */
static uint32_t check_list(const struct cox_agent *a, const struct cox_list *l, enum attempt_state state,
                           size_t *kept_len, struct cox_resources *used)
{
    uint32_t n = 0;

    for (const struct cox_list *it = l->next; it != l; it = it->next, n++) {
        const struct attempt *at = (const struct attempt *)(const void *)it;

        COX_ASSERT(at->state == state);
        COX_ASSERT(state == ATTEMPT_ZOMBIE || find(a, at->assign.ref) == at);
        COX_ASSERT(state == ATTEMPT_RUNNING || !cox_heap_has(&at->deadline));
        if (state == ATTEMPT_ENDED)
            *kept_len += kept_cost(at);
        if (state == ATTEMPT_RUNNING || state == ATTEMPT_ZOMBIE) {
            COX_ASSERT(a->slots[at->slot] == at);
            used->cpu_milli += at->assign.resources.cpu_milli;
        }
    }
    return n;
}

void cox_agent_check(const struct cox_agent *a)
{
    struct cox_resources used = { 0 };
    size_t kept_len = 0;
    uint32_t n_queued = check_list(a, &a->queue, ATTEMPT_QUEUED, &kept_len, &used);
    uint32_t n_running = check_list(a, &a->quiet, ATTEMPT_RUNNING, &kept_len, &used) +
                         check_list(a, &a->reported, ATTEMPT_RUNNING, &kept_len, &used);
    uint32_t n_kept = check_list(a, &a->unsent, ATTEMPT_ENDED, &kept_len, &used) +
                      check_list(a, &a->sent, ATTEMPT_ENDED, &kept_len, &used);
    uint32_t n_zombies = check_list(a, &a->zombies, ATTEMPT_ZOMBIE, &kept_len, &used);

    _Static_assert(offsetof(struct attempt, link) == 0, "check_list casts");
    COX_ASSERT(n_queued == a->n_queued && n_running == a->n_running);
    COX_ASSERT(n_kept == a->n_kept && n_zombies == a->n_zombies);
    COX_ASSERT(kept_len == a->kept_len);
    COX_ASSERT(n_running + n_zombies + a->n_free_slots == a->config.slots);
    COX_ASSERT(a->config.resources.cpu_milli == 0 ||
               (used.cpu_milli == a->used.cpu_milli && used.cpu_milli <= a->config.resources.cpu_milli));
    COX_ASSERT(a->assigned <= a->granted);
}
