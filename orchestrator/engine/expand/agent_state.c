/* What is durable of an agent: facts, and what they come to. */
#include "../entity.h"
#include "agent.h"
#include "expand.h"

#include "cox/json.h"

#include <string.h>

uint32_t agent_n_left(const struct agent *a)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < a->n_calls; i++)
        n += a->calls[i].result == NULL;
    return n;
}

bool agent_untouched(const struct agent *a)
{
    return a == NULL || a->request == NULL;
}

static void call_fini(struct agent_call *c)
{
    cox_free(c->id);
    cox_free(c->name);
    cox_free(c->args);
    cox_free(c->result);
}

static void calls_drop(struct agent *a)
{
    for (uint32_t i = 0; i < a->n_calls; i++)
        call_fini(&a->calls[i]);
    cox_free(a->calls);
    a->calls = NULL;
    a->n_calls = 0;
}

static void heard_drop(struct agent *a)
{
    for (uint32_t i = 0; i < a->n_heard; i++)
        cox_free(a->heard[i]);
    cox_free(a->heard);
    a->heard = NULL;
    a->n_heard = 0;
}

void agent_free(struct agent *a)
{
    if (a == NULL)
        return;
    cox_list_remove(&a->in_unequipped);
    cox_free(a->request);
    cox_free(a->tools);
    for (uint32_t i = 0; i < a->n_lists; i++)
        cox_free(a->lists[i]);
    cox_free(a->lists);
    cox_free(a->list_frames);
    for (uint32_t i = 0; i < a->n_said; i++) {
        cox_free(a->said[i].value);
        cox_free(a->said[i].id);
        cox_free(a->said[i].name);
    }
    cox_free(a->said);
    cox_free(a->why);
    cox_free(a->missing);
    calls_drop(a);
    heard_drop(a);
    cox_free(a);
}

static struct agent *agent_make(struct step *s)
{
    struct expansion *x = step_expansion(s);
    if (x->agent == NULL) {
        x->agent = COX_NEW(struct agent);
        x->agent->step = s;
        x->agent->turn = 1;
        cox_list_init(&x->agent->in_unequipped);
    }
    return x->agent;
}

/* ---- facts ---- */

static struct agent_entry *say(struct agent *a)
{
    if (a->n_said == a->cap_said) {
        a->cap_said = a->cap_said == 0 ? 8 : a->cap_said * 2;
        a->said = cox_realloc(a->said, a->cap_said, sizeof a->said[0]);
    }
    a->said[a->n_said] = (struct agent_entry){ .turn = a->turn };
    return &a->said[a->n_said++];
}

static void say_text(struct agent *a, struct cox_slice text)
{
    struct cox_buf json = { 0 };
    struct agent_entry *entry = say(a);
    cox_json_quote(&json, text);
    entry->what = AGENT_TEXT;
    entry->value = value_make(
        &(struct cox_payload){ .kind = COX_PAYLOAD_INLINE, .bytes = cox_buf_slice(&json), .size = json.len });
    cox_buf_fini(&json);
}

/* The model's turn again: what people have said meanwhile comes last. */
static void turn_over(struct agent *a)
{
    for (uint32_t i = 0; i < a->n_heard && !COX_PLANTED("words-unheard"); i++)
        say_text(a, cox_slice_str(a->heard[i]));
    heard_drop(a);
    a->turn++;
}

/* Results stand in the order of the calls, whichever came first. */
static void calls_over(struct agent *a)
{
    for (uint32_t i = 0; i < a->n_calls; i++) {
        struct agent_call *c = &a->calls[i];
        struct agent_entry *entry = say(a);
        entry->what = AGENT_RESULT;
        entry->failed = c->failed;
        entry->value = c->result;
        entry->id = c->id;
        entry->name = c->name;
        entry->step = c->ask ? COX_TURN_APPROVAL : c->step;
        entry->ran = c->ran;
        c->result = NULL;
        c->id = NULL;
        c->name = NULL;
    }
    calls_drop(a);
    turn_over(a);
}

static bool flag(struct cox_slice call, const char *name)
{
    struct cox_slice v;
    return cox_json_member(call, name, &v) && cox_slice_is(cox_json_trim(v), "true");
}

static char *text_member(struct cox_slice call, const char *name)
{
    struct cox_buf text = { 0 };
    struct cox_slice v;
    if (cox_json_member(call, name, &v) && cox_json_kind(v) == COX_JSON_STRING)
        cox_json_unquote(&text, v);
    char *own = cox_strndup(cox_buf_cstr(&text), text.len);
    cox_buf_fini(&text);
    return own;
}

static struct value *json_value(struct cox_slice json)
{
    return value_make(&(struct cox_payload){ .kind = COX_PAYLOAD_INLINE, .bytes = json, .size = json.len });
}

static void call_read(struct agent_call *c, struct cox_slice json)
{
    struct cox_slice v;
    int64_t step = 0;
    c->id = text_member(json, "id");
    c->name = text_member(json, "name");
    c->approve = flag(json, "approve");
    c->ask = flag(json, "ask");
    if (cox_json_member(json, "step", &v) && cox_json_int(v, &step))
        c->step = (uint32_t)step;
    if (cox_json_member(json, "args", &v))
        c->args = json_value(cox_json_trim(v));
    if (!cox_json_member(json, "error", &v))
        return;
    struct cox_buf error = { 0 };
    cox_buf_append_str(&error, "{\"error\":");
    cox_buf_append_slice(&error, v);
    cox_buf_append_str(&error, "}");
    c->result = json_value(cox_buf_slice(&error));
    c->failed = true;
    cox_buf_fini(&error);
}

static void called(struct agent *a, struct cox_slice calls)
{
    struct cox_json_walk walk = cox_json_walk(calls);
    a->undecided = false;
    a->n_reasks = 0;
    a->calls = cox_calloc(COX_TURN_CALLS_MAX, sizeof a->calls[0]);
    while (a->n_calls < COX_TURN_CALLS_MAX && cox_json_next(&walk))
        call_read(&a->calls[a->n_calls++], walk.value);
    if (agent_n_left(a) == 0)
        calls_over(a);
}

static struct agent_ran ran(const struct record *record)
{
    const struct record_agent *r = &record->u.agent;
    return (struct agent_ran){ r->frame, r->begun_wall_ms, r->frame != 0 ? record->wall_ms : 0 };
}

static void returned(struct agent *a, const struct record *record)
{
    const struct record_agent *r = &record->u.agent;
    a->calls[r->index].ran = ran(record);
    a->calls[r->index].result = value_make(&r->value);
    a->calls[r->index].failed = r->failed;
    if (agent_n_left(a) == 0)
        calls_over(a);
}

static void answered(struct agent *a, const struct record *record)
{
    const struct record_agent *r = &record->u.agent;
    a->tokens = r->index;
    a->n_counted = a->n_said;
    a->room = AGENT_ROOM_SOME;
    struct agent_entry *entry = say(a);
    entry->what = AGENT_ANSWER;
    entry->step = COX_TURN_MODEL;
    entry->ran = ran(record);
    entry->value = value_make(&r->value);
    a->undecided = true;
}

static void heard(struct agent *a, struct cox_slice text)
{
    a->heard = cox_realloc(a->heard, a->n_heard + 1u, sizeof a->heard[0]);
    a->heard[a->n_heard++] = cox_strndup((const char *)text.data, text.len);
}

static void begun(struct agent *a, const struct record_agent *r)
{
    a->request = value_make(&r->value);
    a->n_lists = r->index;
    a->lists = cox_calloc(a->n_lists + 1u, sizeof(a->lists[0]));
    a->list_frames = cox_calloc(a->n_lists + 1u, sizeof(a->list_frames[0]));
}

void agent_apply(struct step *s, const struct record *record)
{
    const struct record_agent *r = &record->u.agent;
    struct agent *a = agent_make(s);
    switch (r->what) {
    case AGENT_BEGUN:
        begun(a, r);
        break;
    case AGENT_LISTED:
        a->lists[r->index] = value_make(&r->value);
        break;
    case AGENT_EQUIPPED:
        a->tools = value_make(&r->value);
        break;
    case AGENT_ANSWERED:
        answered(a, record);
        break;
    case AGENT_CALLED:
        called(a, r->text);
        break;
    case AGENT_APPROVED:
        a->calls[r->index].approved = true;
        break;
    case AGENT_RETURNED:
        returned(a, record);
        break;
    case AGENT_TOLD:
        if (r->text.len > 0)
            say_text(a, r->text);
        a->n_reasks += r->failed;
        a->undecided = false;
        turn_over(a);
        break;
    case AGENT_HEARD:
        heard(a, r->text);
        break;
    case AGENT_TRIMMED:
        agent_leave_out(a, r->index);
        if (a->room == AGENT_ROOM_NONE)
            a->room = AGENT_ROOM_MADE;
        break;
    case AGENT_REFUSED:
        a->room = AGENT_ROOM_NONE;
        turn_over(a);
        break;
    }
}

/* The calls that the record makes are read by apply: here only that the agent stands where it may. */
bool agent_fits(const struct step *s, const struct record *record)
{
    const struct record_agent *r = &record->u.agent;
    const struct agent *a = s->x != NULL ? s->x->agent : NULL;
    bool some = r->value.kind != COX_PAYLOAD_NONE;
    if (r->what == AGENT_BEGUN)
        return a == NULL && some && r->index <= COX_TOOLS_MAX;
    if (a == NULL)
        return false;
    switch (r->what) {
    case AGENT_LISTED:
        return some && r->index < a->n_lists && a->lists[r->index] == NULL;
    case AGENT_EQUIPPED:
        return some && a->tools == NULL;
    case AGENT_ANSWERED:
        return some && !a->undecided && a->n_calls == 0;
    case AGENT_CALLED:
        return a->undecided && a->n_calls == 0 && cox_json_check(r->text, NULL) == COX_OK &&
               cox_json_kind(r->text) == COX_JSON_ARRAY;
    case AGENT_APPROVED:
        return r->index < a->n_calls;
    case AGENT_RETURNED:
        return some && r->index < a->n_calls && a->calls[r->index].result == NULL;
    case AGENT_TOLD:
        return a->undecided;
    case AGENT_HEARD:
        return a->n_heard < COX_AGENT_HEARD_MAX;
    case AGENT_TRIMMED:
        return r->index <= a->n_said;
    case AGENT_REFUSED:
        return !a->undecided && a->n_calls == 0;
    default:
        return false;
    }
}

/* ---- bytes ---- */

enum { CALL_APPROVE = 1, CALL_ASK = 2, CALL_APPROVED = 4, CALL_FAILED = 8 };

static void ran_encode(struct cox_buf *b, const struct agent_ran *ran)
{
    cox_put_u64(b, ran->frame);
    cox_put_i64(b, ran->begun_wall_ms);
    cox_put_i64(b, ran->ended_wall_ms);
}

static struct agent_ran ran_decode(struct cox_reader *r)
{
    struct agent_ran ran;
    ran.frame = cox_get_u64(r);
    ran.begun_wall_ms = cox_get_i64(r);
    ran.ended_wall_ms = cox_get_i64(r);
    return ran;
}

static void call_encode(struct cox_buf *b, const struct agent_call *c)
{
    entity_put_text(b, c->id);
    entity_put_text(b, c->name);
    entity_put_value(b, c->args);
    entity_put_value(b, c->result);
    cox_put_u32(b, c->step);
    ran_encode(b, &c->ran);
    cox_put_u8(b, (uint8_t)((c->approve ? CALL_APPROVE : 0) | (c->ask ? CALL_ASK : 0) |
                            (c->approved ? CALL_APPROVED : 0) | (c->failed ? CALL_FAILED : 0)));
}

static void call_decode(struct cox_reader *r, struct agent_call *c)
{
    c->id = entity_get_text(r);
    c->name = entity_get_text(r);
    c->args = entity_get_value(r);
    c->result = entity_get_value(r);
    c->step = cox_get_u32(r);
    c->ran = ran_decode(r);
    uint8_t flags = cox_get_u8(r);
    c->approve = flags & CALL_APPROVE;
    c->ask = flags & CALL_ASK;
    c->approved = flags & CALL_APPROVED;
    c->failed = flags & CALL_FAILED;
}

void agent_encode(struct cox_buf *b, const struct agent *a)
{
    entity_put_value(b, a->request);
    entity_put_value(b, a->tools);
    cox_put_u32(b, a->turn);
    cox_put_u32(b, a->n_reasks);
    cox_put_u8(b, a->undecided);
    cox_put_u32(b, a->n_lists);
    for (uint32_t i = 0; i < a->n_lists; i++)
        entity_put_value(b, a->lists[i]);
    cox_put_u32(b, a->n_said);
    for (uint32_t i = 0; i < a->n_said; i++) {
        cox_put_u8(b, (uint8_t)a->said[i].what);
        cox_put_u8(b, a->said[i].failed);
        entity_put_value(b, a->said[i].value);
        entity_put_text(b, a->said[i].id != NULL ? a->said[i].id : "");
        entity_put_text(b, a->said[i].name != NULL ? a->said[i].name : "");
        cox_put_u32(b, a->said[i].turn);
        cox_put_u32(b, a->said[i].step);
        ran_encode(b, &a->said[i].ran);
    }
    cox_put_u32(b, a->n_calls);
    for (uint32_t i = 0; i < a->n_calls; i++)
        call_encode(b, &a->calls[i]);
    cox_put_u32(b, a->n_heard);
    for (uint32_t i = 0; i < a->n_heard; i++)
        entity_put_text(b, a->heard[i]);
    cox_put_u64(b, a->tokens);
    cox_put_u32(b, a->n_counted);
    cox_put_u8(b, a->room);
}

static void said_decode(struct cox_reader *r, struct agent *a)
{
    struct agent_entry *entry = say(a);
    uint8_t what = cox_get_u8(r);
    entry->failed = cox_get_u8(r) != 0;
    entry->value = entity_get_value(r);
    char *id = entity_get_text(r), *name = entity_get_text(r);
    entry->turn = cox_get_u32(r);
    entry->step = cox_get_u32(r);
    entry->ran = ran_decode(r);
    if (what < AGENT_ANSWER || what > AGENT_TEXT || entry->value == NULL)
        r->bad = true;
    entry->what = what;
    if (what == AGENT_RESULT) {
        entry->id = id;
        entry->name = name;
    } else {
        cox_free(id);
        cox_free(name);
    }
}

void agent_decode(struct cox_reader *r, struct step *s)
{
    struct agent *a = agent_make(s);
    a->request = entity_get_value(r);
    a->tools = entity_get_value(r);
    a->turn = cox_get_u32(r);
    a->n_reasks = cox_get_u32(r);
    a->undecided = cox_get_u8(r) != 0;
    uint32_t n = cox_get_u32(r);
    if (n > COX_TOOLS_MAX || a->request == NULL)
        r->bad = true;
    if (r->bad)
        return;
    a->lists = cox_calloc(n + 1u, sizeof(a->lists[0]));
    a->list_frames = cox_calloc(n + 1u, sizeof(a->list_frames[0]));
    for (a->n_lists = n, n = 0; n < a->n_lists; n++)
        a->lists[n] = entity_get_value(r);
    for (n = cox_get_u32(r); n > 0 && !r->bad; n--)
        said_decode(r, a);
    n = cox_get_u32(r);
    if (n > COX_TURN_CALLS_MAX)
        r->bad = true;
    if (!r->bad && n > 0)
        a->calls = cox_calloc(COX_TURN_CALLS_MAX, sizeof a->calls[0]);
    while (a->n_calls < n && !r->bad)
        call_decode(r, &a->calls[a->n_calls++]);
    for (n = cox_get_u32(r); n > 0 && !r->bad && a->n_heard < COX_AGENT_HEARD_MAX; n--) {
        struct cox_slice text = cox_get_bytes(r);
        heard(a, text);
    }
    a->tokens = cox_get_u64(r);
    a->n_counted = cox_get_u32(r);
    a->room = cox_get_u8(r);
    if (a->n_counted > a->n_said || a->room > AGENT_ROOM_MADE)
        r->bad = true;
}
