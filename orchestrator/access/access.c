#include "access.h"

#include "roles.h"
#include "task_token.h"
#include "token_file.h"

#include "cox/base/alloc.h"
#include "cox/base/list.h"
#include "cox/base/log.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define NS_PER_MS 1000000LL
#define TOKEN_LEN_MAX 512u
#define BEARER "Bearer "

/* A call under way, and what it was let in by. */
struct admission {
    struct cox_caller caller; /* first: services see this */
    struct cox_list node;
    struct cox_rpc_call *call;
    const struct access_rule *rule; /* NULL: of a path that is not served */
    enum { BY_TOKEN, BY_TASK_TOKEN, BY_CERTIFICATE } by;
    struct cox_hash sha256; /* BY_TOKEN */
    char text[];            /* name, tenant, roles */
};

struct cox_access {
    char *token_file, *key_file;
    bool certificates;
    pthread_mutex_t mutex; /* of tokens and key: the edge's thread looks, too */
    struct access_tokens tokens;
    struct task_token_key key;
    struct cox_list admissions;
    int64_t look_ns; /* when the next may have expired; INT64_MAX: none will */
    atomic_ullong n_refused[ACCESS_REFUSED_NR];
};

/* What is found out before the caller is written down. */
struct identity {
    const char *name;
    unsigned roles;
    const struct access_token *token; /* or else: */
    const char *tenant;               /* its only one; NULL: all */
    cox_task_id task;
    int64_t expires_wall_ms;
    struct cox_hash sha256;
    int by;
    char tenant_text[ACCESS_TENANT_LEN_MAX + 1];
};

static const struct cox_caller local_caller = {
    .name = "local", .tenant = ACCESS_DEFAULT_TENANT, .whole = true, .expires_wall_ms = INT64_MAX
};
/* Of calls that need no identity: what a service should take it for, if ever one of them asked. */
static struct admission nobody = { .caller = {
                                       .name = "nobody", .tenant = "", .expires_wall_ms = INT64_MAX } };

static bool is_open(const struct cox_access *a)
{
    return !a->token_file && !a->certificates;
}

/* ---- refusals ---- */

static bool count(struct cox_access *a, enum access_refusal why)
{
    atomic_fetch_add(&a->n_refused[why], !COX_PLANTED("refusals-uncounted"));
    return false;
}

uint64_t cox_access_n_refused(const struct cox_access *a, enum access_refusal why)
{
    return atomic_load(&a->n_refused[why]);
}

static bool refuse(struct cox_rpc_call *call, enum cox_rpc_status status, const char *reason,
                   const char *message)
{
    cox_rpc_fail(call, &(struct cox_rpc_error){ .status = status, .reason = reason, .message = message });
    return false;
}

/* Their names, each after a space. */
static void put_roles(struct cox_buf *out, unsigned roles)
{
    for (unsigned i = 0; i < ACCESS_ROLES_NR; i++)
        if (roles & 1u << i)
            cox_buf_printf(out, " %s", access_role_text(i));
}

static bool refuse_role(struct cox_rpc_call *call, unsigned roles)
{
    struct cox_buf text = { 0 };

    cox_buf_append_str(&text, "this needs a role that the token has not:");
    put_roles(&text, roles);
    bool let_in = refuse(call, COX_RPC_PERMISSION_DENIED, "WRONG_ROLE", cox_buf_cstr(&text));

    cox_buf_fini(&text);
    return let_in;
}

/* ---- who ---- */

static struct cox_hash sha256_of(struct cox_slice text)
{
    struct cox_hash h;

    COX_ASSERT(EVP_Digest(text.data, text.len, h.b, NULL, EVP_sha256(), NULL) == 1);
    return h;
}

static bool bearer(struct cox_slice authorization, struct cox_slice *ret_token)
{
    const size_t len = strlen(BEARER);

    if (authorization.len <= len || authorization.len > len + TOKEN_LEN_MAX ||
        strncasecmp((const char *)authorization.data, BEARER, len) != 0)
        return false;
    *ret_token = cox_slice(authorization.data + len, authorization.len - len);
    return true;
}

/* Under the mutex. What `ret` points to is the table's. */
static bool identify(const struct cox_access *a, struct cox_slice token, int64_t now_wall_ms,
                     struct identity *ret)
{
    struct task_token t;
    bool known;

    *ret = (struct identity){ .by = BY_TOKEN };
    if (task_token_verify(&a->key, token, &t)) {
        ret->by = BY_TASK_TOKEN;
        ret->name = "task token";
        ret->task = t.task;
        ret->expires_wall_ms = t.expires_wall_ms;
        memcpy(ret->tenant_text, t.tenant, sizeof(t.tenant));
        known = true;
    } else {
        ret->sha256 = sha256_of(token);
        ret->token = access_tokens_find(&a->tokens, &ret->sha256);
        known = ret->token != NULL;
    }
    if (ret->token) {
        ret->name = ret->token->name;
        ret->roles = ret->token->roles;
        ret->expires_wall_ms = ret->token->expires_wall_ms;
    }
    return known && (now_wall_ms < ret->expires_wall_ms || COX_PLANTED("token-never-expires"));
}

/* O=cox:ROLE gives a role, OU names the tenant. Without one: all, for those whose work is for all. */
static bool identify_certificate(const struct cox_tls_certificate *c, struct identity *ret)
{
    static const char prefix[] = "cox:";
    const unsigned for_all = ACCESS_ADMIN | ACCESS_OPERATOR | ACCESS_WORKER;

    *ret = (struct identity){ .by = BY_CERTIFICATE, .name = c->name, .expires_wall_ms = INT64_MAX };
    for (size_t i = 0; i < c->n_organizations; i++)
        if (strncmp(c->organizations[i], prefix, sizeof(prefix) - 1) == 0)
            ret->roles |= access_role_parse(cox_slice_str(c->organizations[i] + sizeof(prefix) - 1));
    const char *tenant = c->unit ? c->unit : ret->roles & for_all ? "" : ACCESS_DEFAULT_TENANT;

    if (c->unit && !access_tenant_ok(cox_slice_str(tenant)))
        return false;
    snprintf(ret->tenant_text, sizeof(ret->tenant_text), "%s", tenant);
    return ret->roles != 0;
}

/* Needs no mutex: only this thread changes the table. A token that was sent is who is meant, also when it is
 * no good; a certificate may be the host's. */
static bool find_out(struct cox_access *a, struct cox_rpc_call *call, struct identity *ret)
{
    struct cox_slice authorization = cox_rpc_call_metadata(call, "authorization"), token;
    const struct cox_tls_certificate *certificate = cox_rpc_call_certificate(call);

    if (cox_rpc_call_metadata_count(call, "authorization") > 1)
        return refuse(call, COX_RPC_UNAUTHENTICATED, "BAD_TOKEN", "more than one authorization was sent");
    if (!authorization.data && a->certificates && certificate)
        return identify_certificate(certificate, ret) ||
               refuse(call, COX_RPC_UNAUTHENTICATED, "BAD_CERTIFICATE",
                      "the certificate names no role: expected O=cox:ROLE, and OU=TENANT or none");
    if (!authorization.data)
        return refuse(call, COX_RPC_UNAUTHENTICATED, "NO_TOKEN",
                      "an identity is needed: authorization: Bearer TOKEN");
    if (!bearer(authorization, &token) || !identify(a, token, cox_clock_wall_ms(), ret))
        return refuse(call, COX_RPC_UNAUTHENTICATED, "BAD_TOKEN", "the token is unknown, expired or revoked");
    return true;
}

/* ---- what they may ---- */

static bool role_ok(const struct access_rule *rule, const struct identity *id)
{
    if (id->by == BY_TASK_TOKEN)
        return rule->flags & ACCESS_TASK_TOKEN;
    return (rule->flags & ACCESS_ANY_ROLE) || (rule->roles & id->roles) || COX_PLANTED("any-role");
}

static bool has_all(const struct identity *id)
{
    if (id->token)
        return id->token->n_tenants == 0;
    return id->by == BY_CERTIFICATE && id->tenant_text[0] == '\0';
}

static bool may_be(const struct identity *id, struct cox_slice tenant)
{
    if (COX_PLANTED("any-tenant") || has_all(id))
        return true;
    return id->token ? access_token_has_tenant(id->token, tenant) : cox_slice_is(tenant, id->tenant_text);
}

/* The tenant that the call names, or the identity's first. False: the call was refused. */
static bool choose_tenant(struct cox_rpc_call *call, const struct identity *id, struct cox_slice *ret)
{
    struct cox_slice named = cox_rpc_call_metadata(call, "cox-tenant");

    if (cox_rpc_call_metadata_count(call, "cox-tenant") > 1)
        return refuse(call, COX_RPC_INVALID_ARGUMENT, "BAD_TENANT", "more than one cox-tenant was sent");
    if (named.data) {
        *ret = named;
        if (!access_tenant_ok(named))
            return refuse(call, COX_RPC_INVALID_ARGUMENT, "BAD_TENANT",
                          "cox-tenant: expected 1 to 63 characters of a-z, 0-9, -, _ and .");
        return (!id || may_be(id, named)) ||
               refuse(call, COX_RPC_PERMISSION_DENIED, "WRONG_TENANT", "this identity is not of that tenant");
    }
    if (!id || has_all(id))
        *ret = cox_slice_str(ACCESS_DEFAULT_TENANT);
    else
        *ret = cox_slice_str(id->token ? id->token->tenants[0] : id->tenant_text);
    return true;
}

static bool check_rule(struct cox_rpc_call *call, const struct access_rule *rule, const struct identity *id)
{
    if (!role_ok(rule, id))
        return refuse_role(call, rule->roles);
    if ((rule->flags & ACCESS_WHOLE) && !has_all(id) && !COX_PLANTED("whole-for-one"))
        return refuse(call, COX_RPC_PERMISSION_DENIED, "NEEDS_ALL_TENANTS",
                      "this concerns all tenants; the identity is bound to some");
    return true;
}

/* ---- the hook ---- */

static void note_expiry(struct cox_access *a, int64_t expires_wall_ms)
{
    if (expires_wall_ms == INT64_MAX)
        return;
    int64_t left_ms = expires_wall_ms - cox_clock_wall_ms();
    int64_t at_ns = cox_clock_mono_ns() + (left_ms < 0                ? 0
                                           : left_ms < ACCESS_LOOK_MS ? left_ms
                                                                      : ACCESS_LOOK_MS) *
                                              NS_PER_MS;

    if (at_ns < a->look_ns)
        a->look_ns = at_ns;
}

static void take(struct cox_access *a, struct cox_rpc_call *call, const struct access_rule *rule,
                 const struct identity *id, struct cox_slice tenant)
{
    size_t name_len = strlen(id->name) + 1;
    struct cox_buf roles = { 0 };

    put_roles(&roles, id->roles);
    struct admission *ad = cox_alloc(sizeof(*ad) + name_len + tenant.len + 1 + roles.len + 1);
    char *roles_text = ad->text + name_len + tenant.len + 1;

    *ad = (struct admission){ .call = call, .rule = rule, .sha256 = id->sha256 };
    ad->by = id->by;
    memcpy(ad->text, id->name, name_len);
    memcpy(ad->text + name_len, tenant.data, tenant.len);
    ad->text[name_len + tenant.len] = '\0';
    memcpy(roles_text, cox_buf_cstr(&roles), roles.len + 1);
    cox_buf_fini(&roles);
    ad->caller = (struct cox_caller){ .name = ad->text,
                                      .roles = roles_text,
                                      .tenant = ad->text + name_len,
                                      .whole = has_all(id),
                                      .as_worker = rule && id->by != BY_TASK_TOKEN &&
                                                   (rule->roles & id->roles) == ACCESS_WORKER,
                                      .task = id->task,
                                      .expires_wall_ms = id->expires_wall_ms };
    cox_list_push_back(&a->admissions, &ad->node);
    cox_rpc_call_set_caller(call, ad);
    note_expiry(a, id->expires_wall_ms);
}

static const struct cox_rpc_error stranger = { .status = COX_RPC_UNAUTHENTICATED,
                                               .reason = "NO_TOKEN",
                                               .message =
                                                   "an identity is needed: Authorization: Bearer TOKEN, with "
                                                   "a token that is known and has not expired" };
static const struct cox_rpc_error not_allowed = {
    .status = COX_RPC_PERMISSION_DENIED,
    .reason = "WRONG_ROLE",
    .message = "this needs the role reader, operator or admin, and all "
               "tenants"
};

static const struct cox_rpc_error no_role = { .status = COX_RPC_PERMISSION_DENIED,
                                              .reason = "WRONG_ROLE",
                                              .message = "this needs a role that the token has not" };
static const struct cox_rpc_error bad_tenant = {
    .status = COX_RPC_INVALID_ARGUMENT,
    .reason = "BAD_TENANT",
    .message = "cox-tenant: expected 1 to 63 characters of a-z, 0-9, -, _ and ."
};
static const struct cox_rpc_error wrong_tenant = { .status = COX_RPC_PERMISSION_DENIED,
                                                   .reason = "WRONG_TENANT",
                                                   .message = "this identity is not of that tenant" };

/* Under the mutex: who it is, and whether they may. */
static const struct cox_rpc_error *judge(const struct cox_access *a, struct cox_slice authorization,
                                         const struct cox_tls_certificate *certificate, const char *service,
                                         const char *method, struct identity *id)
{
    const struct access_rule *rule = service ? access_rule_find(service, method) : NULL;
    bool by_certificate = !authorization.data && certificate && a->certificates;
    struct cox_slice token;

    if (!by_certificate && !bearer(authorization, &token))
        return &stranger;
    if (by_certificate ? !identify_certificate(certificate, id)
                       : !identify(a, token, cox_clock_wall_ms(), id))
        return &stranger;
    if (service && (!rule || !role_ok(rule, id)))
        return &no_role;
    return rule && (rule->flags & ACCESS_WHOLE) && !has_all(id) ? &not_allowed : NULL;
}

static const struct cox_rpc_error *counted(struct cox_access *a, const struct cox_rpc_error *why)
{
    if (why)
        (void)count(a, why == &stranger                         ? ACCESS_REFUSED_IDENTITY
                       : why == &no_role || why == &not_allowed ? ACCESS_REFUSED_ROLE
                                                                : ACCESS_REFUSED_TENANT);
    return why;
}

const struct cox_rpc_error *cox_access_refuses(struct cox_access *a, struct cox_slice authorization,
                                               const struct cox_tls_certificate *certificate,
                                               const char *service, const char *method)
{
    struct identity id;

    if (is_open(a))
        return NULL;
    pthread_mutex_lock(&a->mutex);
    const struct cox_rpc_error *why = judge(a, authorization, certificate, service, method, &id);

    pthread_mutex_unlock(&a->mutex);
    return counted(a, why == &no_role ? &not_allowed : why);
}

const struct cox_rpc_error *cox_access_admits(struct cox_access *a, struct cox_slice authorization,
                                              const struct cox_tls_certificate *certificate,
                                              struct cox_slice tenant, const char *service,
                                              const char *method, char ret_tenant[64])
{
    const struct cox_rpc_error *why = NULL;
    struct identity id;
    bool open = is_open(a);

    if (tenant.data && !access_tenant_ok(tenant))
        return counted(a, &bad_tenant);
    if (!open) {
        pthread_mutex_lock(&a->mutex);
        why = judge(a, authorization, certificate, service, method, &id);
        if (!why && tenant.data && !may_be(&id, tenant))
            why = &wrong_tenant;
        if (!why && !tenant.data && !has_all(&id))
            tenant = cox_slice_str(id.token ? id.token->tenants[0] : id.tenant_text);
    }
    if (!why && tenant.data)
        snprintf(ret_tenant, 64, "%.*s", (int)tenant.len, (const char *)tenant.data);
    else
        snprintf(ret_tenant, 64, "%s", ACCESS_DEFAULT_TENANT);
    if (!open)
        pthread_mutex_unlock(&a->mutex);
    return counted(a, why);
}

/* Nothing to refuse but a tenant that is none. The usual caller costs nothing. */
static bool admit_local(struct cox_access *a, struct cox_rpc_call *call)
{
    static const struct identity id = { .name = "local", .by = BY_CERTIFICATE, .expires_wall_ms = INT64_MAX };
    struct cox_slice tenant;

    if (!choose_tenant(call, NULL, &tenant))
        return count(a, ACCESS_REFUSED_TENANT);
    if (!cox_slice_is(tenant, ACCESS_DEFAULT_TENANT))
        take(a, call, NULL, &id, tenant);
    return true;
}

bool cox_access_admit(struct cox_rpc_call *call, const ProtobufCServiceDescriptor *service,
                      const char *method, void *access)
{
    struct cox_access *a = access;
    const struct access_rule *rule = service ? access_rule_find(service->name, method) : NULL;
    struct cox_slice tenant;
    struct identity id;

    if (is_open(a) || cox_rpc_call_inside(call))
        return admit_local(a, call);
    if (rule && (rule->flags & ACCESS_ANYBODY)) {
        cox_rpc_call_set_caller(call, &nobody);
        return true;
    }
    if (!find_out(a, call, &id))
        return count(a, ACCESS_REFUSED_IDENTITY);
    if (service && !rule)
        return refuse(call, COX_RPC_PERMISSION_DENIED, "NO_RULE", "nobody may call this") ||
               count(a, ACCESS_REFUSED_ROLE);
    if (rule && !check_rule(call, rule, &id))
        return count(a, role_ok(rule, &id) ? ACCESS_REFUSED_TENANT : ACCESS_REFUSED_ROLE);
    if (!choose_tenant(call, &id, &tenant))
        return count(a, ACCESS_REFUSED_TENANT);
    take(a, call, rule, &id, tenant);
    return true;
}

void cox_access_released(void *caller, void *access)
{
    struct admission *ad = caller;

    (void)access;
    if (ad == &nobody)
        return;
    cox_list_remove(&ad->node);
    cox_free(ad);
}

const struct cox_caller *cox_access_caller(const struct cox_rpc_call *call)
{
    const struct admission *ad = cox_rpc_call_caller(call);

    return ad ? &ad->caller : &local_caller;
}

/* ---- calls that may not go on ---- */

static void end(struct admission *ad)
{
    cox_rpc_cancel(ad->call,
                   &(struct cox_rpc_error){ .status = COX_RPC_UNAUTHENTICATED,
                                            .reason = "BAD_TOKEN",
                                            .message = "the token has expired or was revoked meanwhile" });
}

/* By the table as it is now. */
static bool still_ok(const struct cox_access *a, struct admission *ad, int64_t now_wall_ms)
{
    struct identity id = { .by = ad->by };

    if (ad->by == BY_TOKEN && !COX_PLANTED("revoked-goes-on")) {
        id.token = access_tokens_find(&a->tokens, &ad->sha256);
        if (!id.token)
            return false;
        id.roles = id.token->roles;
        ad->caller.expires_wall_ms = id.token->expires_wall_ms;
        if ((ad->rule && !role_ok(ad->rule, &id)) || !may_be(&id, cox_slice_str(ad->caller.tenant)))
            return false;
        if (ad->caller.whole && !has_all(&id) && !COX_PLANTED("narrowed-goes-on"))
            return false; /* services have looked at it once, and would show on what belongs to others */
    }
    return now_wall_ms < ad->caller.expires_wall_ms;
}

static void look(struct cox_access *a)
{
    int64_t now_wall_ms = cox_clock_wall_ms();

    a->look_ns = INT64_MAX;
    COX_LIST_FOR_EACH (it, &a->admissions) {
        struct admission *ad = COX_CONTAINER_OF(it, struct admission, node);

        if (still_ok(a, ad, now_wall_ms))
            note_expiry(a, ad->caller.expires_wall_ms);
        else
            end(ad);
    }
}

void cox_access_turn(struct cox_access *a)
{
    if (a->look_ns != INT64_MAX && cox_clock_mono_ns() >= a->look_ns)
        look(a);
}

int64_t cox_access_wake_ns(const struct cox_access *a)
{
    return a->look_ns;
}

/* ---- life ---- */

enum cox_err cox_access_reload(struct cox_access *a, struct cox_buf *error)
{
    struct access_tokens tokens = { 0 };
    struct task_token_key key;
    enum cox_err err = COX_OK;

    if (a->token_file)
        err = access_tokens_read(a->token_file, &tokens, error);
    if (!err && a->key_file)
        err = task_token_key_load(a->key_file, &key, error);
    else
        key = a->key;
    if (err) {
        access_tokens_fini(&tokens);
        return err;
    }
    bool same_key = memcmp(&key, &a->key, sizeof(key)) == 0;
    struct access_tokens old = a->tokens;

    pthread_mutex_lock(&a->mutex);
    a->tokens = tokens;
    a->key = key;
    pthread_mutex_unlock(&a->mutex);
    access_tokens_fini(&old);
    COX_LIST_FOR_EACH (it, &a->admissions) {
        struct admission *ad = COX_CONTAINER_OF(it, struct admission, node);

        if (!same_key && ad->by == BY_TASK_TOKEN)
            ad->caller.expires_wall_ms = 0;
    }
    look(a);
    return COX_OK;
}

enum cox_err cox_access_keep_key(struct cox_access *a, const char *path, struct cox_buf *error)
{
    struct task_token_key key;
    enum cox_err err = is_open(a) ? COX_OK : task_token_key_load(path, &key, error);

    if (err || is_open(a))
        return err;
    pthread_mutex_lock(&a->mutex);
    a->key = key;
    pthread_mutex_unlock(&a->mutex);
    a->key_file = cox_strdup(path);
    return COX_OK;
}

enum cox_err cox_access_create(const struct cox_access_config *config, struct cox_access **ret,
                               struct cox_buf *error)
{
    struct cox_access *a = COX_NEW(struct cox_access);

    a->token_file = config->token_file ? cox_strdup(config->token_file) : NULL;
    a->certificates = config->certificates;
    a->look_ns = INT64_MAX;
    cox_list_init(&a->admissions);
    pthread_mutex_init(&a->mutex, NULL);
    enum cox_err err = task_token_key_load(NULL, &a->key, error);

    if (!err)
        err = cox_access_reload(a, error);
    if (err)
        cox_access_destroy(a);
    else
        *ret = a;
    return err;
}

void cox_access_destroy(struct cox_access *a)
{
    if (!a)
        return;
    access_tokens_fini(&a->tokens);
    pthread_mutex_destroy(&a->mutex);
    cox_free(a->token_file);
    cox_free(a->key_file);
    cox_free(a);
}

int64_t cox_access_task_token(struct cox_access *a, const struct cox_caller *caller, cox_task_id task,
                              int64_t life_ms, struct cox_buf *out)
{
    struct task_token t = { .task = task, .expires_wall_ms = cox_clock_wall_ms() + life_ms };

    if (caller->expires_wall_ms < t.expires_wall_ms && !COX_PLANTED("task-token-outlives"))
        t.expires_wall_ms = caller->expires_wall_ms;
    snprintf(t.tenant, sizeof(t.tenant), "%s", caller->tenant);
    task_token_sign(&a->key, &t, out);
    return t.expires_wall_ms;
}
