/* Tokens: made here, kept by whoever is given one. The orchestrator's file has their hashes only. */
#include "verbs.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/json.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>

#define SECRET_LEN 32
#define TENANT_LEN_MAX 63u
#define DAY_MS (24 * 3600 * 1000LL)

const struct cli_option cli_admin_token_options[] = {
    { "role", 0, "ROLE", "submitter, reader, approver, operator, admin or worker; may be repeated" },
    { "tenant", 0, "NAME", "may be repeated; * is all (default: all for operator, admin and worker)" },
    { "expires", 0, "WHEN", "in so long (90d), or a day (2027-01-01); never: not at all (default: 90d)" },
    { 0 },
};
const char cli_admin_token_help[] =
    "Needs no orchestrator. The token goes to standard output, once: nothing keeps it. The row for the file\n"
    "of `coxd --token-file` goes to standard error, or to both with -o yaml or json. coxd reads the file "
    "again on\n"
    "SIGHUP. Two rows of one name are two tokens: add the new one, hand it out, take the old one away.\n\n"
    "Example:\n"
    "  cox admin token ci --role submitter --tenant alpha 2>> tokens.yaml\n";

static const char *const roles[] = { "submitter", "reader", "approver", "operator", "admin", "worker" };

static bool is_role(const char *text)
{
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (strcmp(text, roles[i]) == 0)
            return true;
    return false;
}

/* Each value of a repeated option. */
static const char *next_value(const struct cli *cli, const char *option, size_t *at)
{
    while (*at < cli->n_given) {
        const struct cli_given *g = &cli->given[(*at)++];

        if (strcmp(g->option->name, option) == 0)
            return g->value;
    }
    return NULL;
}

static enum cli_exit put_roles(const struct cli *cli, struct cox_buf *out, bool *ret_for_all)
{
    const char *role;
    size_t at = 0, n = 0;

    while ((role = next_value(cli, "role", &at))) {
        if (!is_role(role)) {
            cli_error("--role %s: expected submitter, reader, approver, operator, admin or worker", role);
            return CLI_USAGE;
        }
        *ret_for_all |=
            strcmp(role, "operator") == 0 || strcmp(role, "admin") == 0 || strcmp(role, "worker") == 0;
        cox_buf_printf(out, "%s\"%s\"", n++ ? "," : "[", role);
    }
    cox_put_u8(out, ']');
    if (n > 0)
        return CLI_OK;
    cli_error("what may it do? give --role submitter, reader, approver, operator, admin or worker");
    return CLI_USAGE;
}

bool cli_tenant_ok(const char *name)
{
    static const char word[] = "abcdefghijklmnopqrstuvwxyz0123456789", inner[] = "-_.";
    bool ok = *name && strchr(word, *name) && strlen(name) <= TENANT_LEN_MAX;

    for (const char *c = name; ok && *c; c++)
        ok = strchr(word, *c) || strchr(inner, *c);
    if (!ok)
        cli_error("--tenant %s: expected 1 to %u characters of a-z, 0-9, -, _ and .", name, TENANT_LEN_MAX);
    return ok;
}

static enum cli_exit put_tenants(const struct cli *cli, struct cox_buf *out, bool for_all)
{
    const char *tenant;
    size_t at = 0, n = 0;

    while ((tenant = next_value(cli, "tenant", &at))) {
        if (strcmp(tenant, "*") == 0) {
            for_all = true;
            n = 0;
            break;
        }
        if (!cli_tenant_ok(tenant))
            return CLI_USAGE;
        cox_buf_append_str(out, n++ ? "," : "[");
        cox_json_quote(out, cox_slice_str(tenant));
        for_all = false;
    }
    if (n > 0)
        cox_put_u8(out, ']');
    else
        cox_buf_append_str(out, for_all ? "\"*\"" : "[\"default\"]");
    return CLI_OK;
}

/* False: it is neither a time, nor a day, nor so long from now. */
static bool read_expiry(const char *text, int64_t *ret_wall_ms)
{
    struct cox_buf day = { 0 };
    int64_t ms;
    bool ok = cox_parse_time(cox_slice_str(text), ret_wall_ms) == COX_OK;

    cox_buf_printf(&day, "%sT00:00:00Z", text);
    ok = ok || cox_parse_time(cox_buf_slice(&day), ret_wall_ms) == COX_OK;
    if (!ok && cox_parse_duration_ms(cox_slice_str(text), &ms) == COX_OK && ms > 0 &&
        ms < INT64_MAX - cox_clock_wall_ms()) {
        *ret_wall_ms = cox_clock_wall_ms() + ms;
        ok = true;
    }
    cox_buf_fini(&day);
    return ok;
}

static enum cli_exit put_row(const struct cli *cli, struct cox_buf *out, struct cox_slice token)
{
    const char *expires = cli_get(cli, "expires");
    int64_t wall_ms = cox_clock_wall_ms() + 90 * DAY_MS;
    bool for_all = false;
    uint8_t hash[SECRET_LEN];

    COX_ASSERT(EVP_Digest(token.data, token.len, hash, NULL, EVP_sha256(), NULL) == 1);
    cox_buf_append_str(out, "{\"name\":");
    cox_json_quote(out, cox_slice_str(cli->args[0]));
    cox_buf_append_str(out, ",\"token_sha256\":\"");
    cox_buf_append_hex(out, hash, sizeof(hash));
    cox_buf_append_str(out, "\",\"roles\":");
    enum cli_exit code = put_roles(cli, out, &for_all);

    if (code)
        return code;
    cox_buf_append_str(out, ",\"tenants\":");
    code = put_tenants(cli, out, for_all);
    if (code)
        return code;
    if (expires && strcmp(expires, "never") != 0 && !read_expiry(expires, &wall_ms)) {
        cli_error("--expires %s: expected a duration such as 90d, a day such as 2027-01-01, or never",
                  expires);
        return CLI_USAGE;
    }
    if (!expires || strcmp(expires, "never") != 0) {
        cox_buf_append_str(out, ",\"expires\":\"");
        cox_put_time(out, wall_ms);
        cox_put_u8(out, '"');
    }
    cox_put_u8(out, '}');
    return CLI_OK;
}

/* As an item of the list that the file is. */
static void print_row(FILE *to, struct cox_slice row)
{
    struct cox_buf json = { 0 }, yaml = { 0 };

    cox_put_u8(&json, '[');
    cox_buf_append_slice(&json, row);
    cox_put_u8(&json, ']');
    cli_put_yaml(&yaml, cox_buf_slice(&json));
    fputs(cox_buf_cstr(&yaml), to);
    cox_buf_fini(&json);
    cox_buf_fini(&yaml);
}

enum cli_exit cli_admin_token(struct cli *cli)
{
    struct cox_buf token = { 0 }, row = { 0 }, both = { 0 };
    uint8_t secret[SECRET_LEN];

    COX_ASSERT(RAND_bytes(secret, sizeof(secret)) == 1);
    cox_buf_append_str(&token, "cox_");
    cox_buf_append_hex(&token, secret, sizeof(secret));
    enum cli_exit code = put_row(cli, &row, cox_buf_slice(&token));

    if (!code && cli_structured(cli)) {
        cox_buf_printf(&both, "{\"token\":\"%s\",\"row\":%s}", cox_buf_cstr(&token), cox_buf_cstr(&row));
        cli_print_json(cli, cox_buf_slice(&both));
    } else if (!code) {
        print_row(stderr, cox_buf_slice(&row));
        printf("%s\n", cox_buf_cstr(&token));
    }
    cox_buf_fini(&token);
    cox_buf_fini(&row);
    cox_buf_fini(&both);
    return code;
}
