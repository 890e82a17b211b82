/* Agents: what the compile thread is asked of their turns, and how it answers. */
#include "trace_state.h"

#include "cox/base/alloc.h"
#include "cox/json.h"
#include "cox/turn.h"

#include "../../orchestrator/engine/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

bool trace_is_agents(const struct cox_task *frame)
{
    struct cox_task_view view;
    struct cox_image_step doc;
    if (frame == NULL)
        return false;
    cox_task_view(frame, &view);
    if (view.parent == 0 || view.parent_item == UINT64_MAX)
        return false;
    cox_image_step(view.image, view.parent_step, &doc);
    return doc.kind == COX_KIND_AGENT || doc.kind == COX_KIND_PLAN;
}

static void take(struct trace *t, struct cox_buf *to, const struct cox_payload *p)
{
    const struct cox_buf *stored;
    if (p->kind == COX_PAYLOAD_INLINE)
        cox_buf_append_slice(to, p->bytes);
    if (p->kind != COX_PAYLOAD_STORED)
        return;
    stored = cox_mapb_get(&t->payloads, cox_slice(p->hash.b, sizeof p->hash.b));
    assert_non_null(stored); /* what it refers to is durable before it is asked */
    cox_buf_append_slice(to, cox_buf_slice(stored));
}

static struct open_turn *open(struct trace *t, uint64_t ticket, struct cox_slice config)
{
    assert_true(t->n_turns - t->n_done_turns < TURNS_MAX);
    struct open_turn *o = &t->turns[t->n_turns++ % TURNS_MAX];
    cox_buf_clear(&o->config);
    cox_buf_append_slice(&o->config, config);
    for (size_t i = 0; i < TURN_VALUES_MAX; i++)
        cox_buf_clear(&o->values[i]);
    o->ticket = ticket;
    o->n_values = 0;
    return o;
}

void trace_keep_turn(struct trace *t, const struct cox_action *a)
{
    struct open_turn *o;
    if (a->kind == COX_ACT_TOOLS) {
        o = open(t, a->u.tools.ticket, a->u.tools.config);
        o->is_decision = false;
        assert_true(a->u.tools.n_lists <= TURN_VALUES_MAX);
        for (; o->n_values < a->u.tools.n_lists; o->n_values++)
            take(t, &o->values[o->n_values], &a->u.tools.lists[o->n_values]);
        say(t, "which tools");
    } else if (a->kind == COX_ACT_DECIDE) {
        o = open(t, a->u.decide.ticket, a->u.decide.config);
        o->is_decision = true;
        take(t, &o->values[0], &a->u.decide.tools);
        take(t, &o->values[1], &a->u.decide.answer);
        o->n_reasks = a->u.decide.n_reasks;
        say(t, "what does it ask for");
    }
}

/* "offered" is, and so is nothing else. */
static bool find(void *user, struct cox_slice name, struct cox_turn_program *ret)
{
    *ret = (struct cox_turn_program){ .description = cox_slice_str("does it") };
    return *(const bool *)user && cox_slice_is(name, "offered@1");
}

void decide(struct trace *t)
{
    assert_true(t->n_done_turns < t->n_turns);
    struct open_turn *o = &t->turns[t->n_done_turns++ % TURNS_MAX];
    struct cox_buf out = { 0 }, error = { 0 };
    struct cox_slice lists[TURN_VALUES_MAX], output;
    struct cox_input in = { .kind = o->is_decision ? COX_IN_DECIDED : COX_IN_TOOLS };
    for (size_t i = 0; i < TURN_VALUES_MAX; i++)
        lists[i] = cox_buf_slice(&o->values[i]);
    if (o->is_decision) {
        struct cox_buf kept_output = { 0 };
        cox_turn_decide(&(struct cox_turn){ .config = cox_buf_slice(&o->config),
                                            .tools = lists[0],
                                            .answer = lists[1],
                                            .n_reasks = o->n_reasks },
                        &out);
        in.u.decided = (struct cox_in_decided){ .ticket = o->ticket, .ok = true };
        in.u.decided.decision = cox_buf_slice(&out);
        if (cox_json_member(cox_buf_slice(&out), "output", &output)) {
            cox_buf_append_slice(&kept_output, output);
            in.u.decided.output = kept(t, &kept_output);
        }
        step(t, &in);
        cox_buf_fini(&kept_output);
    } else {
        const struct cox_turn_programs programs = { .find = find, .user = &t->program_offered };
        enum cox_err err =
            cox_turn_tools(cox_buf_slice(&o->config), lists, o->n_values, &programs, &out, &error);
        in.u.evaluated = (struct cox_in_evaluated){ .ticket = o->ticket, .ok = err == COX_OK };
        in.u.evaluated.later = err == COX_ERR_NOT_FOUND;
        in.u.evaluated.error = cox_buf_slice(&error);
        in.u.evaluated.value = kept(t, &out);
        step(t, &in);
    }
    cox_buf_fini(&out);
    cox_buf_fini(&error);
}

void program_offered(struct trace *t, bool is)
{
    t->program_offered = is;
}

void trace_say_agent(struct trace *t, const struct record *r)
{
    const struct record_agent *a = &r->u.agent;
    const char *name = step_name(t, r->task, r->step);
    switch (a->what) {
    case AGENT_BEGUN:
        say(t, "%s begins", name);
        break;
    case AGENT_LISTED:
        say(t, "%s knows list %u", name, a->index);
        break;
    case AGENT_EQUIPPED:
        say(t, "%s has its tools", name);
        break;
    case AGENT_ANSWERED:
        say(t, "%s is answered", name);
        break;
    case AGENT_CALLED:
        say(t, "%s makes %zu calls", name, cox_json_count(a->text));
        break;
    case AGENT_APPROVED:
        say(t, "%s may make call %u", name, a->index);
        break;
    case AGENT_RETURNED:
        say(t, "%s call %u %s%.*s", name, a->index, a->failed ? "failed " : "returned ",
            (int)a->value.bytes.len, (const char *)a->value.bytes.data);
        break;
    case AGENT_TOLD:
        say(t, "%s is told%s%.*s", name, a->text.len > 0 ? " " : "", (int)a->text.len,
            (const char *)a->text.data);
        break;
    case AGENT_TRIMMED:
        say(t, "%s leaves out results before %u", name, a->index);
        break;
    case AGENT_REFUSED:
        say(t, "%s is refused as too long", name);
        break;
    case AGENT_HEARD:
        say(t, "%s hears %.*s", name, (int)a->text.len, (const char *)a->text.data);
        break;
    }
}

void trace_turns_fini(struct trace *t)
{
    for (size_t i = 0; i < TURNS_MAX; i++) {
        cox_buf_fini(&t->turns[i].config);
        for (size_t k = 0; k < TURN_VALUES_MAX; k++)
            cox_buf_fini(&t->turns[i].values[k]);
    }
    cox_buf_fini(&t->last_spec);
}

const char *last_spec(struct trace *t)
{
    return cox_buf_cstr(&t->last_spec);
}
