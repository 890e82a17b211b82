/* The operator: keeps templates and a schedule, sets workers aside. All of it is asked again until it is
 * answered; once faults have stopped, workers come back and the schedule goes. */
#include "sim.h"

#include "cox/cron.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUESTS (UINT64_C(1) << 40)
enum ask {
    ASK_TEMPLATE = 0,
    ASK_DELETE = 8,
    ASK_SCHEDULE = 16,
    ASK_UNSCHEDULE,
    ASK_CORDON = 1000,
    ASK_UNCORDON = 3000
};

static void send(struct sim *s, uint64_t what)
{
    struct message *m = message_new();
    message_add(m, ITEM_OPERATOR)->number = what;
    cox_list_push_back(&s->coxd.inbox, &m->node);
    coxd_poke(s);
}

bool operator_has_templates(const struct sim *s)
{
    for (uint32_t i = 0; i < SCENE_TEMPLATES; i++)
        if (!s->operator.templates[i].kept)
            return false;
    return true;
}

void operator_doubt(struct sim *s)
{
    for (uint32_t i = 0; i < SCENE_TEMPLATES; i++)
        s->operator.templates[i].kept = false;
    event_soon(s, &s->operator.ev, s->now_ns + SECOND);
}

static void ask_something(struct sim *s)
{
    struct operator* o = & s->operator;
    uint32_t i = (uint32_t)rnd(s, SCENE_TEMPLATES), w = (uint32_t)rnd(s, s->n_hosts);
    for (uint32_t k = 0; k < SCENE_TEMPLATES; k++)
        if (!o->templates[k].kept)
            send(s, ASK_TEMPLATE + k);
    if (s->healed) {
        for (uint32_t k = 0; k < s->n_hosts; k++)
            if (!s->hosts[k].uncordoned)
                send(s, ASK_UNCORDON + k);
        if (!o->schedule_gone)
            send(s, ASK_UNSCHEDULE);
        return;
    }
    if (!o->schedule_known && operator_has_templates(s))
        send(s, ASK_SCHEDULE);
    if (befalls(s, KIND_REVISION, 60)) { /* a new revision, or none for a while */
        o->templates[i].kept = false;
        send(s, chance(s, 300) ? ASK_DELETE + i : ASK_TEMPLATE + i);
    }
    if (befalls(s, KIND_CORDON, 100))
        send(s, (chance(s, 500) ? ASK_CORDON : ASK_UNCORDON) + w);
}

bool operator_settled(const struct sim *s)
{
    bool uncordoned = true;
    for (uint32_t i = 0; i < s->n_hosts; i++)
        uncordoned = uncordoned && s->hosts[i].uncordoned;
    return !s->operator.on ||(s->operator.schedule_gone && uncordoned);
}

static void fires(struct sim *s, struct event *ev)
{
    if (s->coxd.up && s->coxd.listening && !s->coxd.leaving)
        ask_something(s);
    if (!s->healed || !operator_settled(s) || !operator_has_templates(s))
        event_at(s, ev, s->now_ns + between(s, 100 * MS, 2 * SECOND));
}

/* ---- coxd's side ---- */

static bool template_request(struct sim *s, uint32_t i, bool delete, struct cox_input *in)
{
    struct operator_doc *d = &s->operator.templates[i];
    struct cox_template_head head;
    if (!delete &&chance(s, 200)) { /* other text, the same meaning */
        char *longer = cox_calloc(1, strlen(d->text) + 2);
        snprintf(longer, strlen(d->text) + 2, "%s ", d->text);
        cox_free(d->text);
        d->text = longer;
    }
    cox_template_head(cox_slice_str(d->text), &head);
    in->kind = delete ? COX_IN_TEMPLATE_DELETE : COX_IN_TEMPLATE_APPLY;
    in->u.template.tenant = cox_slice_str("default");
    in->u.template.name = head.name;
    in->u.template.major = head.major;
    in->u.template.document = cox_slice_str(d->text);
    coxd_step(s, in);
    cox_buf_fini(&head.text);
    return true;
}

static void schedule_request(struct sim *s, struct cox_input *in)
{
    struct cox_slice text = cox_slice_str(s->operator.schedule_text);
    struct cox_task_source source = { .kind = COX_SOURCE_SCHEDULE, .document = text };
    struct cox_buf image = { 0 }, zone = { 0 };
    struct cox_violations v = { 0 };
    struct cox_schedule_head head;
    if (cox_task_compile(&source, &image, &v) != COX_OK)
        fail(s, "the schedule does not compile: %s: %s", v.items[0].path, v.items[0].message);
    if (cox_zone_compile(cox_slice(NULL, 0), &zone) != COX_OK)
        fail(s, "UTC is no zone");
    cox_schedule_head(text, &head);
    in->kind = COX_IN_SCHEDULE_APPLY;
    in->u.schedule.tenant = cox_slice_str("default");
    in->u.schedule.name = head.name;
    in->u.schedule.document = text;
    in->u.schedule.image = cox_buf_slice(&image);
    in->u.schedule.cron = head.cron;
    in->u.schedule.zone = cox_buf_slice(&zone);
    in->u.schedule.overlap = head.overlap;
    in->u.schedule.catch_up_ms = head.catch_up_ms;
    coxd_step(s, in);
    cox_buf_fini(&head.text);
    cox_buf_fini(&image);
    cox_buf_fini(&zone);
    cox_violations_fini(&v);
}

void operator_request(struct sim *s, uint64_t what)
{
    struct cox_input in = { .kind = COX_IN_POLICY };
    in.u.policy.request = REQUESTS + what; /* each of these inputs begins with it */
    if (what < ASK_DELETE) {
        template_request(s, (uint32_t)what, false, &in);
    } else if (what < ASK_SCHEDULE) {
        template_request(s, (uint32_t)what - ASK_DELETE, true, &in);
    } else if (what == ASK_SCHEDULE) {
        schedule_request(s, &in);
    } else if (what == ASK_UNSCHEDULE) {
        in.kind = COX_IN_SCHEDULE_DELETE;
        in.u.schedule.tenant = cox_slice_str("default");
        in.u.schedule.name = cox_slice_str("sched");
        coxd_step(s, &in);
    } else {
        bool cordon = what < ASK_UNCORDON;
        struct host *h = &s->hosts[what - (cordon ? ASK_CORDON : ASK_UNCORDON)];
        if (cordon && s->healed) { /* it was long on its way */
            h->uncordoned = false;
            event_soon(s, &s->operator.ev, s->now_ns + SECOND);
        }
        in.u.policy.worker_id = cox_slice_str(h->id);
        in.u.policy.what = cordon ? COX_POLICY_CORDON : COX_POLICY_UNCORDON;
        coxd_step(s, &in);
    }
}

bool operator_reply(struct sim *s, const struct cox_act_reply *r)
{
    struct operator* o = & s->operator;
    uint64_t what = r->request - REQUESTS;
    if (r->request < REQUESTS)
        return false;
    bool known = r->err == COX_ERR_NOT_FOUND && what >= ASK_DELETE;
    if (r->err != COX_OK && !known && !(what == ASK_SCHEDULE && r->err == COX_ERR_INVALID))
        fail(s, "what an operator keeps is refused: %s", cox_err_text(r->err));
    if (what < ASK_DELETE)
        o->templates[what].kept = true;
    else if (what < ASK_SCHEDULE) /* an answer to APPLY may have come while this was on its way */
        o->templates[what - ASK_DELETE].kept = false,
                            event_soon(s, &o->ev, s->now_ns + between(s, 0, SECOND));
    else if (what == ASK_SCHEDULE)
        o->schedule_known = o->schedule_known || r->err == COX_OK;
    else if (what == ASK_UNSCHEDULE)
        o->schedule_gone = true;
    else if (what >= ASK_UNCORDON && s->healed)
        s->hosts[what - ASK_UNCORDON].uncordoned = true;
    return true;
}

/* ---- life ---- */

static char *dump(json_t *o)
{
    char *text = json_dumps(o, JSON_COMPACT), *own = cox_strdup(text);
    free(text);
    json_decref(o);
    return own;
}

void operator_init(struct sim *s)
{
    struct operator* o = & s->operator;
    event_init(&o->ev, fires);
    o->on = s->cfg.scenes > 0;
    for (uint32_t i = 0; i < SCENE_TEMPLATES; i++)
        o->templates[i].text = dump(scene_template(i));
    o->schedule_text = dump(scene_schedule());
    snprintf(o->scheduled.plan.name, sizeof o->scheduled.plan.name, "sched");
    o->scheduled.plan.scene = COX_NEW(struct scene);
    o->scheduled.plan.scene->name = o->scheduled.plan.name;
    if (o->on)
        event_at(s, &o->ev, 0);
}

void operator_fini(struct sim *s)
{
    struct operator* o = & s->operator;
    for (uint32_t i = 0; i < SCENE_TEMPLATES; i++)
        cox_free(o->templates[i].text);
    cox_free(o->schedule_text);
    cox_free(o->scheduled.plan.scene);
}
