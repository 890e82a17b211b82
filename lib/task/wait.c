/* Kinds that no slot runs: `wait`, `approval` and `task`. */
#include "compile.h"

#include "cox/base/units.h"

#include <string.h>

enum { WAIT_FOR, WAIT_UNTIL, WAIT_SIGNAL, WAIT_NR };
static const struct field wait_fields[WAIT_NR] = {
    { "for", WANT_ANY, FIELD_OPTIONAL, "" },
    { "until", WANT_STRING, FIELD_OPTIONAL, "a time such as \"2030-01-31T08:00:00Z\"" },
    { "signal", WANT_STRING, FIELD_OPTIONAL, "the name of a signal" },
};

enum { APPROVAL_PROMPT, APPROVAL_APPROVERS, APPROVAL_EXPIRES, APPROVAL_ON_EXPIRE, APPROVAL_NR };
static const struct field approval_fields[APPROVAL_NR] = {
    { "prompt", WANT_STRING, FIELD_REQUIRED, "a string, what is asked" },
    { "approvers", WANT_LIST, FIELD_OPTIONAL, "a list such as [\"role:approver\"]" },
    { "expires", WANT_ANY, FIELD_OPTIONAL, "" },
    { "on_expire", WANT_STRING, FIELD_OPTIONAL, "\"fail\", \"approve\" or \"reject\"" },
};

enum { TASK_REF, TASK_REF_INPUTS, TASK_REF_NR };
static const struct field task_fields[TASK_REF_NR] = {
    { "ref", WANT_STRING, FIELD_REQUIRED, "a template and its version such as \"build@1\"" },
    { "inputs", WANT_OBJECT, FIELD_OPTIONAL, "an object of inputs by name" },
};

/* A template that always comes to a string. */
static uint32_t string_template(struct compiler *c, const struct scope *scope, const struct place *at,
                                const json_t *value)
{
    draft_begin(c);
    draft_value(c, scope, at, value, EMIT_ARG);
    return draft_end(c, at);
}

static void wait_until(struct compiler *c, const struct place *at, const struct scope *scope,
                       const json_t *until, struct cox_image_call *call)
{
    struct place here = place_key(at, "until");
    int64_t ms;

    if (!strstr(json_string_value(until), "${{") && cox_parse_time(json_slice(until), &ms) != COX_OK)
        report_found(&c->report, &here, until, wait_fields[WAIT_UNTIL].expected);
    call->wait = COX_WAIT_UNTIL;
    call->spec_template = string_template(c, scope, &here, until);
}

static void compile_wait(struct compiler *c, const struct place *at, const struct scope *scope, json_t *wait,
                         struct cox_image_call *call)
{
    struct place for_at = place_key(at, "for"), signal = place_key(at, "signal");
    json_t *f[WAIT_NR];

    if (!fields_check(&c->report, at, wait, "an object such as {\"for\": \"10m\"}", wait_fields, WAIT_NR, f))
        return;
    if (json_object_size(wait) != 1) {
        report_at(&c->report, at, "expected exactly one of `for`, `until` and `signal`");
        return;
    }
    if (f[WAIT_FOR]) {
        call->wait = COX_WAIT_FOR;
        field_duration(&c->report, &for_at, f[WAIT_FOR], &call->wait_ms);
    } else if (f[WAIT_UNTIL]) {
        wait_until(c, at, scope, f[WAIT_UNTIL], call);
    } else if (f[WAIT_SIGNAL]) {
        call->wait = COX_WAIT_SIGNAL;
        call->ref = json_slice(f[WAIT_SIGNAL]);
        if (!name_ok(call->ref, true))
            report_found(&c->report, &signal, f[WAIT_SIGNAL],
                         "a name of a-z, 0-9, _ and -, at most 63 long, a letter or _ first");
    }
}

/* "role:NAME" or "user:NAME". */
static bool approver_ok(struct cox_slice s)
{
    return s.len > 5 && s.len <= COX_LABEL_LEN_MAX &&
           (memcmp(s.data, "role:", 5) == 0 || memcmp(s.data, "user:", 5) == 0);
}

static uint32_t compile_approvers(struct compiler *c, const struct place *at, json_t *approvers)
{
    struct cox_buf *json = &c->scratch;

    if (json_array_size(approvers) == 0)
        report_at(&c->report, at,
                  "found nobody who may approve; expected a list such as [\"role:approver\"]");
    for (size_t i = 0; i < json_array_size(approvers); i++) {
        struct place here = place_index(at, i);
        json_t *who = json_array_get(approvers, i);

        if (!json_is_string(who) || !approver_ok(json_slice(who)))
            report_found(&c->report, &here, who, "\"role:NAME\" or \"user:NAME\"");
    }
    cox_buf_clear(json);
    json_put(json, approvers);
    return image_put_const(&c->image, cox_buf_slice(json));
}

static void compile_on_expire(struct compiler *c, const struct place *at, json_t *const *f,
                              struct cox_image_call *call)
{
    static const char *const texts[] = { "fail", "approve", "reject" };
    struct place here = place_key(at, "on_expire");

    if (!f[APPROVAL_EXPIRES]) {
        report_at(&c->report, &here, "`on_expire` without `expires`: it never would; expected both");
        return;
    }
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (strcmp(json_string_value(f[APPROVAL_ON_EXPIRE]), texts[i]) == 0) {
            call->on_expire = (enum cox_on_expire)i;
            return;
        }
    }
    report_found(&c->report, &here, f[APPROVAL_ON_EXPIRE], approval_fields[APPROVAL_ON_EXPIRE].expected);
}

static void compile_approval(struct compiler *c, const struct place *at, const struct scope *scope,
                             json_t *approval, struct cox_image_call *call)
{
    struct place prompt = place_key(at, "prompt"), approvers = place_key(at, "approvers");
    struct place expires = place_key(at, "expires");
    json_t *f[APPROVAL_NR];

    if (!fields_check(&c->report, at, approval, "an object such as {\"prompt\": \"Apply?\"}", approval_fields,
                      APPROVAL_NR, f))
        return;
    if (f[APPROVAL_PROMPT])
        call->spec_template = string_template(c, scope, &prompt, f[APPROVAL_PROMPT]);
    if (f[APPROVAL_APPROVERS])
        call->approvers = compile_approvers(c, &approvers, f[APPROVAL_APPROVERS]);
    if (f[APPROVAL_EXPIRES])
        field_duration(&c->report, &expires, f[APPROVAL_EXPIRES], &call->wait_ms);
    if (f[APPROVAL_ON_EXPIRE])
        compile_on_expire(c, at, f, call);
}

static void compile_subtask(struct compiler *c, const struct place *at, const struct scope *scope,
                            json_t *task, struct cox_image_call *call)
{
    struct place ref = place_key(at, "ref"), inputs = place_key(at, "inputs");
    json_t *f[TASK_REF_NR];

    if (!fields_check(&c->report, at, task, "an object such as {\"ref\": \"build@1\"}", task_fields,
                      TASK_REF_NR, f))
        return;
    if (f[TASK_REF]) {
        call->ref = json_slice(f[TASK_REF]);
        if (!versioned_ok(call->ref, 1))
            report_found(&c->report, &ref, f[TASK_REF], task_fields[TASK_REF].expected);
    }
    call->spec_template = f[TASK_REF_INPUTS] ? compile_template(c, scope, &inputs, f[TASK_REF_INPUTS])
                                             : image_put_const(&c->image, cox_slice_str("{}"));
}

void compile_waiting(struct compiler *c, const struct place *at, const struct scope *scope, json_t *const *f,
                     struct cox_image_call *call)
{
    struct place here = place_key(at, cox_step_kind_text(call->kind));

    if (call->kind == COX_KIND_WAIT)
        compile_wait(c, &here, scope, f[CALL_WAIT], call);
    else if (call->kind == COX_KIND_APPROVAL)
        compile_approval(c, &here, scope, f[CALL_APPROVAL], call);
    else
        compile_subtask(c, &here, scope, f[CALL_TASK], call);
}
