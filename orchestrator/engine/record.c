#include "record.h"
#include "ledger.h"

#include <string.h>

static void put_token(struct cox_buf *b, struct cox_token t)
{
    cox_put_u64(b, t.epoch);
    cox_put_u64(b, t.counter);
}

static struct cox_token get_token(struct cox_reader *r)
{
    struct cox_token t;
    t.epoch = cox_get_u64(r);
    t.counter = cox_get_u64(r);
    return t;
}

static void put_reservation(struct cox_buf *b, const struct reservation *r)
{
    cox_put_u64(b, r->reserved);
    cox_put_u64(b, r->guessed);
}

/* The last field of what most often has none: they end before it. */
static void put_call(struct cox_buf *b, const struct reservation *r)
{
    if (r->reserved > 0)
        put_reservation(b, r);
}

static void get_call(struct cox_reader *r, struct reservation *ret)
{
    if (cox_reader_left(r) == 0)
        return;
    ret->reserved = cox_get_u64(r);
    ret->guessed = cox_get_u64(r);
}

void payload_encode(struct cox_buf *b, const struct cox_payload *p)
{
    cox_put_u8(b, (uint8_t)p->kind);
    if (p->kind == COX_PAYLOAD_INLINE) {
        cox_put_bytes(b, p->bytes);
    } else if (p->kind == COX_PAYLOAD_STORED) {
        cox_buf_append(b, p->hash.b, sizeof p->hash.b);
        cox_put_u64(b, p->size);
    }
}

struct cox_slice record_get_name(struct cox_reader *r)
{
    struct cox_slice s = cox_get_bytes(r);
    if (s.len > 0 && memchr(s.data, 0, s.len) != NULL)
        r->bad = true;
    return s;
}

static void get_hash(struct cox_reader *r, struct cox_hash *ret)
{
    struct cox_slice s = cox_get_raw(r, sizeof ret->b);
    memset(ret, 0, sizeof *ret);
    if (s.len == sizeof ret->b)
        memcpy(ret->b, s.data, s.len);
}

void payload_decode(struct cox_reader *r, struct cox_payload *ret)
{
    memset(ret, 0, sizeof *ret);
    switch (cox_get_u8(r)) {
    case COX_PAYLOAD_NONE:
        break;
    case COX_PAYLOAD_INLINE:
        ret->kind = COX_PAYLOAD_INLINE;
        ret->bytes = cox_get_bytes(r);
        ret->size = ret->bytes.len;
        break;
    case COX_PAYLOAD_STORED:
        ret->kind = COX_PAYLOAD_STORED;
        get_hash(r, &ret->hash);
        ret->size = cox_get_u64(r);
        break;
    default:
        r->bad = true;
    }
}

static void encode_ended(struct cox_buf *b, const struct record_ended *e)
{
    put_token(b, e->token);
    cox_put_u8(b, (uint8_t)e->status);
    cox_put_u8(b, (uint8_t)e->code);
    cox_put_u8(b, (uint8_t)e->next);
    cox_put_u8(b, e->has_exit_code);
    cox_put_u32(b, (uint32_t)e->exit_code);
    cox_put_u64(b, e->cpu_us);
    cox_put_i64(b, e->retry_wall_ms);
    cox_put_bytes(b, e->message);
    payload_encode(b, &e->output);
    bool more = e->artifacts.kind != COX_PAYLOAD_NONE || e->errors.kind != COX_PAYLOAD_NONE || e->took_signal;
    if (!more)
        return; /* most: a reader finds zeroes where a body ends */
    payload_encode(b, &e->artifacts);
    payload_encode(b, &e->errors);
    cox_put_u64(b, e->took_signal);
}

static void decode_ended(struct cox_reader *r, struct record_ended *e)
{
    e->token = get_token(r);
    e->status = (enum cox_attempt_status)cox_get_u8(r);
    e->code = (enum cox_code)cox_get_u8(r);
    e->next = (enum record_next)cox_get_u8(r);
    e->has_exit_code = cox_get_u8(r) != 0;
    e->exit_code = (int32_t)cox_get_u32(r);
    e->cpu_us = cox_get_u64(r);
    e->retry_wall_ms = cox_get_i64(r);
    e->message = cox_get_bytes(r);
    payload_decode(r, &e->output);
    if (cox_reader_left(r) > 0) {
        payload_decode(r, &e->artifacts);
        payload_decode(r, &e->errors);
        e->took_signal = cox_get_u64(r);
    }
    if (e->status >= COX_ATTEMPT_STATUS_NR || e->code >= COX_CODE_NR || e->next > NEXT_CONTINUE)
        r->bad = true;
}

static void encode_frame(struct cox_buf *b, const struct record_frame *f)
{
    cox_put_u64(b, f->parent);
    cox_put_u32(b, f->parent_step);
    put_token(b, f->token);
    cox_put_u64(b, f->item);
    cox_put_u32(b, f->first);
    cox_put_bytes(b, f->image);
    payload_encode(b, &f->item_json);
    payload_encode(b, &f->args);
    cox_put_bytes(b, f->pins);
}

static void decode_frame(struct cox_reader *r, struct record_frame *f)
{
    f->parent = cox_get_u64(r);
    f->parent_step = cox_get_u32(r);
    f->token = get_token(r);
    f->item = cox_get_u64(r);
    f->first = cox_get_u32(r);
    f->image = cox_get_bytes(r);
    payload_decode(r, &f->item_json);
    payload_decode(r, &f->args);
    if (cox_reader_left(r) > 0)
        f->pins = cox_get_bytes(r);
}

void record_item_encode(struct cox_buf *b, const struct record_item *item)
{
    cox_put_u32(b, item->index);
    cox_put_u8(b, (uint8_t)item->next);
    if (item->next == NEXT_DONE) {
        cox_put_bytes(b, item->output);
        return;
    }
    cox_put_u8(b, (uint8_t)item->code);
    cox_put_i64(b, item->retry_wall_ms);
    cox_put_bytes(b, item->message);
}

bool record_item_next(struct cox_reader *in, struct record_item *ret)
{
    memset(ret, 0, sizeof *ret);
    if (in->bad || cox_reader_left(in) == 0)
        return false;
    ret->index = cox_get_u32(in);
    ret->next = (enum record_next)cox_get_u8(in);
    if (ret->next == NEXT_DONE) {
        ret->output = cox_get_bytes(in);
    } else {
        ret->code = (enum cox_code)cox_get_u8(in);
        ret->retry_wall_ms = cox_get_i64(in);
        ret->message = cox_get_bytes(in);
    }
    if (ret->next > NEXT_CANCEL || ret->code >= COX_CODE_NR)
        in->bad = true;
    return !in->bad;
}

static void encode_agent(struct cox_buf *b, const struct record_agent *a)
{
    cox_put_u8(b, (uint8_t)a->what);
    cox_put_u32(b, a->index);
    cox_put_u8(b, a->failed);
    cox_put_u64(b, a->frame);
    cox_put_i64(b, a->begun_wall_ms);
    payload_encode(b, &a->value);
    cox_put_bytes(b, a->text);
}

static void decode_agent(struct cox_reader *in, struct record_agent *a)
{
    a->what = (enum agent_fact)cox_get_u8(in);
    a->index = cox_get_u32(in);
    a->failed = cox_get_u8(in) != 0;
    a->frame = cox_get_u64(in);
    a->begun_wall_ms = cox_get_i64(in);
    payload_decode(in, &a->value);
    a->text = cox_get_bytes(in);
    if (a->what < AGENT_BEGUN || a->what > AGENT_REFUSED)
        in->bad = true;
}

static void encode_expansion(struct cox_buf *b, const struct record *r)
{
    switch (r->type) {
    case RECORD_WAITING:
        put_token(b, r->u.waiting.token);
        cox_put_i64(b, r->u.waiting.wake_wall_ms);
        cox_put_bytes(b, r->u.waiting.detail);
        break;
    case RECORD_FRAME_OPENED:
        encode_frame(b, &r->u.frame);
        break;
    case RECORD_CONTINUED:
        payload_encode(b, &r->u.continued.outputs);
        cox_put_u64(b, r->u.continued.cpu_us);
        break;
    case RECORD_AGENT:
        encode_agent(b, &r->u.agent);
        break;
    case RECORD_MAP_BEGUN:
        cox_put_u32(b, r->u.map.n_items);
        payload_encode(b, &r->u.map.items);
        break;
    case RECORD_ITEMS_ASSIGNED:
    case RECORD_ITEMS_UNASSIGNED:
        put_token(b, r->u.items.token);
        cox_put_u32(b, r->u.items.worker);
        cox_put_u32(b, r->u.items.first);
        cox_put_u32(b, r->u.items.n);
        cox_put_u8(b, r->u.items.returned);
        put_call(b, &r->u.items.call);
        break;
    case RECORD_ITEMS_ENDED:
        put_token(b, r->u.items_ended.token);
        cox_put_u64(b, r->u.items_ended.cpu_us);
        cox_put_u32(b, r->u.items_ended.n);
        cox_put_bytes(b, r->u.items_ended.items);
        break;
    case RECORD_SIGNALLED:
        cox_put_bytes(b, r->u.signalled.name);
        payload_encode(b, &r->u.signalled.payload);
        break;
    case RECORD_TASK_EVICTED:
        cox_put_i64(b, r->u.evicted.wake_wall_ms);
        break;
    case RECORD_TASK_WOKEN:
    case RECORD_TASK_REVIVED:
        cox_put_bytes(b, r->u.woken.bytes);
        break;
    case RECORD_TASK_FORKED:
        cox_put_bytes(b, r->u.forked.tenant);
        cox_put_bytes(b, r->u.forked.key);
        cox_buf_append(b, r->u.forked.document.b, sizeof r->u.forked.document.b);
        cox_put_bytes(b, r->u.forked.bytes);
        cox_put_u64(b, r->u.forked.from);
        break;
    case RECORD_PINNED:
        cox_put_u32(b, r->u.pinned.class_index);
        cox_put_bytes(b, r->u.pinned.version);
        break;
    default: /* the others have nothing but their head */
        break;
    }
}

static void decode_expansion(struct cox_reader *in, struct record *r)
{
    switch (r->type) {
    case RECORD_WAITING:
        r->u.waiting.token = get_token(in);
        r->u.waiting.wake_wall_ms = cox_get_i64(in);
        r->u.waiting.detail = cox_get_bytes(in);
        break;
    case RECORD_FRAME_OPENED:
        decode_frame(in, &r->u.frame);
        break;
    case RECORD_CONTINUED:
        payload_decode(in, &r->u.continued.outputs);
        if (cox_reader_left(in) > 0)
            r->u.continued.cpu_us = cox_get_u64(in);
        break;
    case RECORD_AGENT:
        decode_agent(in, &r->u.agent);
        break;
    case RECORD_MAP_BEGUN:
        r->u.map.n_items = cox_get_u32(in);
        payload_decode(in, &r->u.map.items);
        break;
    case RECORD_ITEMS_ASSIGNED:
    case RECORD_ITEMS_UNASSIGNED:
        r->u.items.token = get_token(in);
        r->u.items.worker = cox_get_u32(in);
        r->u.items.first = cox_get_u32(in);
        r->u.items.n = cox_get_u32(in);
        r->u.items.returned = cox_get_u8(in) != 0;
        get_call(in, &r->u.items.call);
        break;
    case RECORD_ITEMS_ENDED:
        r->u.items_ended.token = get_token(in);
        r->u.items_ended.cpu_us = cox_get_u64(in);
        r->u.items_ended.n = cox_get_u32(in);
        r->u.items_ended.items = cox_get_bytes(in);
        break;
    case RECORD_SIGNALLED:
        r->u.signalled.name = cox_get_bytes(in);
        payload_decode(in, &r->u.signalled.payload);
        break;
    case RECORD_TASK_EVICTED:
        r->u.evicted.wake_wall_ms = cox_get_i64(in);
        break;
    case RECORD_TASK_WOKEN:
    case RECORD_TASK_REVIVED:
        r->u.woken.bytes = cox_get_bytes(in);
        break;
    case RECORD_TASK_FORKED:
        r->u.forked.tenant = cox_get_bytes(in);
        r->u.forked.key = cox_get_bytes(in);
        get_hash(in, &r->u.forked.document);
        r->u.forked.bytes = cox_get_bytes(in);
        if (cox_reader_left(in) > 0)
            r->u.forked.from = cox_get_u64(in);
        break;
    case RECORD_PINNED:
        r->u.pinned.class_index = cox_get_u32(in);
        r->u.pinned.version = cox_get_bytes(in);
        break;
    default:
        break;
    }
}

/* What operators keep, and ledgers. */
static void encode_kept(struct cox_buf *b, const struct record *r)
{
    switch (r->type) {
    case RECORD_POLICY:
        cox_put_u32(b, r->u.policy.ref);
        cox_put_u8(b, r->u.policy.cordoned);
        break;
    case RECORD_TEMPLATE_APPLIED:
    case RECORD_TEMPLATE_DROPPED:
        cox_put_bytes(b, r->u.template.tenant);
        cox_put_bytes(b, r->u.template.name);
        cox_put_u32(b, r->u.template.major);
        cox_put_bytes(b, r->u.template.document);
        cox_put_u8(b, r->u.template.deleted);
        break;
    case RECORD_SCHEDULE_APPLIED:
        cox_put_bytes(b, r->u.schedule.tenant);
        cox_put_bytes(b, r->u.schedule.name);
        cox_put_bytes(b, r->u.schedule.document);
        cox_put_bytes(b, r->u.schedule.image);
        cox_put_bytes(b, r->u.schedule.cron);
        cox_put_bytes(b, r->u.schedule.zone);
        cox_put_u8(b, r->u.schedule.overlap);
        cox_put_i64(b, r->u.schedule.catch_up_ms);
        cox_put_i64(b, r->u.schedule.next_wall_ms);
        break;
    case RECORD_WORKSPACE:
        cox_put_bytes(b, r->u.workspace);
        break;
    case RECORD_USAGE:
        cox_put_u64(b, r->u.usage.frame);
        put_token(b, r->u.usage.token);
        usage_encode(b, &r->u.usage.usage);
        cox_put_u64(b, r->u.usage.guessed);
        cox_put_u64(b, r->u.usage.settled);
        cox_put_u64(b, r->u.usage.n_steps);
        cox_put_bytes(b, r->u.usage.above);
        cox_put_u32(b, r->u.usage.n_ended);
        put_reservation(b, &r->u.usage.released);
        break;
    case RECORD_CALL_BEGUN:
        put_token(b, r->u.call.token);
        put_reservation(b, &r->u.call.of);
        break;
    case RECORD_SCHEDULE_RAN:
        cox_put_u64(b, r->u.ran.made);
        cox_put_i64(b, r->u.ran.due_wall_ms);
        cox_put_i64(b, r->u.ran.next_wall_ms);
        cox_put_u32(b, r->u.ran.n_queued);
        cox_put_u32(b, r->u.ran.n_skipped);
        break;
    default:
        break;
    }
}

static void decode_kept(struct cox_reader *in, struct record *r)
{
    switch (r->type) {
    case RECORD_POLICY:
        r->u.policy.ref = cox_get_u32(in);
        r->u.policy.cordoned = cox_get_u8(in) != 0;
        break;
    case RECORD_TEMPLATE_APPLIED:
    case RECORD_TEMPLATE_DROPPED:
        r->u.template.tenant = record_get_name(in);
        r->u.template.name = record_get_name(in);
        r->u.template.major = cox_get_u32(in);
        r->u.template.document = cox_get_bytes(in);
        r->u.template.deleted = cox_get_u8(in) != 0;
        break;
    case RECORD_SCHEDULE_APPLIED:
        r->u.schedule.tenant = record_get_name(in);
        r->u.schedule.name = record_get_name(in);
        r->u.schedule.document = cox_get_bytes(in);
        r->u.schedule.image = cox_get_bytes(in);
        r->u.schedule.cron = cox_get_bytes(in);
        r->u.schedule.zone = cox_get_bytes(in);
        r->u.schedule.overlap = cox_get_u8(in);
        r->u.schedule.catch_up_ms = cox_get_i64(in);
        r->u.schedule.next_wall_ms = cox_get_i64(in);
        break;
    case RECORD_WORKSPACE:
        r->u.workspace = cox_get_bytes(in);
        break;
    case RECORD_USAGE:
        r->u.usage.frame = cox_get_u64(in);
        r->u.usage.token = get_token(in);
        usage_decode(in, &r->u.usage.usage);
        r->u.usage.guessed = cox_get_u64(in);
        r->u.usage.settled = cox_get_u64(in);
        r->u.usage.n_steps = cox_get_u64(in);
        if (cox_reader_left(in) > 0) {
            r->u.usage.above = cox_get_bytes(in);
            r->u.usage.n_ended = cox_get_u32(in);
            get_call(in, &r->u.usage.released);
        }
        break;
    case RECORD_CALL_BEGUN:
        r->u.call.token = get_token(in);
        get_call(in, &r->u.call.of);
        break;
    case RECORD_SCHEDULE_RAN:
        r->u.ran.made = cox_get_u64(in);
        r->u.ran.due_wall_ms = cox_get_i64(in);
        r->u.ran.next_wall_ms = cox_get_i64(in);
        r->u.ran.n_queued = cox_get_u32(in);
        r->u.ran.n_skipped = cox_get_u32(in);
        break;
    default:
        break;
    }
}

static void encode_body(struct cox_buf *b, const struct record *r)
{
    switch (r->type) {
    case RECORD_EPOCH:
        cox_put_u64(b, r->u.epoch);
        break;
    case RECORD_TASK_SUBMITTED:
        cox_put_bytes(b, r->u.submitted.tenant);
        cox_put_bytes(b, r->u.submitted.key);
        cox_buf_append(b, r->u.submitted.document.b, sizeof r->u.submitted.document.b);
        cox_put_bytes(b, r->u.submitted.image);
        if (r->u.submitted.schedule.len > 0 || r->u.submitted.pins.len > 0) {
            cox_put_bytes(b, r->u.submitted.schedule);
            cox_put_bytes(b, r->u.submitted.pins);
        }
        break;
    case RECORD_STEP_REFUSED:
        cox_put_u8(b, (uint8_t)r->u.refused.next);
        cox_put_u8(b, (uint8_t)r->u.refused.code);
        cox_put_bytes(b, r->u.refused.message);
        break;
    case RECORD_ASSIGNED:
        put_token(b, r->u.assigned.token);
        cox_put_u32(b, r->u.assigned.worker);
        put_call(b, &r->u.assigned.call);
        break;
    case RECORD_ATTEMPT_ENDED:
        encode_ended(b, &r->u.ended);
        break;
    case RECORD_UNASSIGNED:
        put_token(b, r->u.unassigned.token);
        cox_put_u8(b, r->u.unassigned.returned);
        break;
    case RECORD_WORKER_NAMED:
        cox_put_u32(b, r->u.worker.ref);
        cox_put_bytes(b, r->u.worker.id);
        break;
    case RECORD_TASK_STOPPING:
        cox_put_u8(b, (uint8_t)r->u.stopping.into);
        cox_put_u8(b, (uint8_t)r->u.stopping.code);
        cox_put_bytes(b, r->u.stopping.message);
        break;
    case RECORD_TASK_FINISHED:
        cox_put_u8(b, (uint8_t)r->u.finished.status);
        cox_put_u8(b, (uint8_t)r->u.finished.code);
        cox_put_bytes(b, r->u.finished.message);
        payload_encode(b, &r->u.finished.outputs);
        break;
    case RECORD_PAYLOAD:
        cox_buf_append(b, r->u.payload.hash.b, sizeof r->u.payload.hash.b);
        cox_put_bytes(b, r->u.payload.bytes);
        if (r->u.payload.tenant.len > 0)
            cox_put_bytes(b, r->u.payload.tenant);
        break;
    default:
        encode_expansion(b, r);
        encode_kept(b, r);
    }
}

enum record_place record_place(enum record_type type)
{
    switch (type) {
    case RECORD_STEP_OPENED:
    case RECORD_STEP_SKIPPED:
    case RECORD_STEP_REFUSED:
    case RECORD_STEP_CANCELLED:
    case RECORD_STEP_RESET:
    case RECORD_ASSIGNED:
    case RECORD_ATTEMPT_ENDED:
    case RECORD_UNASSIGNED:
    case RECORD_WAITING:
    case RECORD_CONTINUED:
    case RECORD_WORKSPACE:
    case RECORD_AGENT:
        return PLACE_STEP_PAGE;
    case RECORD_MAP_BEGUN:
    case RECORD_ITEMS_ASSIGNED:
    case RECORD_ITEMS_ENDED:
    case RECORD_ITEMS_UNASSIGNED:
        return PLACE_MAP_PAGE;
    default:
        return PLACE_ELSEWHERE;
    }
}

void record_encode(struct cox_buf *b, const struct record *r)
{
    cox_put_u8(b, (uint8_t)r->type);
    size_t len_at = b->len;
    cox_put_u32(b, 0);
    size_t body_at = b->len;
    cox_put_u64(b, r->task);
    cox_put_u32(b, r->step);
    cox_put_i64(b, r->wall_ms);
    encode_body(b, r);
    COX_ASSERT(b->len - body_at <= UINT32_MAX);
    cox_set_u32(b, len_at, (uint32_t)(b->len - body_at));
}

static void decode_body(struct cox_reader *in, struct record *r)
{
    switch (r->type) {
    case RECORD_EPOCH:
        r->u.epoch = cox_get_u64(in);
        break;
    case RECORD_TASK_SUBMITTED:
        r->u.submitted.tenant = cox_get_bytes(in);
        r->u.submitted.key = cox_get_bytes(in);
        get_hash(in, &r->u.submitted.document);
        r->u.submitted.image = cox_get_bytes(in);
        if (cox_reader_left(in) > 0) {
            r->u.submitted.schedule = cox_get_bytes(in);
            r->u.submitted.pins = cox_get_bytes(in);
        }
        break;
    case RECORD_STEP_REFUSED:
        r->u.refused.next = (enum record_next)cox_get_u8(in);
        r->u.refused.code = (enum cox_code)cox_get_u8(in);
        r->u.refused.message = cox_get_bytes(in);
        if (r->u.refused.code >= COX_CODE_NR)
            in->bad = true;
        break;
    case RECORD_ASSIGNED:
        r->u.assigned.token = get_token(in);
        r->u.assigned.worker = cox_get_u32(in);
        get_call(in, &r->u.assigned.call);
        break;
    case RECORD_ATTEMPT_ENDED:
        decode_ended(in, &r->u.ended);
        break;
    case RECORD_UNASSIGNED:
        r->u.unassigned.token = get_token(in);
        r->u.unassigned.returned = cox_get_u8(in) != 0;
        break;
    case RECORD_WORKER_NAMED:
        r->u.worker.ref = cox_get_u32(in);
        r->u.worker.id = cox_get_bytes(in);
        break;
    case RECORD_TASK_STOPPING:
        r->u.stopping.into = (enum cox_task_status)cox_get_u8(in);
        r->u.stopping.code = (enum cox_code)cox_get_u8(in);
        r->u.stopping.message = cox_get_bytes(in);
        if (r->u.stopping.code >= COX_CODE_NR || r->u.stopping.into >= COX_TASK_STATUS_NR)
            in->bad = true;
        break;
    case RECORD_TASK_FINISHED:
        r->u.finished.status = (enum cox_task_status)cox_get_u8(in);
        r->u.finished.code = (enum cox_code)cox_get_u8(in);
        r->u.finished.message = cox_get_bytes(in);
        payload_decode(in, &r->u.finished.outputs);
        if (r->u.finished.code >= COX_CODE_NR || r->u.finished.status >= COX_TASK_STATUS_NR)
            in->bad = true;
        break;
    case RECORD_PAYLOAD:
        get_hash(in, &r->u.payload.hash);
        r->u.payload.bytes = cox_get_bytes(in);
        if (cox_reader_left(in) > 0)
            r->u.payload.tenant = cox_get_bytes(in);
        break;
    default:
        decode_expansion(in, r);
        decode_kept(in, r);
    }
}

bool record_decode(struct cox_reader *in, struct record *ret)
{
    if (in->bad || cox_reader_left(in) == 0)
        return false;
    memset(ret, 0, sizeof *ret);
    uint8_t type = cox_get_u8(in);
    uint32_t len = cox_get_u32(in);
    struct cox_slice raw = cox_get_raw(in, len);
    if (in->bad || type == 0 || type >= RECORD_TYPE_END) {
        in->bad = true;
        return false;
    }
    struct cox_reader body = cox_reader(raw);
    ret->type = (enum record_type)type;
    ret->task = cox_get_u64(&body);
    ret->step = cox_get_u32(&body);
    ret->wall_ms = cox_get_i64(&body);
    decode_body(&body, ret);
    if (body.bad)
        in->bad = true;
    return !in->bad;
}
