/* `cox admin certs`: a CA and what it signs, for a first cluster. Larger ones have a CA already. */
#include "verbs.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CA_DAYS 3650
#define DAYS 365
#define HOSTS_MAX 64

const struct cli_option cli_admin_certs_options[] = {
    { "host", 0, "NAME",
      "a name or address that coxd is reached by, beside localhost and this host; repeatable" },
    { "worker", 0, "NAME", "only this: a worker's certificate, worker-NAME.crt" },
    { "client", 0, "NAME", "only this: a client's certificate, client-NAME.crt; needs --role" },
    { "role", 0, "ROLE", "what the client may do: submitter, reader, approver, operator or admin" },
    { "tenant", 0, "NAME", "whose tasks the client may touch (default: default; operators and admins: all)" },
    { "days", 0, "N", "how long what is signed is valid (default: 365)" },
    { "renew", 0, NULL, "make those anew that are there already; the CA stays" },
    { 0 },
};
const char cli_admin_certs_help[] =
    "Makes DIR with a CA (ca.crt, ca.key) and what a first cluster needs: server.crt for coxd, worker.crt "
    "for\n"
    "workers, client-admin.crt for an administrator, each with its .key, which only its owner may read. "
    "Later it\n"
    "signs more with the same CA. What is there stays as it is, but for --renew. Keep ca.key away from the "
    "hosts\n"
    "that work; workers and clients need ca.crt and a certificate of their own.\n\n"
    "Examples:\n"
    "  cox admin certs certs --host cox.example.org\n"
    "  coxd --tls-cert certs/server.crt --tls-key certs/server.key --tls-ca certs/ca.crt\n"
    "  cox-worker --tls-ca certs/ca.crt --tls-cert certs/worker.crt --tls-key certs/worker.key\n"
    "  cox admin certs certs --client alice --role submitter --tenant blue\n";

struct certs {
    struct cli *cli;
    const char *dir;
    char *ca_cert, *ca_key;
    int64_t days;
    bool renew;
    struct cox_buf json;
    size_t n_made;
};

static bool there(const char *path)
{
    return access(path, F_OK) == 0;
}

static enum cli_exit fail(struct cox_buf *error)
{
    cli_error("%s", cox_buf_cstr(error));
    cox_buf_fini(error);
    return CLI_USAGE;
}

static void tell(struct certs *c, const char *cert, const char *key)
{
    if (cli_structured(c->cli)) {
        cox_buf_append_str(&c->json, c->n_made++ ? ",{\"cert\":" : "{\"cert\":");
        cox_json_quote(&c->json, cox_slice_str(cert));
        cox_buf_append_str(&c->json, ",\"key\":");
        cox_json_quote(&c->json, cox_slice_str(key));
        cox_buf_append_str(&c->json, "}");
    } else {
        printf("%s\n", cert);
    }
}

static enum cli_exit make_ca(struct certs *c)
{
    struct cox_buf error = { 0 };

    if (there(c->ca_cert) && there(c->ca_key))
        return CLI_OK;
    if (there(c->ca_cert) || there(c->ca_key)) {
        cli_error("%s: has only one of ca.crt and ca.key; both are needed to sign", c->dir);
        return CLI_USAGE;
    }
    if (cox_tls_make_ca(c->ca_cert, c->ca_key, "Coxswain CA", CA_DAYS, &error))
        return fail(&error);
    tell(c, c->ca_cert, c->ca_key);
    return CLI_OK;
}

static enum cli_exit make(struct certs *c, const char *file, struct cox_tls_request request)
{
    char *cert = cox_asprintf("%s/%s.crt", c->dir, file), *key = cox_asprintf("%s/%s.key", c->dir, file);
    bool known = there(cert) || there(key);
    struct cox_buf error = { 0 };
    enum cli_exit code = CLI_OK;

    request.days = c->days;
    if (known && !c->renew)
        cli_note(c->cli, "%s is there already and stays; --renew makes it anew", there(cert) ? cert : key);
    else if (cox_tls_make(c->ca_cert, c->ca_key, &request, cert, key, &error))
        code = fail(&error);
    else {
        tell(c, cert, key);
        if (known)
            cli_note(c->cli, "%s has been made anew: its reader needs the new one", cert);
    }
    cox_free(cert);
    cox_free(key);
    return code;
}

static enum cli_exit make_server(struct certs *c)
{
    const char *hosts[HOSTS_MAX] = { "localhost", "127.0.0.1", "::1" };
    char own[256] = "";
    size_t n = 3;

    for (size_t i = 0; i < c->cli->n_given && n < HOSTS_MAX; i++)
        if (strcmp(c->cli->given[i].option->name, "host") == 0)
            hosts[n++] = c->cli->given[i].value;
    if (gethostname(own, sizeof(own) - 1) == 0 && own[0] && n < HOSTS_MAX)
        hosts[n++] = own;
    return make(c, "server",
                (struct cox_tls_request){
                    .role = COX_TLS_ROLE_SERVER, .name = "coxd", .hosts = hosts, .n_hosts = n });
}

/* A part of a file's name, so of no path. */
static bool is_plain(const char *option, const char *name)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

    if (name[0] && name[0] != '.' && strlen(name) <= 64 && !name[strspn(name, plain)])
        return true;
    cli_error("--%s: expected letters, digits, \".\", \"_\" and \"-\", at most 64, found %s", option, name);
    return false;
}

static enum cli_exit make_client(struct certs *c, const char *name, const char *role, const char *tenant)
{
    static const char *const roles[] = { "submitter", "reader", "approver", "operator", "admin", NULL };
    bool of_all = role && (strcmp(role, "operator") == 0 || strcmp(role, "admin") == 0);
    size_t i = 0;

    while (role && roles[i] && strcmp(role, roles[i]) != 0)
        i++;
    if (!is_plain("client", name) || (tenant && !cli_tenant_ok(tenant)))
        return CLI_USAGE;
    if (!role || !roles[i]) {
        cli_error("--role: expected submitter, reader, approver, operator or admin%s%s",
                  role ? ", found " : "", role ? role : "");
        return CLI_USAGE;
    }
    if (of_all && tenant) {
        cli_error("--tenant: an %s acts for all tenants", role);
        return CLI_USAGE;
    }
    char *file = cox_asprintf("client-%s", name), *organization = cox_asprintf("cox:%s", role);
    enum cli_exit code =
        make(c, file,
             (struct cox_tls_request){
                 .role = COX_TLS_ROLE_CLIENT, .name = name, .organization = organization, .unit = tenant });

    cox_free(file);
    cox_free(organization);
    return code;
}

static enum cli_exit make_worker(struct certs *c, const char *file, const char *name)
{
    return make(
        c, file,
        (struct cox_tls_request){ .role = COX_TLS_ROLE_CLIENT, .name = name, .organization = "cox:worker" });
}

static enum cli_exit make_all(struct certs *c)
{
    const char *worker = cli_get(c->cli, "worker"), *client = cli_get(c->cli, "client");
    const char *role = cli_get(c->cli, "role"), *tenant = cli_get(c->cli, "tenant");
    enum cli_exit code;

    if (!client && (role || tenant)) {
        cli_error("--role and --tenant say what a client may do: --client NAME is missing");
        return CLI_USAGE;
    }
    if (worker && !is_plain("worker", worker))
        return CLI_USAGE;
    code = make_ca(c);
    if (!code && worker) {
        char *file = cox_asprintf("worker-%s", worker);
        code = make_worker(c, file, worker);
        cox_free(file);
    }
    if (!code && client)
        code = make_client(c, client, role, tenant);
    if (code || worker || client)
        return code;
    code = make_server(c);
    if (!code)
        code = make_worker(c, "worker", "worker");
    return code ? code : make_client(c, "admin", "admin", NULL);
}

enum cli_exit cli_admin_certs(struct cli *cli)
{
    struct certs c = { .cli = cli, .dir = cli->args[0], .renew = cli_has(cli, "renew") };
    uint32_t days;
    enum cli_exit code = cli_get_count(cli, "days", DAYS, &days);

    if (code)
        return code;
    if (mkdir(c.dir, 0700) != 0 && errno != EEXIST) {
        cli_error("%s: %s", c.dir, strerror(errno));
        return CLI_USAGE;
    }
    c.days = days;
    c.ca_cert = cox_asprintf("%s/ca.crt", c.dir);
    c.ca_key = cox_asprintf("%s/ca.key", c.dir);
    cox_buf_append_str(&c.json, "{\"certificates\":[");
    code = make_all(&c);
    cox_buf_append_str(&c.json, "]}");
    if (!code && cli_structured(cli))
        cli_print_json(cli, cox_buf_slice(&c.json));
    cox_buf_fini(&c.json);
    cox_free(c.ca_cert);
    cox_free(c.ca_key);
    return code;
}
