/* A page of another site can make a browser send requests here, and a name of its own can be made to lead
 * here (DNS rebinding). So Host must be an address, a loopback name, or a name that was allowed, and requests
 * that change something must not come from pages of elsewhere. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#include <event2/util.h>
#include <string.h>
#include <strings.h>

/* "host:port" without the port, brackets of IPv6 addresses kept. */
static struct cox_slice without_port(struct cox_slice s)
{
    for (size_t i = s.len; i-- > 0;) {
        if (s.data[i] == ':')
            return cox_slice(s.data, i);
        if (s.data[i] < '0' || s.data[i] > '9')
            break;
    }
    return s;
}

static bool listed(const char *list, struct cox_slice name)
{
    while (list && *list) {
        size_t len = strcspn(list, ",");
        if (len == name.len && strncasecmp(list, (const char *)name.data, len) == 0)
            return true;
        list += len + (list[len] == ',');
    }
    return false;
}

/* Addresses cannot be rebound: only names can. */
static bool is_address(struct cox_slice host)
{
    uint8_t bytes[16];
    bool six = host.len > 2 && host.data[0] == '[' && host.data[host.len - 1] == ']';
    char *text = six ? cox_strndup((const char *)host.data + 1, host.len - 2)
                     : cox_strndup((const char *)host.data, host.len);
    bool ok = evutil_inet_pton(six ? AF_INET6 : AF_INET, text, bytes) == 1;

    cox_free(text);
    return ok;
}

static bool host_ok(const struct cox_edge *e, struct cox_slice host)
{
    static const char below[] = ".localhost";
    size_t below_len = sizeof(below) - 1;

    if (host.len == 0)
        return false;
    return is_address(host) || edge_slice_is_nocase(host, "localhost") ||
           (host.len > below_len &&
            edge_slice_is_nocase(cox_slice(host.data + host.len - below_len, below_len), below)) ||
           edge_slice_is_nocase(host, e->host) || listed(e->config.hosts, host);
}

const char *guard_host(const struct cox_edge *e, const struct edge_head *h)
{
    struct cox_slice host = edge_header(h, "host");

    if (!host.data && h->minor == 0)
        return NULL; /* no browser speaks HTTP/1.0 */
    if (host_ok(e, without_port(host)))
        return NULL;
    return "the Host header names a host that this is not; allow it by --http-host";
}

static bool origin_listed(const struct cox_edge *e, struct cox_slice origin)
{
    return listed(e->config.cors_origins, origin) || listed(e->config.cors_origins, cox_slice_str("*"));
}

/* "http://HOST:PORT" as Host says it. */
static bool same_origin(struct cox_slice origin, struct cox_slice host)
{
    static const char *const schemes[] = { "http://", "https://" };

    for (size_t i = 0; i < 2; i++) {
        size_t len = strlen(schemes[i]);
        if (origin.len == len + host.len && strncasecmp((const char *)origin.data, schemes[i], len) == 0 &&
            strncasecmp((const char *)origin.data + len, (const char *)host.data, host.len) == 0)
            return true;
    }
    return false;
}

const char *guard_origin(const struct cox_edge *e, const struct edge_head *h)
{
    struct cox_slice origin = edge_header(h, "origin");
    bool reads = cox_slice_is(h->method, "GET") || cox_slice_is(h->method, "HEAD") ||
                 cox_slice_is(h->method, "OPTIONS");

    if (!origin.data || reads || same_origin(origin, edge_header(h, "host")) || origin_listed(e, origin))
        return NULL;
    return "a page of another origin may not do this; allow it by --cors-origin";
}

void guard_put_cors(const struct cox_edge *e, const struct edge_head *h, struct cox_buf *headers)
{
    struct cox_slice origin = edge_header(h, "origin");

    /* What is kept on the way for one page is not for another's. */
    if (e->config.cors_origins)
        cox_buf_append_str(headers, "Vary: Origin\r\n");
    if (!origin.data || (!origin_listed(e, origin) && !COX_PLANTED("any-origin")))
        return;
    cox_buf_printf(headers, "Access-Control-Allow-Origin: %.*s\r\n", (int)origin.len,
                   (const char *)origin.data);
    if (cox_slice_is(h->method, "OPTIONS"))
        cox_buf_append_str(
            headers, "Access-Control-Allow-Methods: GET, HEAD, POST, PUT, DELETE\r\n"
                     "Access-Control-Allow-Headers: Content-Type, Content-Encoding, Idempotency-Key, "
                     "Last-Event-ID, Authorization, Cox-Tenant, X-Session-Id, X-Request-Id, Traceparent, "
                     "X-Cox-Priority\r\nAccess-Control-Max-Age: 600\r\n");
    else
        cox_buf_append_str(
            headers, "Access-Control-Expose-Headers: Retry-After, Allow, WWW-Authenticate, X-Request-Id\r\n");
}
