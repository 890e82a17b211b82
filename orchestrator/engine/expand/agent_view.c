/* What users see of an agent: where it is, and what it has begun that is in the archive. */
#include "agent.h"
#include "expand.h"

#include "cox/engine/agent.h"

#include <string.h>

#define NAME_SHOWN_MAX 64 /* a model may have asked for a tool that there is not, by any name */

static const struct agent *agent_at(const struct cox_task *t, uint32_t step)
{
    if (!task_has_step(t, step))
        return NULL;
    const struct step *s = task_step(t, step);
    return s->x != NULL && !agent_untouched(s->x->agent) ? s->x->agent : NULL;
}

/* ---- addresses ---- */

static void put_call(struct cox_buf *out, uint32_t turn, const char *name, uint32_t n)
{
    cox_buf_printf(out, ".t%u.", turn);
    for (size_t i = 0; name != NULL && name[i] != '\0' && i < NAME_SHOWN_MAX; i++) {
        char c = name[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
        cox_put_u8(out, (uint8_t)(plain ? c : '_'));
    }
    cox_buf_printf(out, ".%u", n);
}

/* Where the results of a turn begin: behind its answer. n_said: nowhere. */
static uint32_t results_of(const struct agent *a, uint32_t turn)
{
    uint32_t at = a->n_said;
    while (at > 0 && a->said[at - 1].turn >= turn)
        at--;
    while (at < a->n_said && (a->said[at].turn != turn || a->said[at].what != AGENT_RESULT))
        at++;
    return at;
}

static const char *call_name(const struct agent *a, uint32_t turn, uint32_t n)
{
    if (turn == a->turn)
        return n < a->n_calls ? a->calls[n].name : NULL;
    uint32_t at = results_of(a, turn);
    return at + n < a->n_said && a->said[at + n].turn == turn ? a->said[at + n].name : NULL;
}

void agent_address(struct cox_buf *out, const struct cox_task *frame)
{
    uint32_t turn = AGENT_ITEM_TURN(frame->parent_item), n = AGENT_ITEM_N(frame->parent_item);
    const struct agent *a = agent_at(frame->parent, frame->parent_step);
    if (turn == 0) {
        cox_buf_printf(out, ".tools.%u", n);
        return;
    }
    if (n == AGENT_N_MODEL || a == NULL) {
        cox_buf_printf(out, ".t%u", turn);
        return;
    }
    put_call(out, turn, call_name(a, turn, n % AGENT_N_APPROVAL), n % AGENT_N_APPROVAL);
    if (n >= AGENT_N_APPROVAL)
        cox_buf_append_str(out, ".approval");
}

/* ---- where it is ---- */

bool cox_agent_view(const struct cox_task *t, uint32_t step, struct cox_agent_view *ret)
{
    const struct agent *a = agent_at(t, step);
    memset(ret, 0, sizeof *ret);
    if (a == NULL)
        return false;
    *ret = (struct cox_agent_view){ .turn = a->turn,
                                    .n_places = a->n_said + a->n_calls,
                                    .n_heard = a->n_heard,
                                    .n_calls = a->n_calls,
                                    .n_left = agent_n_left(a),
                                    .asks_model = a->model != NULL,
                                    .undecided = a->undecided,
                                    .missing = cox_slice_str(a->missing) };
    return true;
}

static void show_ran(struct cox_agent_entry_view *ret, const struct agent_ran *ran)
{
    ret->frame = ran->frame;
    ret->begun_wall_ms = ran->begun_wall_ms;
    ret->ended_wall_ms = ran->ended_wall_ms;
}

/* Of a turn that is over. */
static bool show_said(const struct agent *a, uint32_t at, struct cox_agent_entry_view *ret,
                      struct cox_buf *address)
{
    const struct agent_entry *entry = &a->said[at];
    if (entry->what == AGENT_TEXT)
        return false;
    *ret = (struct cox_agent_entry_view){ .is_model = entry->what == AGENT_ANSWER,
                                          .failed = entry->failed,
                                          .step = entry->step,
                                          .value = entry->value->payload };
    show_ran(ret, &entry->ran);
    if (ret->is_model)
        cox_buf_printf(address, ".t%u", entry->turn);
    else
        put_call(address, entry->turn, entry->name, at - results_of(a, entry->turn));
    return true;
}

/* Of the present turn, others of whose calls have not returned. */
static bool show_returned(const struct agent *a, uint32_t i, struct cox_agent_entry_view *ret,
                          struct cox_buf *address)
{
    const struct agent_call *c = &a->calls[i];
    if (c->result == NULL)
        return false;
    *ret = (struct cox_agent_entry_view){ .failed = c->failed,
                                          .step = c->ask ? COX_TURN_APPROVAL : c->step,
                                          .value = c->result->payload };
    show_ran(ret, &c->ran);
    put_call(address, a->turn, c->name, i);
    return true;
}

bool cox_agent_next(const struct cox_task *t, uint32_t step, uint32_t *it, struct cox_agent_entry_view *ret,
                    struct cox_buf *address)
{
    const struct agent *a = agent_at(t, step);
    struct cox_image_call call;
    for (bool shown = false; a != NULL && *it < a->n_said + a->n_calls;) {
        uint32_t at = (*it)++;
        size_t len = address->len;
        cox_step_address(address, t, step);
        shown =
            at < a->n_said ? show_said(a, at, ret, address) : show_returned(a, at - a->n_said, ret, address);
        if (!shown) {
            address->len = len;
            continue;
        }
        if (ret->step == COX_TURN_APPROVAL)
            cox_buf_append_str(address, ".approval");
        step_call(t, step, task_step(t, step), &call);
        ret->step =
            ret->frame != 0 && ret->step < call.inner_n ? call.inner_first + ret->step : COX_IMAGE_NONE;
        return true;
    }
    return false;
}

/* ---- what has ended ---- */

/* ".t12" before anything else; 0: it is no turn. */
static uint32_t parse_turn(struct cox_slice s)
{
    uint32_t turn = 0;
    if (s.len < 3 || s.data[0] != '.' || s.data[1] != 't')
        return 0;
    for (size_t i = 2; i < s.len && i < 9 && s.data[i] >= '0' && s.data[i] <= '9'; i++)
        turn = turn * 10 + (uint32_t)(s.data[i] - '0');
    return turn;
}

/* Is `own` the address, or what it is within? */
static bool is_under(struct cox_slice address, struct cox_slice own)
{
    return own.len <= address.len && (own.len == 0 || memcmp(own.data, address.data, own.len) == 0) &&
           (own.len == address.len || address.data[own.len] == '.' || address.data[own.len] == '[');
}

/* The longest that fits: a tool's call is also within what looks like its turn. */
static cox_task_id ended_under(const struct cox_task *t, uint32_t step, struct cox_slice address,
                               struct cox_slice *ret_rest)
{
    const struct agent *a = agent_at(t, step);
    struct cox_buf own = { 0 };
    struct cox_agent_entry_view entry;
    cox_task_id found = 0;
    uint32_t turn = 0, it = 0;
    cox_step_address(&own, t, step);
    if (is_under(address, cox_buf_slice(&own)))
        turn = parse_turn(cox_slice(address.data + own.len, address.len - own.len));
    while (turn > 0 && it < a->n_said && a->said[it].turn != turn)
        it++;
    size_t longest = 0;
    for (cox_buf_clear(&own); turn > 0 && cox_agent_next(t, step, &it, &entry, &own); cox_buf_clear(&own)) {
        if (it <= a->n_said && a->said[it - 1].turn != turn)
            break;
        if (entry.frame == 0 || own.len <= longest || !is_under(address, cox_buf_slice(&own)))
            continue;
        found = entry.frame;
        longest = own.len;
        *ret_rest = cox_slice(address.data + own.len, address.len - own.len);
    }
    cox_buf_fini(&own);
    return found;
}

static cox_task_id ended_in(const struct cox_task *t, struct cox_slice address, struct cox_slice *ret_rest)
{
    cox_task_id found = 0;
    for (uint32_t i = cox_task_next_step(t, 0); found == 0 && i != COX_IMAGE_NONE;
         i = cox_task_next_step(t, i + 1))
        if (agent_at(t, i) != NULL)
            found = ended_under(t, i, address, ret_rest);
    return found;
}

cox_task_id cox_engine_find_ended(const struct cox_engine *e, const struct cox_task *t,
                                  struct cox_slice address, struct cox_slice *ret_rest)
{
    const void *it = NULL;
    const struct cox_task *frame;
    cox_task_id found = ended_in(t, address, ret_rest);
    while (e != NULL && found == 0 && (frame = cox_engine_next_frame(e, t, &it)) != NULL)
        found = ended_in(frame, address, ret_rest);
    return found;
}
