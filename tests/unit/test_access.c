/* Identities: the token file, the table of roles, admission, tokens of tasks. Every method of every service
 * is called by everybody who could call it. */
#include "rpc_fixture.h"

#include "access/access.h"
#include "access/roles.h"
#include "access/task_token.h"
#include "access/token_file.h"
#include "api/api.h"

#include "coxswain/v1/task_service.pb-c.h"

#include <grpc/health/v1/health.pb-c.h>
#include <grpc/reflection/v1/reflection.pb-c.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define GET "/coxswain.v1.TaskService/GetTask"
#define WATCH "/coxswain.v1.TaskService/WatchTask"
#define SERVICES_MAX 16
#define METHODS_MAX 64

static struct cox_hash hash_of(const char *text)
{
    struct cox_hash h;

    assert_int_equal(EVP_Digest(text, strlen(text), h.b, NULL, EVP_sha256(), NULL), 1);
    return h;
}

static void put_row(struct cox_buf *out, const char *token, const char *roles, const char *tenants,
                    const char *more)
{
    struct cox_hash h = hash_of(token);

    cox_buf_append_str(out, "- {name: who, token_sha256: \"");
    for (size_t i = 0; i < sizeof(h.b); i++)
        cox_buf_printf(out, "%02x", h.b[i]);
    cox_buf_printf(out, "\", roles: [%s], tenants: %s%s}\n", roles, tenants, more);
}

static void write_file(const char *path, struct cox_buf *text)
{
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    assert_int_equal(fwrite(text->data, 1, text->len, f), text->len);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, 0600), 0);
    cox_buf_clear(text);
}

static void test_file_is_read(void **state)
{
    struct cox_buf text = { 0 }, error = { 0 };
    struct access_tokens t;
    struct cox_hash a = hash_of("a"), b = hash_of("b"), c = hash_of("c");

    (void)state;
    put_row(&text, "a", "submitter, reader", "[alpha, beta]", ", expires: 2030-01-01T00:00:00Z");
    put_row(&text, "b", "admin", "\"*\"", "");
    assert_int_equal(access_tokens_parse(cox_buf_slice(&text), &t, &error), COX_OK);
    assert_int_equal(t.n, 2);
    const struct access_token *row = access_tokens_find(&t, &a);
    assert_non_null(row);
    assert_string_equal(row->name, "who");
    assert_int_equal(row->roles, ACCESS_SUBMITTER | ACCESS_READER);
    assert_int_equal(row->expires_wall_ms, 1893456000000);
    assert_true(access_token_has_tenant(row, cox_slice_str("beta")));
    assert_false(access_token_has_tenant(row, cox_slice_str("bet")));
    assert_false(access_token_has_tenant(row, cox_slice_str("gamma")));
    row = access_tokens_find(&t, &b);
    assert_true(access_token_has_tenant(row, cox_slice_str("gamma")));
    assert_int_equal(row->expires_wall_ms, INT64_MAX);
    assert_null(access_tokens_find(&t, &c));
    access_tokens_fini(&t);
    cox_buf_fini(&text);
    cox_buf_fini(&error);
}

#define HASH64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define GOOD "- {name: x, token_sha256: \"" HASH64 "\", roles: [reader], tenants: [a]}\n"

static void test_bad_files_name_the_line(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        { GOOD "- {name: x, token_sha256: \"abc\", roles: [reader], tenants: [a]}",
          "line 2: token_sha256: expected 64" },
        { GOOD "- {name: x, token_sha256: \"" HASH64 "\", roles: [reader], tenants: [a]}",
          "line 2: token_sha256: an earlier" },
        { "- name: x\n  token_sha256: \"" HASH64 "\"\n  roles: [root]\n  tenants: [a]",
          "line 3: roles: expected some of" },
        { "- name: x\n  token_sha256: \"" HASH64 "\"\n  roles: []\n  tenants: [a]",
          "line 3: roles: expected at least" },
        { "- name: x\n  token_sha256: \"" HASH64 "\"\n  roles: [reader]\n  tenants: []",
          "line 4: tenants: expected at least" },
        { "- name: x\n  token_sha256: \"" HASH64 "\"\n  roles: [reader]\n  tenants: [A]",
          "line 4: tenants: expected names" },
        { "- name: x\n  token_sha256: \"" HASH64 "\"\n  roles: [reader]\n  tenants: [\"*\"]",
          "line 4: tenants: expected names" },
        { "- name: x\n  token_sha256: \"" HASH64 "\"\n  roles: [worker]\n  tenants: [a]",
          "line 4: tenants: a worker gets" },
        { "- name: x\n  token_sha256: \"" HASH64 "\"\n  roles: [reader]\n  tenants: a",
          "line 4: tenants: expected a list" },
        { "- name: x\n  token_sha256: \"" HASH64 "\"\n  roles: [reader]", "line 1: row: no tenants" },
        { "- name: x\n  token: secret\n  roles: [reader]", "line 1: row: a key that is none of" },
        { "- name: \"\"\n", "line 1: name: expected 1 to 255" },
        { "- name: x\n  expires: tomorrow\n", "line 2: expires: expected a time" },
        { "name: x\n", "line 1: expected a list" },
        { "- [\n", "line " },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cox_buf error = { 0 };
        struct access_tokens t;

        assert_int_equal(access_tokens_parse(cox_slice_str(cases[i].text), &t, &error), COX_ERR_INVALID);
        if (!strstr(cox_buf_cstr(&error), cases[i].says))
            fail_msg("%s: expected %s, found %s", cases[i].text, cases[i].says, cox_buf_cstr(&error));
        cox_buf_fini(&error);
    }
}

/* ---- the table ---- */

static const ProtobufCServiceDescriptor *services[SERVICES_MAX];
static size_t n_services;

/* Whatever coxd serves. */
static void find_services(void)
{
    struct cox_api *api = cox_api_create();
    struct cox_fleet *fleet = cox_fleet_create();
    const struct cox_rpc_service *list = cox_api_services(api, &n_services);

    for (size_t i = 0; i < n_services; i++)
        services[i] = list[i].descriptor;
    services[n_services++] = cox_fleet_service(fleet)->descriptor;
    cox_api_destroy(api);
    cox_fleet_destroy(fleet);
}

static void test_every_method_has_a_rule(void **state)
{
    const ProtobufCServiceDescriptor *all[SERVICES_MAX + 3];
    size_t n = n_services, n_methods = 0;

    (void)state;
    memcpy(all, services, n * sizeof(all[0]));
    all[n++] = &grpc__health__v1__health__descriptor;
    all[n++] = &grpc__reflection__v1__server_reflection__descriptor;
    for (size_t i = 0; i < n; i++)
        for (unsigned m = 0; m < all[i]->n_methods; m++, n_methods++)
            if (!access_rule_find(all[i]->name, all[i]->methods[m].name))
                fail_msg("%s/%s: nobody said who may call it", all[i]->name, all[i]->methods[m].name);
    assert_non_null(access_rule_find("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo"));
    assert_non_null(access_rule_find("coxswain.v1.ModelService", "Complete")); /* HTTP only */
    assert_int_equal(n_methods + 3, n_access_rules);
    assert_null(access_rule_find("coxswain.v1.TaskService", "Backup"));
}

/* The page that people read is generated from it. COX_UPDATE=1 writes it anew. */
static void put_page(struct cox_buf *out)
{
    cox_buf_append_str(out, "\n| method |");
    for (unsigned i = 0; i < ACCESS_ROLES_NR; i++)
        cox_buf_printf(out, " %s |", access_role_text(i));
    cox_buf_append_str(out, " |\n|---|:-:|:-:|:-:|:-:|:-:|:-:|---|\n");
    for (size_t r = 0; r < n_access_rules; r++) {
        const struct access_rule *rule = &access_rules[r];
        const char *dot = strrchr(rule->service, '.');
        bool any = rule->flags & (ACCESS_ANYBODY | ACCESS_ANY_ROLE);

        cox_buf_printf(out, "| %s/%s |", strncmp(rule->service, "grpc.", 5) == 0 ? rule->service : dot + 1,
                       rule->method);
        for (unsigned i = 0; i < ACCESS_ROLES_NR; i++)
            cox_buf_append_str(out, any || (rule->roles & 1u << i) ? " x |" : "  |");
        cox_buf_append_str(out, rule->flags & ACCESS_ANYBODY      ? " strangers too |\n"
                                : rule->flags & ACCESS_WHOLE      ? " for all tenants only |\n"
                                : rule->flags & ACCESS_TASK_TOKEN ? " a token of the task, too |\n"
                                                                  : " |\n");
    }
    cox_buf_append_str(out, "\n");
}

static void test_the_page_says_so(void **state)
{
    static const char begin[] = "<!-- roles -->\n", finish[] = "<!-- end -->";
    struct cox_buf text = { 0 }, page = { 0 };
    FILE *f = fopen(SECURITY_PAGE, "re");
    size_t n = 1;

    (void)state;
    assert_non_null(f);
    while (n > 0) {
        cox_buf_reserve(&text, 65536);
        n = fread(text.data + text.len, 1, 65536, f);
        text.len += n;
    }
    assert_int_equal(fclose(f), 0);
    const char *start = strstr(cox_buf_cstr(&text), begin), *end = start ? strstr(start, finish) : NULL;

    assert_non_null(end);
    cox_buf_append(&page, text.data, (size_t)(start - (const char *)text.data) + sizeof(begin) - 1);
    put_page(&page);
    cox_buf_append_str(&page, end);
    if (!cox_slice_eq(cox_buf_slice(&page), cox_buf_slice(&text))) {
        if (!getenv("COX_UPDATE"))
            fail_msg("%s: the table of roles is not what the code says; write it with COX_UPDATE=1",
                     SECURITY_PAGE);
        write_file(SECURITY_PAGE, &page);
        assert_int_equal(chmod(SECURITY_PAGE, 0644), 0);
    }
    cox_buf_fini(&text);
    cox_buf_fini(&page);
}

/* ---- a server whose every method says who called ---- */

struct world {
    struct fixture f;
    struct cox_access *access;
    char dir[64], file[96];
    struct cox_rpc_method methods[METHODS_MAX];
    struct cox_rpc_service served[SERVICES_MAX];
    size_t n_closed;
};
static struct world w;
static char seen_tenant[80];
static bool go_on; /* WatchTask */

static void on_message(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    (void)user;
    snprintf(seen_tenant, sizeof(seen_tenant), "%s", cox_access_caller(call)->tenant);
    if (go_on && message->descriptor == &coxswain__v1__watch_task_request__descriptor)
        return;
    cox_rpc_finish(call);
}

/* What does not speak first would wait for ever. */
static void on_half_close(struct cox_rpc_call *call, void *user)
{
    (void)user;
    cox_rpc_finish(call);
}

static void on_service_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    (void)call, (void)status, (void)user;
    w.n_closed++;
}

static void start(const char *token_file, bool certificates)
{
    struct cox_buf error = { 0 };
    size_t n = 0;

    for (size_t s = 0; s < n_services; s++) {
        w.served[s] = (struct cox_rpc_service){ services[s], &w.methods[n], services[s]->n_methods, NULL };
        for (unsigned m = 0; m < services[s]->n_methods; m++, n++) {
            w.methods[n] = (struct cox_rpc_method){
                services[s]->methods[m].name,
                { .on_message = on_message, .on_half_close = on_half_close, .on_closed = on_service_closed }
            };
        }
    }
    assert_in_range(n, 1, METHODS_MAX);
    assert_int_equal(cox_access_create(&(struct cox_access_config){ .token_file = token_file,
                                                                    .certificates = certificates },
                                       &w.access, &error),
                     COX_OK);
    cox_buf_fini(&error);
    fixture_init(&w.f, (struct cox_rpc_server_config){ .services = w.served,
                                                       .n_services = n_services,
                                                       .admit = cox_access_admit,
                                                       .released = cox_access_released,
                                                       .admit_user = w.access });
}

static void stop(void)
{
    fixture_fini(&w.f);
    cox_access_destroy(w.access);
}

static int set_up(void **state)
{
    (void)state;
    w = (struct world){ 0 };
    go_on = false;
    snprintf(w.dir, sizeof(w.dir), "/tmp/test-access-XXXXXX");
    assert_non_null(mkdtemp(w.dir));
    snprintf(w.file, sizeof(w.file), "%s/tokens.yaml", w.dir);
    return 0;
}

static int tear_down(void **state)
{
    char key[128];

    (void)state;
    snprintf(key, sizeof(key), "%s/key", w.dir);
    unlink(key);
    unlink(w.file);
    return rmdir(w.dir);
}

struct asked {
    bool over;
    enum cox_rpc_status status;
    char reason[32];
};

static void on_local_message(void *user, struct cox_slice packed)
{
    (void)user, (void)packed;
}

static void on_local_closed(void *user, const struct cox_rpc_error *status)
{
    struct asked *a = user;

    a->over = true;
    a->status = status->status;
    snprintf(a->reason, sizeof(a->reason), "%s", status->reason ? status->reason : "");
}

static const struct cox_rpc_local_callbacks callbacks = { on_local_message, NULL, on_local_closed };

static struct cox_rpc_call *begin(struct asked *a, const char *path, const char *token, const char *tenant,
                                  const struct cox_tls_certificate *certificate)
{
    struct cox_rpc_metadata metadata[2];
    char authorization[600];
    size_t n = 0;

    *a = (struct asked){ 0 };
    snprintf(authorization, sizeof(authorization), "Bearer %s", token ? token : "");
    if (token)
        metadata[n++] = (struct cox_rpc_metadata){ "authorization", authorization };
    if (tenant)
        metadata[n++] = (struct cox_rpc_metadata){ "cox-tenant", tenant };
    struct cox_rpc_call *call =
        cox_rpc_local_start(w.f.server, &(struct cox_rpc_local_config){ .path = path,
                                                                        .metadata = metadata,
                                                                        .n_metadata = n,
                                                                        .certificate = certificate,
                                                                        .deadline_ns = COX_RPC_FOREVER,
                                                                        .callbacks = &callbacks,
                                                                        .user = a });
    cox_rpc_local_send(call, cox_slice("", 0));
    return call;
}

/* One whole call; "" or the reason it was refused for. */
static const char *ask(const char *path, const char *token, const char *tenant)
{
    static struct asked a;
    struct cox_rpc_call *call = begin(&a, path, token, tenant, NULL);

    seen_tenant[0] = '\0';
    cox_rpc_local_half_close(call);
    RUN_UNTIL(&w.f, a.over);
    return a.status == COX_RPC_OK ? "" : a.reason;
}

static const char *ask_certificate(const char *path, const char *const *organizations, size_t n,
                                   const char *unit)
{
    static struct asked a;
    const struct cox_tls_certificate c = { "host", organizations, n, unit };

    cox_rpc_local_half_close(begin(&a, path, NULL, NULL, &c));
    RUN_UNTIL(&w.f, a.over);
    return a.status == COX_RPC_OK ? "" : a.reason;
}

#define REFUSED(reason, path, token, tenant) assert_string_equal(ask(path, token, tenant), reason)
#define ALLOWED(path, token, tenant) REFUSED("", path, token, tenant)

static void reload(bool good)
{
    struct cox_buf error = { 0 };

    assert_int_equal(cox_access_reload(w.access, &error) == COX_OK, good);
    cox_buf_fini(&error);
}

/* ---- every method, by everybody ---- */

static void check_method(const char *path, const struct access_rule *rule, const char *task_token)
{
    char token[32];

    REFUSED("NO_TOKEN", path, NULL, NULL);
    REFUSED("BAD_TOKEN", path, "", NULL);
    REFUSED("BAD_TOKEN", path, "unknown", NULL);
    REFUSED("BAD_TOKEN", path, "expired", NULL);
    REFUSED("BAD_TOKEN", path, "revoked", NULL);
    for (unsigned i = 0; i < ACCESS_ROLES_NR; i++) {
        bool may = rule->roles & 1u << i;

        snprintf(token, sizeof(token), "%s-all", access_role_text(i));
        REFUSED(may ? "" : "WRONG_ROLE", path, token, NULL);
        REFUSED(may ? "" : "WRONG_ROLE", path, token, "beta");
        if (1u << i == ACCESS_WORKER)
            continue; /* there are none of one tenant */
        snprintf(token, sizeof(token), "%s-one", access_role_text(i));
        bool whole = rule->flags & ACCESS_WHOLE;
        REFUSED(!may ? "WRONG_ROLE" : whole ? "NEEDS_ALL_TENANTS" : "", path, token, NULL);
        REFUSED(!may ? "WRONG_ROLE" : whole ? "NEEDS_ALL_TENANTS" : "WRONG_TENANT", path, token, "beta");
    }
    REFUSED(rule->flags & ACCESS_TASK_TOKEN ? "" : "WRONG_ROLE", path, task_token, NULL);
}

static void put_tokens(struct cox_buf *text, bool with_revoked)
{
    char token[32];

    put_row(text, "expired", "admin", "\"*\"", ", expires: 2020-01-01T00:00:00Z");
    if (with_revoked)
        put_row(text, "revoked", "admin", "\"*\"", "");
    for (unsigned i = 0; i < ACCESS_ROLES_NR; i++) {
        snprintf(token, sizeof(token), "%s-all", access_role_text(i));
        put_row(text, token, access_role_text(i), "\"*\"", "");
        snprintf(token, sizeof(token), "%s-one", access_role_text(i));
        if (1u << i != ACCESS_WORKER)
            put_row(text, token, access_role_text(i), "[alpha, gamma]", "");
    }
    write_file(w.file, text);
}

static void test_every_method_by_everybody(void **state)
{
    struct cox_buf text = { 0 }, task_token = { 0 };
    char path[128];

    (void)state;
    put_tokens(&text, true);
    start(w.file, false);
    ALLOWED(GET, "revoked", NULL);
    put_tokens(&text, false);
    reload(true);
    cox_access_task_token(w.access, &(struct cox_caller){ .tenant = "alpha", .expires_wall_ms = INT64_MAX },
                          7, 60000, &task_token);
    for (size_t s = 0; s < n_services; s++)
        for (unsigned m = 0; m < services[s]->n_methods; m++) {
            snprintf(path, sizeof(path), "/%s/%s", services[s]->name, services[s]->methods[m].name);
            check_method(path, access_rule_find(services[s]->name, services[s]->methods[m].name),
                         cox_buf_cstr(&task_token));
        }
    REFUSED("NO_TOKEN", "/coxswain.v1.TaskService/Nothing", NULL, NULL);
    REFUSED("UNKNOWN_METHOD", "/coxswain.v1.TaskService/Nothing", "reader-one", NULL);
    stop();
    cox_buf_fini(&text);
    cox_buf_fini(&task_token);
}

static void test_health_needs_nobody(void **state)
{
    struct cox_buf text = { 0 };

    (void)state;
    put_tokens(&text, false);
    start(w.file, false);
    ALLOWED("/grpc.health.v1.Health/Check", NULL, NULL);
    REFUSED("NO_TOKEN", "/grpc.health.v1.Health/Watch", NULL, NULL);
    REFUSED("NO_TOKEN", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", NULL, NULL);
    ALLOWED("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "worker-all", NULL);
    stop();
    cox_buf_fini(&text);
}

static void test_tenants_are_chosen(void **state)
{
    struct cox_buf text = { 0 };

    (void)state;
    put_tokens(&text, false);
    start(w.file, false);
    ALLOWED(GET, "reader-one", NULL);
    assert_string_equal(seen_tenant, "alpha");
    ALLOWED(GET, "reader-one", "gamma");
    assert_string_equal(seen_tenant, "gamma");
    ALLOWED(GET, "reader-all", NULL);
    assert_string_equal(seen_tenant, "default");
    ALLOWED(GET, "reader-all", "anything");
    assert_string_equal(seen_tenant, "anything");
    REFUSED("WRONG_TENANT", GET, "reader-one", "default");
    REFUSED("BAD_TENANT", GET, "reader-all", "");
    REFUSED("BAD_TENANT", GET, "reader-all", "*");
    REFUSED("BAD_TENANT", GET, "reader-all", "../alpha");
    REFUSED("BAD_TENANT", GET, "reader-one", "alpha,beta");
    stop();
    cox_buf_fini(&text);
}

static const char *say(const struct cox_rpc_metadata *metadata, size_t n, const char *peer)
{
    static struct asked a;
    const struct cox_rpc_local_config config = {
        GET, metadata, n, peer, NULL, COX_RPC_FOREVER, 0, &callbacks, &a,
    };

    a = (struct asked){ 0 };
    struct cox_rpc_call *call = cox_rpc_local_start(w.f.server, &config);
    cox_rpc_local_send(call, cox_slice("", 0));
    cox_rpc_local_half_close(call);
    RUN_UNTIL(&w.f, a.over);
    return a.reason;
}

static void test_twice_and_inside(void **state)
{
    const struct cox_rpc_metadata said[] = { { "authorization", "Bearer reader-one" },
                                             { "cox-tenant", "alpha" },
                                             { "cox-tenant", "beta" },
                                             { "authorization", "Bearer admin-all" } };
    struct cox_buf text = { 0 };

    (void)state;
    put_tokens(&text, false);
    start(w.file, false);
    assert_string_equal(say(said, 3, NULL), "BAD_TENANT");
    assert_string_equal(say(said, 4, NULL), "BAD_TOKEN");
    assert_string_equal(say(NULL, 0, "http:inside"), "NO_TOKEN");
    assert_string_equal(say(NULL, 0, COX_RPC_PEER_INSIDE), "");
    stop();
    cox_buf_fini(&text);
}

static void test_open_without_a_file(void **state)
{
    (void)state;
    start(NULL, false);
    ALLOWED(GET, NULL, NULL);
    assert_string_equal(seen_tenant, "default");
    ALLOWED("/coxswain.v1.AdminService/Backup", "whatever", NULL);
    ALLOWED(GET, NULL, "beta");
    assert_string_equal(seen_tenant, "beta");
    REFUSED("BAD_TENANT", GET, NULL, "Beta");
    stop();
}

#define TURN_UNTIL(cond)                                                                                     \
    do {                                                                                                     \
        int64_t give_up_ns = cox_clock_mono_ns() + PATIENCE_NS;                                              \
        while (!(cond)) {                                                                                    \
            cox_rpc_loop_run_once(w.f.loop, cox_access_wake_ns(w.access), 256);                              \
            cox_access_turn(w.access);                                                                       \
            assert_true(cox_clock_mono_ns() < give_up_ns);                                                   \
        }                                                                                                    \
    } while (0)

static void test_streams_end_with_their_tokens(void **state)
{
    struct cox_buf text = { 0 };
    struct asked kept, revoked, narrowed, moved;

    (void)state;
    go_on = true;
    put_row(&text, "kept", "reader", "[alpha]", "");
    put_row(&text, "revoked", "reader", "[alpha]", "");
    put_row(&text, "narrowed", "reader", "[alpha]", "");
    put_row(&text, "moved", "reader", "[alpha]", "");
    write_file(w.file, &text);
    start(w.file, false);
    begin(&kept, WATCH, "kept", NULL, NULL);
    begin(&revoked, WATCH, "revoked", NULL, NULL);
    begin(&narrowed, WATCH, "narrowed", NULL, NULL);
    begin(&moved, WATCH, "moved", NULL, NULL);
    while (cox_rpc_loop_run_once(w.f.loop, 0, 256) > 0)
        ;
    assert_int_equal(cox_rpc_server_calls(w.f.server), 4);
    assert_int_equal(cox_access_wake_ns(w.access), INT64_MAX);

    cox_buf_append_str(&text, "- nonsense\n"); /* changes nothing */
    write_file(w.file, &text);
    reload(false);
    while (cox_rpc_loop_run_once(w.f.loop, 0, 256) > 0)
        ;
    assert_int_equal(cox_rpc_server_calls(w.f.server), 4);

    put_row(&text, "kept", "reader", "[beta, alpha]", "");
    put_row(&text, "kept-2", "reader", "[alpha]", ""); /* a second one of the same name */
    put_row(&text, "narrowed", "worker", "\"*\"", "");
    put_row(&text, "moved", "reader", "[beta]", "");
    write_file(w.file, &text);
    reload(true);
    RUN_UNTIL(&w.f, revoked.over && narrowed.over && moved.over);
    assert_int_equal(revoked.status, COX_RPC_UNAUTHENTICATED);
    assert_int_equal(narrowed.status, COX_RPC_UNAUTHENTICATED);
    assert_int_equal(moved.status, COX_RPC_UNAUTHENTICATED);
    assert_false(kept.over);
    assert_int_equal(w.n_closed, 3);
    ALLOWED(GET, "kept-2", NULL);
    stop();
    cox_buf_fini(&text);
}

static void test_streams_end_when_the_token_expires(void **state)
{
    struct cox_buf text = { 0 }, more = { 0 };
    struct asked a;

    (void)state;
    go_on = true;
    cox_buf_append_str(&more, ", expires: ");
    cox_put_time(&more, cox_clock_wall_ms() + 1500);
    put_row(&text, "brief", "reader", "[alpha]", cox_buf_cstr(&more));
    write_file(w.file, &text);
    start(w.file, false);
    begin(&a, WATCH, "brief", NULL, NULL);
    TURN_UNTIL(a.over);
    assert_int_equal(a.status, COX_RPC_UNAUTHENTICATED);
    REFUSED("BAD_TOKEN", GET, "brief", NULL);
    stop();
    cox_buf_fini(&text);
    cox_buf_fini(&more);
}

/* ---- tokens of tasks ---- */

static void test_task_tokens_cannot_be_made_or_widened(void **state)
{
    const struct task_token one = { .task = 7, .expires_wall_ms = 123456789, .tenant = "alpha" };
    struct task_token_key key = { { 1, 2, 3 } }, other = { { 1, 2, 4 } };
    struct cox_buf text = { 0 };
    struct task_token found;

    (void)state;
    task_token_sign(&key, &one, &text);
    assert_true(task_token_verify(&key, cox_buf_slice(&text), &found));
    assert_int_equal(found.task, 7);
    assert_int_equal(found.expires_wall_ms, 123456789);
    assert_string_equal(found.tenant, "alpha");
    assert_false(task_token_verify(&other, cox_buf_slice(&text), &found));
    for (size_t i = 0; i < text.len; i++) { /* any digit changed, any end */
        uint8_t was = text.data[i];
        text.data[i] = was == '0' ? '1' : '0';
        assert_false(task_token_verify(&key, cox_buf_slice(&text), &found));
        text.data[i] = was;
        assert_false(task_token_verify(&key, cox_slice(text.data, i), &found));
    }
    cox_put_u8(&text, '0');
    assert_false(task_token_verify(&key, cox_buf_slice(&text), &found));
    assert_false(task_token_verify(&key, cox_slice_str("coxt_."), &found));
    assert_false(task_token_verify(&key, cox_slice_str("coxt_00.00"), &found));
    cox_buf_fini(&text);
}

static void keep_key(const char *path)
{
    struct cox_buf error = { 0 };

    assert_int_equal(cox_access_keep_key(w.access, path, &error), COX_OK);
    cox_buf_fini(&error);
}

static void test_task_tokens_live_as_their_key(void **state)
{
    const struct cox_caller brief = { .tenant = "alpha", .expires_wall_ms = cox_clock_wall_ms() + 5000 };
    struct cox_buf text = { 0 }, token = { 0 }, long_token = { 0 };
    struct asked a;
    struct stat st;
    char path[128];

    (void)state;
    go_on = true;
    snprintf(path, sizeof(path), "%s/key", w.dir);
    put_tokens(&text, false);
    start(w.file, false);
    keep_key(path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(cox_access_task_token(w.access, &brief, 7, 60000, &token), brief.expires_wall_ms);
    cox_buf_clear(&token);
    cox_access_task_token(w.access, &(struct cox_caller){ .tenant = "alpha", .expires_wall_ms = INT64_MAX },
                          7, 60000, &token);
    ALLOWED(GET, cox_buf_cstr(&token), NULL);
    assert_string_equal(seen_tenant, "alpha");
    REFUSED("WRONG_TENANT", GET, cox_buf_cstr(&token), "beta");
    cox_access_task_token(w.access, &(struct cox_caller){ .tenant = "alpha", .expires_wall_ms = 1 }, 7, 60000,
                          &long_token);
    REFUSED("BAD_TOKEN", GET, cox_buf_cstr(&long_token), NULL);
    stop();

    start(w.file, false); /* another process */
    REFUSED("BAD_TOKEN", GET, cox_buf_cstr(&token), NULL);
    keep_key(path);
    ALLOWED(GET, cox_buf_cstr(&token), NULL);
    begin(&a, WATCH, cox_buf_cstr(&token), NULL, NULL);
    reload(true);
    while (cox_rpc_loop_run_once(w.f.loop, 0, 256) > 0)
        ;
    assert_false(a.over);
    assert_int_equal(unlink(path), 0);
    reload(true);
    RUN_UNTIL(&w.f, a.over);
    REFUSED("BAD_TOKEN", GET, cox_buf_cstr(&token), NULL);
    stop();
    cox_buf_fini(&text);
    cox_buf_fini(&token);
    cox_buf_fini(&long_token);
}

static void test_certificates_name_roles(void **state)
{
    static const char *const reader[] = { "cox:reader" }, *const worker[] = { "Acme", "cox:worker" };
    static const char *const none[] = { "Acme", "cox:root" };
    static const char attach[] = "/coxswain.v1.WorkerService/Attach",
                      backup[] = "/coxswain.v1.AdminService/Backup";

    (void)state;
    start(NULL, true);
    REFUSED("NO_TOKEN", GET, NULL, NULL);
    assert_string_equal(ask_certificate(GET, reader, 1, NULL), "");
    assert_string_equal(seen_tenant, "default");
    assert_string_equal(ask_certificate(GET, reader, 1, "alpha"), "");
    assert_string_equal(seen_tenant, "alpha");
    assert_string_equal(ask_certificate(GET, reader, 1, "Alpha"), "BAD_CERTIFICATE");
    assert_string_equal(ask_certificate(backup, reader, 1, NULL), "WRONG_ROLE");
    assert_string_equal(ask_certificate(attach, worker, 2, NULL), "");
    assert_string_equal(ask_certificate(attach, worker, 2, "alpha"), "NEEDS_ALL_TENANTS");
    assert_string_equal(ask_certificate(GET, worker, 2, NULL), "WRONG_ROLE");
    assert_string_equal(ask_certificate(GET, none, 2, NULL), "BAD_CERTIFICATE");
    const struct cox_tls_certificate one = { "host", reader, 1, "alpha" }, all = { "host", worker, 2, NULL };
    assert_null(cox_access_refuses(w.access, cox_slice(NULL, 0), &one, NULL, NULL));
    assert_int_equal(
        cox_access_refuses(w.access, cox_slice(NULL, 0), &all, "coxswain.v1.StatsService", "GetMetrics")
            ->status,
        COX_RPC_PERMISSION_DENIED);
    assert_string_equal(ask_certificate(GET, NULL, 0, NULL), "BAD_CERTIFICATE");
    stop();
}

/* A certificate says nothing where nobody asked for one. */
static void test_certificates_only_where_asked(void **state)
{
    static const char *const admin[] = { "cox:admin" };
    struct cox_buf text = { 0 };

    (void)state;
    put_tokens(&text, false);
    start(w.file, false);
    assert_string_equal(ask_certificate(GET, admin, 1, NULL), "NO_TOKEN");
    stop();
    cox_buf_fini(&text);
}

static void test_refused_by_the_head(void **state)
{
    struct cox_buf text = { 0 };
    const char *stats = "coxswain.v1.StatsService";

    (void)state;
    put_tokens(&text, false);
    start(w.file, false);
#define HEAD(token, service) cox_access_refuses(w.access, cox_slice_str(token), NULL, service, "GetMetrics")
    assert_int_equal(HEAD(NULL, NULL)->status, COX_RPC_UNAUTHENTICATED);
    assert_int_equal(HEAD("Basic reader-all", NULL)->status, COX_RPC_UNAUTHENTICATED);
    assert_int_equal(HEAD("Bearer expired", NULL)->status, COX_RPC_UNAUTHENTICATED);
    assert_null(HEAD("Bearer worker-all", NULL));
    assert_int_equal(HEAD("Bearer worker-all", stats)->status, COX_RPC_PERMISSION_DENIED);
    assert_int_equal(HEAD("Bearer reader-one", stats)->status, COX_RPC_PERMISSION_DENIED);
    assert_null(HEAD("bearer reader-all", stats));
    stop();
    cox_buf_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_is_read),
        cmocka_unit_test(test_bad_files_name_the_line),
        cmocka_unit_test(test_every_method_has_a_rule),
        cmocka_unit_test(test_the_page_says_so),
        cmocka_unit_test_setup_teardown(test_every_method_by_everybody, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_health_needs_nobody, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tenants_are_chosen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_twice_and_inside, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_open_without_a_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_streams_end_with_their_tokens, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_streams_end_when_the_token_expires, set_up, tear_down),
        cmocka_unit_test(test_task_tokens_cannot_be_made_or_widened),
        cmocka_unit_test_setup_teardown(test_task_tokens_live_as_their_key, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_certificates_name_roles, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_certificates_only_where_asked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused_by_the_head, set_up, tear_down),
    };

    find_services();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
