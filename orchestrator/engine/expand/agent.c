/* What an agent does next, and what becomes of what it has begun. */
#include "agent.h"
#include "../budget.h"
#include "../sleep.h"
#include "expand.h"
#include "map.h"

#include "cox/json.h"

#include <string.h>

static struct agent *agent_of(const struct cox_task *t, uint32_t step)
{
    const struct expansion *x = task_step(t, step)->x;
    return x != NULL ? x->agent : NULL;
}

bool step_is_agent(const struct cox_task *t, uint32_t step)
{
    struct cox_image_call call;
    if (expand_is_map(t, step))
        return false;
    step_call(t, step, task_step(t, step), &call);
    return call.kind == COX_KIND_AGENT || call.kind == COX_KIND_PLAN;
}

bool frame_is_agents(const struct cox_task *frame)
{
    return frame->parent != NULL && frame->parent_item != UINT64_MAX &&
           step_is_agent(frame->parent, frame->parent_step);
}

bool cox_engine_in_agent(const struct cox_engine *e, cox_task_id id)
{
    const struct cox_task *t = cox_engine_find(e, id);
    return t != NULL && frame_is_agents(t);
}

/* ---- its config ---- */

static uint32_t config_number(struct cox_slice config, const char *name, uint32_t otherwise)
{
    struct cox_slice v;
    int64_t n;
    return cox_json_member(config, name, &v) && cox_json_int(v, &n) && n > 0 && n <= UINT32_MAX ? (uint32_t)n
                                                                                                : otherwise;
}

/* The inner step that lists server `i`'s tools; UINT32_MAX: there are no so many. */
static uint32_t list_step(struct cox_slice config, uint32_t i)
{
    struct cox_slice tools, list;
    int64_t step;
    if (!cox_json_member(config, "tools", &tools))
        return UINT32_MAX;
    for (struct cox_json_walk walk = cox_json_walk(tools); cox_json_next(&walk);)
        if (cox_json_member(walk.value, "list", &list) && cox_json_int(list, &step) && i-- == 0)
            return (uint32_t)step;
    return UINT32_MAX;
}

static uint32_t n_list_steps(struct cox_slice config)
{
    uint32_t n = 0;
    while (n < COX_TOOLS_MAX && list_step(config, n) != UINT32_MAX)
        n++;
    return n;
}

/* ---- facts ---- */

void agent_say_fact(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct record_agent *what)
{
    struct record r = { .type = RECORD_AGENT, .task = t->id, .step = step, .wall_ms = e->now.wall_ms };
    payload_keep(e, t->root->id, &what->value);
    r.u.agent = *what;
    emit(e, &r);
    changed(e, t, step);
}

/* ---- what it begins ---- */

/* False: it may not begin anything more, and has failed. */
static bool may_begin(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    const char *why = budget_refuses_frame(e, t);
    enum cox_code code = COX_CODE_BUDGET_EXHAUSTED;
    if (t->depth + 1 >= COX_FRAME_DEPTH_MAX) {
        code = COX_CODE_RESOURCE_EXHAUSTED;
        why = "agents in agents: too deep";
    }
    if (why != NULL)
        agent_fail(e, t, step, code, cox_slice_str(why));
    return why == NULL;
}

static struct cox_task *begin(struct cox_engine *e, struct cox_task *t, uint32_t step, uint32_t inner,
                              uint64_t item, struct cox_slice args)
{
    struct record_frame f = { .item = item };
    struct cox_image_call call;
    step_call(t, step, task_step(t, step), &call);
    COX_ASSERT(inner < call.inner_n);
    f.first = call.inner_first + inner;
    if (args.len > 0)
        f.args = (struct cox_payload){ .kind = COX_PAYLOAD_INLINE, .bytes = args, .size = args.len };
    return frame_open(e, t, step, &f);
}

static void ask_model(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice config)
{
    struct agent *a = agent_of(t, step);
    uint32_t max = config_number(config, "max_turns", COX_TURNS_DEFAULT);
    if (a->model != NULL || !agent_has_room(e, t, step, config))
        return;
    if (a->turn > max) {
        struct cox_buf text = { 0 };
        cox_buf_printf(&text, "no answer after %u turns (`max_turns`)", max);
        agent_fail(e, t, step, COX_CODE_RESOURCE_EXHAUSTED, cox_buf_slice(&text));
        cox_buf_fini(&text);
    } else if (may_begin(e, t, step)) {
        a->model = begin(e, t, step, COX_TURN_MODEL, AGENT_ITEM(a->turn, AGENT_N_MODEL), cox_slice(NULL, 0));
    }
}

/* What a person is asked: a question of the model's, or whether a tool may do what it is asked to. */
static void put_prompt(struct cox_buf *args, const struct agent_call *c)
{
    struct cox_slice question, given = c->args != NULL ? c->args->payload.bytes : cox_slice_str("{}");
    struct cox_buf text = { 0 };
    if (c->ask && cox_json_member(given, "question", &question) && cox_json_kind(question) == COX_JSON_STRING)
        cox_json_unquote(&text, question);
    else
        cox_buf_printf(&text, "%s %.*s", c->name, (int)given.len, (const char *)given.data);
    cox_buf_append_str(args, "{\"prompt\":");
    cox_json_quote(args, cox_buf_slice(&text));
    cox_buf_append_str(args, "}");
    cox_buf_fini(&text);
}

static void begin_call(struct cox_engine *e, struct cox_task *t, uint32_t step, uint32_t i)
{
    struct agent *a = agent_of(t, step);
    struct agent_call *c = &a->calls[i];
    if (c->ask || (c->approve && !c->approved)) {
        struct cox_buf args = { 0 };
        put_prompt(&args, c);
        c->frame = begin(e, t, step, COX_TURN_APPROVAL, AGENT_ITEM(a->turn, AGENT_N_APPROVAL + i),
                         cox_buf_slice(&args));
        cox_buf_fini(&args);
    } else {
        c->frame = begin(e, t, step, c->step, AGENT_ITEM(a->turn, i),
                         c->args != NULL ? c->args->payload.bytes : cox_slice_str("{}"));
    }
}

static void begin_calls(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice config)
{
    struct agent *a = agent_of(t, step);
    uint32_t max = config_number(config, "max_parallel", COX_TURN_PARALLEL_DEFAULT), n = 0;
    for (uint32_t i = 0; i < a->n_calls; i++)
        n += a->calls[i].frame != NULL;
    for (uint32_t i = 0; i < a->n_calls && n < max; i++) {
        if (a->calls[i].result != NULL || a->calls[i].frame != NULL)
            continue;
        if (!may_begin(e, t, step))
            return;
        begin_call(e, t, step, i);
        n++;
    }
}

static void list_tools(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice config)
{
    struct agent *a = agent_of(t, step);
    for (uint32_t i = 0; i < a->n_lists; i++)
        if (a->lists[i] == NULL && a->list_frames[i] == NULL && may_begin(e, t, step))
            a->list_frames[i] = begin(e, t, step, list_step(config, i), AGENT_ITEM(0, i), cox_slice(NULL, 0));
}

/* ---- what it asks others to work out ---- */

static struct cox_payload copy_payload(struct cox_engine *e, const struct value *v)
{
    struct cox_payload p = v->payload;
    if (p.kind == COX_PAYLOAD_INLINE)
        p.bytes = cox_slice(cox_arena_dup(&e->fx->arena, p.bytes.data, p.bytes.len), p.bytes.len);
    return p;
}

static void ask_tools(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice config)
{
    struct agent *a = agent_of(t, step);
    struct cox_payload *lists = cox_arena_alloc(&e->fx->arena, (a->n_lists + 1) * sizeof *lists);
    for (uint32_t i = 0; i < a->n_lists; i++)
        lists[i] = copy_payload(e, a->lists[i]);
    struct evaluation *ev = ask(e, t, step, ASKED_TOOLS);
    act(e, COX_ACT_TOOLS)->u.tools = (struct cox_act_tools){
        .ticket = ev->ticket, .root = t->root->id, .config = config, .lists = lists, .n_lists = a->n_lists
    };
}

static void ask_decision(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice config)
{
    const struct agent *a = agent_of(t, step);
    struct evaluation *ev = ask(e, t, step, ASKED_DECISION);
    struct cox_act_decide d = { .ticket = ev->ticket,
                                .root = t->root->id,
                                .config = config,
                                .tools = copy_payload(e, a->tools),
                                .answer = copy_payload(e, a->said[a->n_said - 1].value),
                                .n_reasks = a->n_reasks };
    act(e, COX_ACT_DECIDE)->u.decide = d;
}

/* ---- what is next ---- */

bool agent_waits(const struct cox_task *t, uint32_t step)
{
    const struct step *s = task_step(t, step);
    return s->status == COX_STEP_WAITING && !(s->flags & STEP_STOPPING) && !s->x->timed_out &&
           !s->x->agent->failing && t->stopping == COX_TASK_NONE;
}

static bool lists_missing(const struct agent *a)
{
    for (uint32_t i = 0; i < a->n_lists; i++)
        if (a->lists[i] == NULL)
            return true;
    return false;
}

void agent_go_on(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct agent *a = agent_of(t, step);
    struct cox_image_call call;
    if (!agent_waits(t, step) || task_step(t, step)->flags & STEP_EVALUATING ||
        task_step(t, step)->x->child != NULL || !cox_list_empty(&a->in_unequipped))
        return;
    step_call(t, step, task_step(t, step), &call);
    if (a->tools == NULL && lists_missing(a))
        list_tools(e, t, step, call.ref);
    else if (a->tools == NULL)
        ask_tools(e, t, step, call.ref);
    else if (a->undecided)
        ask_decision(e, t, step, call.ref);
    else if (a->n_calls > 0)
        begin_calls(e, t, step, call.ref);
    else
        ask_model(e, t, step, call.ref);
}

void agent_begin(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct cox_payload *request)
{
    struct cox_image_call call;
    step_call(t, step, task_step(t, step), &call);
    waiting_begins(e, t, step, 0, cox_slice(NULL, 0));
    if (request != NULL)
        agent_say_fact(e, t, step,
                       &(struct record_agent){
                           .what = AGENT_BEGUN, .value = *request, .index = n_list_steps(call.ref) });
    agent_go_on(e, t, step);
}

/* ---- the end ---- */

static uint32_t n_under_way(const struct agent *a)
{
    uint32_t n = a->model != NULL;
    n += a->step->x->child != NULL;
    for (uint32_t i = 0; i < a->n_lists; i++)
        n += a->list_frames[i] != NULL;
    for (uint32_t i = 0; i < a->n_calls; i++)
        n += a->calls[i].frame != NULL;
    return n;
}

static void stop_frame(struct cox_engine *e, struct cox_task *frame)
{
    if (frame != NULL)
        task_stop(e, frame, COX_TASK_CANCELLED, COX_CODE_CANCELLED, "what it is part of was stopped");
}

/* It ends when what it has begun has ended. */
static void stop_all(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct agent *a = agent_of(t, step);
    for (uint32_t i = 0; i < a->n_lists; i++)
        stop_frame(e, a->list_frames[i]);
    for (uint32_t i = 0; i < a->n_calls; i++)
        stop_frame(e, a->calls[i].frame);
    stop_frame(e, a->model);
    if (!COX_PLANTED("plan-runs-on"))
        stop_frame(e, task_step(t, step)->x->child);
}

static void end_if_over(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    struct step *s = task_step(t, step);
    struct agent *a = agent_of(t, step);
    if (s->status != COX_STEP_WAITING || (a != NULL && n_under_way(a) > 0))
        return;
    if (a != NULL)
        cox_list_remove(&a->in_unequipped);
    evaluations_forget(e, t, step);
    if (a != NULL && a->failing && !(s->flags & STEP_STOPPING) && t->stopping == COX_TASK_NONE) {
        struct record_ended en = { .status = COX_ATTEMPT_FAILED, .code = a->failing };
        char *why = a->why;
        a->failing = COX_CODE_NONE;
        a->why = NULL;
        en.message = text_cut(cox_slice_str(why), COX_ERROR_MESSAGE_LEN_MAX);
        expand_end(e, t, step, &en);
        cox_free(why);
    } else {
        expand_end_stopped(e, t, step);
    }
}

void agent_stop(struct cox_engine *e, struct cox_task *t, uint32_t step)
{
    if (agent_of(t, step) != NULL)
        stop_all(e, t, step);
    end_if_over(e, t, step);
}

void agent_fail(struct cox_engine *e, struct cox_task *t, uint32_t step, enum cox_code code,
                struct cox_slice message)
{
    struct agent *a = agent_of(t, step);
    if (a->failing)
        return;
    a->failing = code;
    a->why = cox_strndup((const char *)message.data, message.len);
    agent_stop(e, t, step);
}

static void succeed(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct cox_payload *output)
{
    struct record_ended en = { .status = COX_ATTEMPT_SUCCEEDED, .output = *output };
    expand_end(e, t, step, &en);
}

/* ---- what has ended ---- */

static struct cox_task **place_of(struct agent *a, uint64_t item)
{
    uint32_t n = AGENT_ITEM_N(item);
    if (AGENT_ITEM_TURN(item) == 0)
        return n < a->n_lists ? &a->list_frames[n] : NULL;
    if (n == AGENT_N_MODEL)
        return &a->model;
    n %= AGENT_N_APPROVAL;
    return AGENT_ITEM_TURN(item) == a->turn && n < a->n_calls ? &a->calls[n].frame : NULL;
}

void agent_frame_back(struct cox_task *frame)
{
    struct agent *a = agent_of(frame->parent, frame->parent_step);
    struct cox_task **at = a != NULL ? place_of(a, frame->parent_item) : NULL;
    if (at != NULL && !cox_task_status_final(frame->status))
        *at = frame;
}

/* A failure as the model is told of it. */
static void put_error(struct cox_buf *out, enum cox_code code, const char *message)
{
    cox_buf_printf(out, "{\"error\":{\"code\":\"%s\",\"message\":", cox_code_text(code));
    cox_json_quote(out, cox_slice_str(message));
    cox_buf_append_str(out, "}}");
}

/* Of a question it is the person's own words that the model gets. */
static void put_words(struct cox_buf *out, struct cox_slice approval)
{
    struct cox_slice comment;
    bool any = cox_json_member(approval, "comment", &comment) && comment.len > 2;
    cox_buf_append_slice(out, any && !COX_PLANTED("answer-unread") ? comment : cox_slice_str("\"yes\""));
}

static void call_returned(struct cox_engine *e, struct cox_task *t, uint32_t step, uint32_t i,
                          const struct cox_task *frame, const struct cox_payload *outputs)
{
    struct record_agent r = { .what = AGENT_RETURNED, .index = i };
    struct cox_buf json = { 0 };
    r.frame = frame->id;
    r.begun_wall_ms = frame->created_wall_ms;
    if (frame->status == COX_TASK_SUCCEEDED && agent_of(t, step)->calls[i].ask) {
        put_words(&json, outputs->bytes);
        r.value = (struct cox_payload){ .kind = COX_PAYLOAD_INLINE, .bytes = cox_buf_slice(&json) };
        r.value.size = json.len;
    } else if (frame->status == COX_TASK_SUCCEEDED && outputs->kind != COX_PAYLOAD_NONE) {
        r.value = *outputs;
    } else if (frame->status == COX_TASK_SUCCEEDED) {
        r.value =
            (struct cox_payload){ .kind = COX_PAYLOAD_INLINE, .bytes = cox_slice_str("null"), .size = 4 };
    } else {
        r.failed = true;
        put_error(&json, frame->code != COX_CODE_NONE ? frame->code : COX_CODE_CANCELLED, frame->message);
        r.value = (struct cox_payload){ .kind = COX_PAYLOAD_INLINE, .bytes = cox_buf_slice(&json) };
        r.value.size = json.len;
    }
    agent_say_fact(e, t, step, &r);
    cox_buf_fini(&json);
}

/* By the call; tries that failed were given about as much. */
static uint32_t tokens_given(const struct cox_task *frame)
{
    const struct cox_usage *u = frame->ledger != NULL ? &frame->ledger->usage : NULL;
    uint64_t tokens = u != NULL && u->model_calls > 0 ? u->input_tokens / u->model_calls : 0;
    return tokens < UINT32_MAX ? (uint32_t)tokens : UINT32_MAX;
}

static void model_ended(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct cox_task *frame,
                        const struct cox_payload *outputs)
{
    struct cox_image_call call;
    step_call(t, step, task_step(t, step), &call);
    if (frame->status == COX_TASK_SUCCEEDED)
        agent_say_fact(e, t, step,
                       &(struct record_agent){ .what = AGENT_ANSWERED,
                                               .index = tokens_given(frame),
                                               .frame = frame->id,
                                               .begun_wall_ms = frame->created_wall_ms,
                                               .value = *outputs });
    else if (frame->code != COX_CODE_CONTEXT_LENGTH || !agent_makes_room(e, t, step, call.ref))
        agent_fail(e, t, step, frame->code != COX_CODE_NONE ? frame->code : COX_CODE_CANCELLED,
                   cox_slice_str(frame->message != NULL ? frame->message : "the model's call was cancelled"));
}

static void list_ended(struct cox_engine *e, struct cox_task *t, uint32_t step, uint32_t i,
                       const struct cox_task *frame, const struct cox_payload *outputs)
{
    if (frame->status == COX_TASK_SUCCEEDED)
        agent_say_fact(e, t, step,
                       &(struct record_agent){ .what = AGENT_LISTED, .index = i, .value = *outputs });
    else
        agent_fail(e, t, step, frame->code != COX_CODE_NONE ? frame->code : COX_CODE_CANCELLED,
                   cox_slice_str(frame->message != NULL ? frame->message : "its tools could not be listed"));
}

void agent_frame_ended(struct cox_engine *e, struct cox_task *t, uint32_t step, const struct cox_task *frame,
                       const struct cox_payload *outputs)
{
    struct agent *a = agent_of(t, step);
    uint32_t n = AGENT_ITEM_N(frame->parent_item);
    struct cox_task **at = place_of(a, frame->parent_item);
    if (at == NULL || *at != frame)
        return;
    *at = NULL;
    if (!agent_waits(t, step)) {
        end_if_over(e, t, step);
        return;
    }
    if (AGENT_ITEM_TURN(frame->parent_item) == 0)
        list_ended(e, t, step, n, frame, outputs);
    else if (n == AGENT_N_MODEL)
        model_ended(e, t, step, frame, outputs);
    else if (n >= AGENT_N_APPROVAL && !a->calls[n - AGENT_N_APPROVAL].ask &&
             frame->status == COX_TASK_SUCCEEDED)
        agent_say_fact(e, t, step,
                       &(struct record_agent){ .what = AGENT_APPROVED, .index = n - AGENT_N_APPROVAL });
    else
        call_returned(e, t, step, n % AGENT_N_APPROVAL, frame, outputs);
    agent_go_on(e, t, step);
}

/* ---- answers ---- */

void agent_equipped(struct cox_engine *e, const struct evaluation *ev, const struct cox_in_evaluated *in)
{
    struct cox_task *t = ev->task;
    if (!agent_waits(t, ev->step))
        return;
    if (in->ok) {
        agent_say_fact(e, t, ev->step, &(struct record_agent){ .what = AGENT_EQUIPPED, .value = in->value });
        agent_go_on(e, t, ev->step);
    } else if (in->later) {
        struct agent *a = agent_of(t, ev->step);
        cox_list_push_back(&e->unequipped, &a->in_unequipped);
        a->missing = cox_strndup((const char *)in->error.data, in->error.len);
        changed(e, t, ev->step);
    } else {
        agent_fail(e, t, ev->step, COX_CODE_INPUT_INVALID, in->error);
    }
}

void agents_equip_more(struct cox_engine *e)
{
    while (!cox_list_empty(&e->unequipped)) { /* asking puts nobody back at once */
        struct agent *a = COX_CONTAINER_OF(e->unequipped.next, struct agent, in_unequipped);
        cox_list_remove(&a->in_unequipped);
        cox_free(a->missing);
        a->missing = NULL;
        agent_go_on(e, step_page(a->step)->task, step_index(a->step));
    }
}

static void fail_as_said(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice fail)
{
    struct cox_slice v;
    struct cox_buf message = { 0 };
    enum cox_code code = COX_CODE_OUTPUT_INVALID;
    if (cox_json_member(fail, "code", &v) && v.len > 2)
        (void)cox_code_parse(cox_slice(v.data + 1, v.len - 2), &code);
    if (cox_json_member(fail, "message", &v) && cox_json_kind(v) == COX_JSON_STRING)
        cox_json_unquote(&message, v);
    agent_fail(e, t, step, code, cox_buf_slice(&message));
    cox_buf_fini(&message);
}

void agent_tell(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice text)
{
    agent_say_fact(e, t, step,
                   &(struct record_agent){ .what = AGENT_TOLD, .failed = text.len > 0, .text = text });
}

static void told(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice say_json)
{
    struct cox_buf text = { 0 };
    cox_json_unquote(&text, say_json);
    agent_tell(e, t, step, cox_buf_slice(&text));
    cox_buf_fini(&text);
}

static void run_plan(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice plan)
{
    if (may_begin(e, t, step))
        plan_compile(e, t, step, plan);
}

void agent_decided(struct cox_engine *e, const struct evaluation *ev, const struct cox_in_decided *in)
{
    struct cox_task *t = ev->task;
    struct cox_slice v;
    if (!agent_waits(t, ev->step))
        return;
    if (!in->ok)
        agent_fail(e, t, ev->step, COX_CODE_INTERNAL, in->error);
    else if (cox_json_member(in->decision, "calls", &v))
        agent_say_fact(e, t, ev->step, &(struct record_agent){ .what = AGENT_CALLED, .text = v });
    else if (cox_json_member(in->decision, "say", &v))
        told(e, t, ev->step, v);
    else if (cox_json_member(in->decision, "fail", &v))
        fail_as_said(e, t, ev->step, v);
    else if (agent_of(t, ev->step)->n_heard > 0) /* somebody has said something since: it goes on */
        agent_tell(e, t, ev->step, cox_slice(NULL, 0));
    else if (cox_json_member(in->decision, "plan", &v))
        run_plan(e, t, ev->step, v);
    else
        succeed(e, t, ev->step, &in->output);
    agent_go_on(e, t, ev->step);
}

enum cox_err agent_hear(struct cox_engine *e, struct cox_task *t, uint32_t step, struct cox_slice text)
{
    const struct agent *a = agent_of(t, step);
    if (a == NULL || !agent_waits(t, step) || task_step(t, step)->x->child != NULL)
        return COX_ERR_INVALID; /* the model of a plan that runs is asked no more */
    if (a->n_heard >= COX_AGENT_HEARD_MAX)
        return COX_ERR_FULL;
    agent_say_fact(e, t, step, &(struct record_agent){ .what = AGENT_HEARD, .text = text });
    return COX_OK;
}
