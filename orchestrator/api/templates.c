/* TemplateService: documents kept for `task` steps. */
#include "kept.h"

#include "coxswain/v1/template_service.pb-c.h"

#include <stdio.h>

#define NOUN "template"
#define TENANT(k) cox_slice_str((k)->op.tenant)

struct apply {
    struct cox_kept_call call;
    struct cox_template_head head;
};

static Coxswain__V1__Template *show(struct cox_arena *a, const struct cox_template_view *v, bool whole)
{
    Coxswain__V1__Template *m = cox_arena_alloc(a, sizeof(*m));

    coxswain__v1__template__init(m);
    m->name = cox_show_text(a, v->name);
    m->major = v->major;
    m->updated_at = cox_show_time(a, v->updated_wall_ms);
    if (whole)
        m->document = (ProtobufCBinaryData){ v->document.len, (uint8_t *)cox_show_text(a, v->document) };
    return m;
}

/* ---- apply ---- */

static void compiled(struct cox_kept_call *k)
{
    struct apply *p = COX_CONTAINER_OF(k, struct apply, call);

    cox_template_head(k->source.document, &p->head);
    k->name = p->head.name;
    k->major = p->head.major;
}

static void feed(struct cox_kept_call *k)
{
    struct cox_input in = { .kind = COX_IN_TEMPLATE_APPLY };

    in.u.template.request = (uintptr_t)&k->requested;
    in.u.template.tenant = TENANT(k);
    in.u.template.name = k->name;
    in.u.template.major = k->major;
    in.u.template.document = k->source.document;
    cox_kept_step(k, &in);
}

static void show_applied(struct cox_kept_call *k)
{
    Coxswain__V1__ApplyTemplateResponse *m = cox_arena_alloc(&k->arena, sizeof(*m));
    struct cox_template_view v;

    coxswain__v1__apply_template_response__init(m);
    if (cox_engine_find_template(cox_driver_engine(k->op.api->driver), TENANT(k), k->name, k->major, &v))
        m->template_ = show(&k->arena, &v, true); /* else it was deleted meanwhile */
    k->message = &m->base;
}

static void free_head(struct cox_kept_call *k)
{
    cox_buf_fini(&COX_CONTAINER_OF(k, struct apply, call)->head.text);
}

void cox_api_apply_template(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__ApplyTemplateRequest *m = (const Coxswain__V1__ApplyTemplateRequest *)message;

    if (cox_api_refuse(user, call))
        return;
    struct apply *p = COX_KEPT_NEW(struct apply, user, call);

    p->call.compiled = compiled;
    p->call.feed = feed;
    p->call.show = show_applied;
    p->call.free_own = free_head;
    cox_kept_apply(&p->call, m->document, COX_SOURCE_TEMPLATE);
}

/* ---- read ---- */

/* Without a major: the highest there is. */
static bool find(const struct cox_engine *e, const struct cox_kept_call *k, struct cox_slice name,
                 uint32_t major, struct cox_template_view *ret)
{
    struct cox_template_view v;
    bool found = false;

    if (major > 0)
        return cox_engine_find_template(e, TENANT(k), name, major, ret);
    while (cox_engine_next_template(e, TENANT(k), name, major, &v) && cox_slice_eq(v.name, name)) {
        major = v.major;
        *ret = v;
        found = true;
    }
    return found;
}

static bool parse_ref(struct cox_rpc_call *call, const char *ref, bool with_major, struct cox_slice *ret_name,
                      uint32_t *ret_major)
{
    if (cox_kept_ref(ref, ret_name, ret_major) && (!with_major || *ret_major > 0))
        return true;
    cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "BAD_REF", "ref: expected %s, found \"%.100s\"",
                  with_major ? "name@major" : "name or name@major", ref);
    return false;
}

void cox_api_get_template(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__GetTemplateRequest *m = (const Coxswain__V1__GetTemplateRequest *)message;
    struct cox_template_view v;
    struct cox_api *a = user;
    struct cox_slice name;
    uint32_t major;

    if (!parse_ref(call, m->ref, false, &name, &major))
        return;
    struct cox_kept_call *k = COX_KEPT_NEW(struct cox_kept_call, a, call);

    if (find(cox_driver_engine(a->driver), k, name, major, &v)) {
        Coxswain__V1__GetTemplateResponse *answer = cox_arena_alloc(&k->arena, sizeof(*answer));
        coxswain__v1__get_template_response__init(answer);
        answer->template_ = show(&k->arena, &v, true);
        k->message = &answer->base;
    } else {
        k->name = cox_slice_str(cox_show_text(&k->arena, cox_slice_str(m->ref)));
        cox_kept_missing(k);
    }
    cox_kept_answer(k);
}

void cox_api_list_templates(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__ListTemplatesRequest *m = (const Coxswain__V1__ListTemplatesRequest *)message;
    uint32_t page = cox_kept_page(m->page_size), major = 0;
    struct cox_slice name = { 0 };
    struct cox_template_view v;
    struct cox_api *a = user;

    if (*m->page_token && (!cox_kept_ref(m->page_token, &name, &major) || major == 0)) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "BAD_PAGE_TOKEN",
                      "page_token: expected one from an earlier answer, found \"%.100s\"", m->page_token);
        return;
    }
    struct cox_kept_call *k = COX_KEPT_NEW(struct cox_kept_call, a, call);
    Coxswain__V1__ListTemplatesResponse *answer = cox_arena_alloc(&k->arena, sizeof(*answer));

    coxswain__v1__list_templates_response__init(answer);
    answer->templates = cox_arena_alloc(&k->arena, page * sizeof(*answer->templates));
    while (cox_engine_next_template(cox_driver_engine(a->driver), TENANT(k), name, major, &v)) {
        if (answer->n_templates == page) {
            char *token = cox_arena_alloc(&k->arena, COX_NAME_LEN_MAX + 16);
            snprintf(token, COX_NAME_LEN_MAX + 16, "%.*s@%u", (int)name.len, (const char *)name.data, major);
            answer->next_page_token = token;
            break;
        }
        answer->templates[answer->n_templates++] = show(&k->arena, &v, false);
        name = v.name;
        major = v.major;
    }
    k->message = &answer->base;
    cox_kept_answer(k);
}

/* ---- delete ---- */

static void show_deleted(struct cox_kept_call *k)
{
    Coxswain__V1__DeleteTemplateResponse *m = cox_arena_alloc(&k->arena, sizeof(*m));

    coxswain__v1__delete_template_response__init(m);
    k->message = &m->base;
}

void cox_api_delete_template(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__DeleteTemplateRequest *m = (const Coxswain__V1__DeleteTemplateRequest *)message;
    struct cox_input in = { .kind = COX_IN_TEMPLATE_DELETE };
    struct cox_slice name;
    uint32_t major;

    if (!parse_ref(call, m->ref, true, &name, &major))
        return;
    struct cox_kept_call *k = COX_KEPT_NEW(struct cox_kept_call, user, call);

    k->name = cox_slice_str(cox_show_text(&k->arena, cox_slice_str(m->ref)));
    k->show = show_deleted;
    in.u.template.request = (uintptr_t)&k->requested;
    in.u.template.tenant = TENANT(k);
    in.u.template.name = name;
    in.u.template.major = major;
    cox_kept_step(k, &in);
}
