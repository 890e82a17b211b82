/* How a page of steps is saved and loaded. */
#include "entity.h"
#include "expand/agent.h"
#include "expand/expand.h"
#include "workspace.h"

#include <string.h>

static void past_encode(struct cox_buf *b, const struct past_attempt *p)
{
    cox_put_u32(b, p->number);
    cox_put_u32(b, p->worker);
    cox_put_i64(b, p->started_wall_ms);
    cox_put_i64(b, p->finished_wall_ms);
    cox_put_u64(b, p->cpu_us);
    entity_put_text(b, p->message);
    cox_put_u32(b, (uint32_t)p->exit_code);
    cox_put_u8(b, p->has_exit_code);
    cox_put_u8(b, p->fallback);
    cox_put_u8(b, p->status);
    cox_put_u8(b, p->code);
    cox_put_u64(b, p->frame);
}

static void past_decode(struct cox_reader *r, uint8_t version, struct past_attempt *p)
{
    p->number = cox_get_u32(r);
    p->worker = cox_get_u32(r);
    p->started_wall_ms = cox_get_i64(r);
    p->finished_wall_ms = cox_get_i64(r);
    p->cpu_us = cox_get_u64(r);
    p->message = entity_get_text(r);
    p->exit_code = (int32_t)cox_get_u32(r);
    p->has_exit_code = cox_get_u8(r) != 0;
    p->fallback = cox_get_u8(r) != 0;
    p->status = cox_get_u8(r);
    p->code = cox_get_u8(r);
    p->frame = version >= 2 ? cox_get_u64(r) : 0;
    if (p->status >= COX_ATTEMPT_STATUS_NR || p->code >= COX_CODE_NR)
        r->bad = true;
}

#define STEP_DURABLE_FLAGS (STEP_OPEN | STEP_IN_FALLBACK | STEP_HAS_EXIT | STEP_STOPPING)

/* That a step has one is derived; what stands in it is durable. */
static bool expansion_untouched(const struct expansion *x)
{
    return x == NULL ||
           (x->frame == 0 && x->wake_wall_ms == 0 && x->detail == NULL && x->n_continuations == 0 &&
            !x->continuing && x->asked == NULL && x->resume == NULL && x->errors == NULL &&
            x->artifacts == NULL && x->map_items == NULL && x->map_n_items == 0 && !x->map_begun);
}

enum { HAS_AGENT = 2 }; /* and what follows, which earlier versions had not */
static void expansion_encode(struct cox_buf *b, const struct expansion *x)
{
    bool agent = x != NULL && !agent_untouched(x->agent), any = agent || !expansion_untouched(x);
    cox_put_u8(b, agent ? HAS_AGENT : any);
    if (!any)
        return;
    cox_put_u64(b, x->frame);
    cox_put_i64(b, x->wake_wall_ms);
    entity_put_text(b, x->detail);
    cox_put_u32(b, x->n_continuations);
    cox_put_u8(b, x->continuing);
    entity_put_value(b, x->asked);
    entity_put_value(b, x->resume);
    entity_put_value(b, x->errors);
    entity_put_value(b, x->artifacts);
    entity_put_value(b, x->map_items);
    cox_put_u32(b, x->map_n_items);
    cox_put_u8(b, x->map_begun);
    cox_put_u64(b, x->map_seq);
    if (agent)
        agent_encode(b, x->agent);
}

static void expansion_decode(struct cox_reader *r, struct step *s)
{
    uint8_t has = cox_get_u8(r);
    struct expansion *x = has != 0 && !r->bad ? step_expansion(s) : NULL;
    if (x == NULL)
        return;
    x->frame = cox_get_u64(r);
    x->wake_wall_ms = cox_get_i64(r);
    x->detail = entity_get_text(r);
    x->n_continuations = cox_get_u32(r);
    x->continuing = cox_get_u8(r) != 0;
    x->asked = entity_get_value(r);
    x->resume = entity_get_value(r);
    x->errors = entity_get_value(r);
    x->artifacts = entity_get_value(r);
    x->map_items = entity_get_value(r);
    x->map_n_items = cox_get_u32(r);
    x->map_begun = cox_get_u8(r) != 0;
    x->map_seq = cox_get_u64(r);
    if (has == HAS_AGENT)
        agent_decode(r, s);
}

/* Most steps of a large task have nothing to say yet: a byte in the page marks those that do. */
enum { STEP_IS_TOUCHED = 1, STEP_HAS_FILES = 2 };
static bool step_untouched(const struct step *s)
{
    return s->n_attempts == 0 && s->history == NULL && s->code == COX_CODE_NONE && s->token.counter == 0 &&
           s->finished_wall_ms == 0;
}

static void step_encode(struct cox_buf *b, const struct step *s)
{
    /* READY is BLOCKED with nothing left to wait for: derived, so the two are one on disk */
    cox_put_u8(b, s->status == COX_STEP_READY ? COX_STEP_BLOCKED : s->status);
    cox_put_u8(b, (uint8_t)(s->flags & STEP_DURABLE_FLAGS));
    cox_put_u32(b, s->n_attempts);
    if (step_untouched(s))
        return;
    cox_put_u64(b, s->token.epoch);
    cox_put_u64(b, s->token.counter);
    cox_put_i64(b, s->started_wall_ms);
    cox_put_i64(b, s->finished_wall_ms);
    cox_put_i64(b, s->ready_wall_ms);
    cox_put_u64(b, s->cpu_us);
    cox_put_u32(b, s->worker);
    cox_put_u32(b, (uint32_t)s->exit_code);
    cox_put_u16(b, COX_PLANTED("retry-counter-reset") ? 0 : s->n_tries);
    cox_put_u8(b, s->attempt_status);
    cox_put_u8(b, s->code);
    cox_put_u8(b, s->n_losses);
    entity_put_text(b, s->message);
    entity_put_value(b, s->output);
    expansion_encode(b, s->x);
    uint32_t n = s->history != NULL ? s->history->n : 0;
    cox_put_u32(b, n);
    if (n > 0)
        cox_put_u64(b, s->history->forgotten_cpu_us);
    for (uint32_t i = 0; i < n; i++)
        past_encode(b, &s->history->items[i]);
}

static void step_decode(struct cox_reader *r, uint8_t version, struct step *s, bool touched)
{
    s->status = cox_get_u8(r);
    s->flags = cox_get_u8(r) & STEP_DURABLE_FLAGS;
    s->n_attempts = cox_get_u32(r);
    if (s->status >= COX_STEP_STATUS_NR)
        r->bad = true;
    if (!touched || r->bad)
        return;
    s->token.epoch = cox_get_u64(r);
    s->token.counter = cox_get_u64(r);
    s->started_wall_ms = cox_get_i64(r);
    s->finished_wall_ms = cox_get_i64(r);
    s->ready_wall_ms = cox_get_i64(r);
    s->cpu_us = cox_get_u64(r);
    s->worker = cox_get_u32(r);
    s->exit_code = (int32_t)cox_get_u32(r);
    s->n_tries = cox_get_u16(r);
    s->attempt_status = cox_get_u8(r);
    s->code = cox_get_u8(r);
    s->n_losses = cox_get_u8(r);
    s->message = entity_get_text(r);
    s->output = entity_get_value(r);
    if (version >= 2)
        expansion_decode(r, s);
    uint32_t n = cox_get_u32(r);
    if (s->attempt_status >= COX_ATTEMPT_STATUS_NR || s->code >= COX_CODE_NR || n > COX_ATTEMPTS_KEPT ||
        (s->x != NULL && s->x->continuing && n == 0))
        r->bad = true;
    if (r->bad || n == 0)
        return;
    s->history = cox_calloc(1, sizeof *s->history + n * sizeof s->history->items[0]);
    s->history->cap = n;
    s->history->forgotten_cpu_us = cox_get_u64(r);
    for (uint32_t i = 0; i < n && !r->bad; i++, s->history->n++)
        past_decode(r, version, &s->history->items[i]);
}

void page_encode(struct cox_buf *b, const struct page *p)
{
    cox_put_u8(b, ENTITY_VERSION);
    cox_put_u32(b, p->n_steps);
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const struct files *files = p->steps[i].files;
        cox_put_u8(b, (uint8_t)((step_untouched(&p->steps[i]) ? 0 : STEP_IS_TOUCHED) |
                                (files != NULL ? STEP_HAS_FILES : 0)));
        step_encode(b, &p->steps[i]);
        if (files != NULL && !COX_PLANTED("workspace-not-saved"))
            files_encode(b, files);
    }
}

enum cox_err page_decode(struct page *p, struct cox_slice bytes)
{
    struct cox_reader r = cox_reader(bytes);
    uint8_t version = entity_get_version(&r);
    if (cox_get_u32(&r) != p->n_steps)
        return COX_ERR_CORRUPT;
    for (uint32_t i = 0; i < p->n_steps && !r.bad; i++) {
        uint8_t has = cox_get_u8(&r);
        step_decode(&r, version, &p->steps[i], (has & STEP_IS_TOUCHED) != 0);
        if (has & STEP_HAS_FILES && !r.bad && !COX_PLANTED("workspace-not-saved"))
            p->steps[i].files = files_decode(&r);
    }
    return r.bad || cox_reader_left(&r) != 0 ? COX_ERR_CORRUPT : COX_OK;
}
