#include "endpoint_url.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

struct url {
    bool tls;
    struct cox_slice host, path; /* an IPv6 address with its brackets */
    uint32_t port;               /* 0: not said */
};

static bool begins(struct cox_slice s, const char *with)
{
    size_t len = strlen(with);

    return s.len >= len && strncasecmp((const char *)s.data, with, len) == 0;
}

static struct cox_slice cut(struct cox_slice s, size_t at)
{
    return cox_slice(s.data + at, s.len - at);
}

/* Bytes of a name or an address; what is between brackets is IPv6's. */
static size_t host_len(struct cox_slice s)
{
    size_t n = 0;

    if (s.len > 0 && s.data[0] == '[') {
        for (n = 1; n < s.len && (isxdigit(s.data[n]) || s.data[n] == ':' || s.data[n] == '.');)
            n++;
        return n > 2 && n < s.len && s.data[n] == ']' ? n + 1 : 0;
    }
    while (n < s.len && (isalnum(s.data[n]) || (s.data[n] && strchr(".-_", s.data[n]))))
        n++;
    return n;
}

static bool read_port(struct cox_slice *rest, uint32_t *ret)
{
    size_t n = 0;

    if (rest->len == 0 || rest->data[0] != ':')
        return true;
    *rest = cut(*rest, 1);
    while (n < rest->len && n < 6 && isdigit(rest->data[n]))
        *ret = *ret * 10 + (uint32_t)(rest->data[n++] - '0');
    *rest = cut(*rest, n);
    return n > 0 && *ret >= 1 && *ret <= 65535;
}

static bool path_ok(struct cox_slice path)
{
    for (size_t i = 0; i < path.len; i++) {
        if (path.data[i] <= ' ' || path.data[i] >= 0x7f || strchr("?#\"<>\\^`{|}", path.data[i]))
            return false;
    }
    return path.len == 0 || path.data[0] == '/';
}

static bool take_apart(struct cox_slice text, struct url *ret)
{
    *ret = (struct url){ .tls = begins(text, "https://") };
    if (text.len > ENDPOINT_URL_LEN_MAX || (!ret->tls && !begins(text, "http://")))
        return false;
    struct cox_slice rest = cut(text, ret->tls ? 8 : 7);
    size_t n = host_len(rest);

    ret->host = cox_slice(rest.data, n);
    rest = cut(rest, n);
    if (n == 0 || !read_port(&rest, &ret->port) || !path_ok(rest))
        return false;
    while (rest.len > 0 && rest.data[rest.len - 1] == '/')
        rest.len--;
    ret->path = rest;
    return true;
}

bool endpoint_url_read(struct cox_slice text, struct cox_buf *out)
{
    struct url u;

    if (!take_apart(text, &u))
        return false;
    cox_buf_append_str(out, u.tls ? "https://" : "http://");
    for (size_t i = 0; i < u.host.len; i++)
        cox_put_u8(out, (uint8_t)tolower(u.host.data[i]));
    if (u.port && u.port != (u.tls ? 443u : 80u))
        cox_buf_printf(out, ":%u", u.port);
    if (u.path.len == 0)
        cox_buf_append_str(out, "/v1");
    cox_buf_append_slice(out, u.path);
    return true;
}

void endpoint_url_put_name(struct cox_buf *out, const char *url)
{
    struct url u;

    if (!take_apart(cox_slice_str(url), &u))
        return;
    cox_buf_append_slice(out, u.host);
    cox_buf_printf(out, ":%u", u.port ? u.port : u.tls ? 443u : 80u);
    if (!cox_slice_is(u.path, "/v1"))
        cox_buf_append_slice(out, u.path);
}

void endpoint_url_put_root(struct cox_buf *out, const char *url)
{
    size_t len = strlen(url);

    cox_buf_append(out, url, len >= 3 && strcmp(url + len - 3, "/v1") == 0 ? len - 3 : len);
}
