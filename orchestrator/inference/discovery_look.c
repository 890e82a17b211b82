#include "discovery_look.h"

#include "endpoint_url.h"

#include "cox/base/alloc.h"
#include "cox/limits.h"

#include <arpa/nameser.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANSWER_LEN_MAX 65536

/* ---- files ---- */

static struct discovery_seen seen_of(const struct stat *st)
{
    return (struct discovery_seen){ st->st_mtim, st->st_size, st->st_ino };
}

static bool same(const struct discovery_seen *a, const struct discovery_seen *b)
{
    return a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec &&
           a->len == b->len && a->inode == b->inode;
}

/* A file that is being written is read again once that is over: it has changed by then. */
static enum cox_err read_file(const char *path, struct discovery_seen *seen, struct cox_buf *text,
                              struct cox_buf *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct discovery_seen now;
    enum cox_err err = COX_OK;
    struct stat st;
    ssize_t n = 1;

    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        cox_buf_append_str(error, fd < 0 ? strerrordesc_np(errno) : "not a plain file");
        err = COX_ERR_IO;
    } else {
        now = seen_of(&st);
        err = same(&now, seen) ? COX_ERR_AGAIN : COX_OK;
    }
    while (!err && n > 0 && text->len <= COX_DOCUMENT_LEN_MAX) {
        size_t from = text->len;

        n = read(fd, cox_buf_extend(text, 65536), 65536);
        text->len = from + (n > 0 ? (size_t)n : 0);
        if (n < 0) {
            cox_buf_append_str(error, strerrordesc_np(errno));
            err = COX_ERR_IO;
        }
    }
    if (!err)
        *seen = now;
    if (fd >= 0)
        (void)close(fd);
    return err;
}

enum cox_err discovery_look_file(const char *path, struct discovery_seen *seen, struct endpoint_text **ret,
                                 size_t *ret_n, struct cox_buf *error)
{
    struct cox_buf text = { 0 };
    enum cox_err err = read_file(path, seen, &text, error);

    if (!err)
        err = endpoints_parse(cox_buf_slice(&text), ret, ret_n, error);
    else if (err == COX_ERR_IO)
        *seen = (struct discovery_seen){ 0 }; /* the same file may come back */
    cox_buf_fini(&text);
    return err;
}

/* ---- names ---- */

struct found {
    struct endpoint_text *items;
    size_t n;
};

static void add(struct found *f, const char *host, bool bracketed, unsigned port)
{
    char *text = cox_asprintf(bracketed ? "http://[%s]:%u" : "http://%s:%u", host, port);
    struct cox_buf url = { 0 };

    if (f->n < CATALOGUE_ENDPOINTS_MAX && endpoint_url_read(cox_slice_str(text), &url)) {
        f->items = cox_realloc(f->items, f->n + 1, sizeof(*f->items));
        f->items[f->n++] = (struct endpoint_text){ .url = cox_strdup(cox_buf_cstr(&url)) };
    }
    cox_buf_fini(&url);
    cox_free(text);
}

static int by_url(const void *a, const void *b)
{
    return strcmp(((const struct endpoint_text *)a)->url, ((const struct endpoint_text *)b)->url);
}

/* Name servers answer in any order, and may say a thing twice. */
static void put_in_order(struct found *f)
{
    size_t kept = 0;

    if (f->n > 1)
        qsort(f->items, f->n, sizeof(*f->items), by_url);
    for (size_t i = 0; i < f->n; i++) {
        if (kept > 0 && strcmp(f->items[kept - 1].url, f->items[i].url) == 0)
            endpoint_text_fini(&f->items[i]);
        else
            f->items[kept++] = f->items[i];
    }
    f->n = kept;
}

static enum cox_err look_host(const char *name, struct found *f, struct cox_buf *error)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
    const char *colon = strrchr(name, ':');
    char *host = cox_strndup(name, (size_t)(colon - name)), text[NI_MAXHOST];
    struct addrinfo *all = NULL;
    int code = getaddrinfo(host, NULL, &hints, &all);
    unsigned port = (unsigned)strtoul(colon + 1, NULL, 10);

    if (code)
        cox_buf_append_str(error, code == EAI_SYSTEM ? strerrordesc_np(errno) : gai_strerror(code));
    for (const struct addrinfo *a = all; a; a = a->ai_next) {
        if (getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST) == 0)
            add(f, text, a->ai_family == AF_INET6, port);
    }
    if (all)
        freeaddrinfo(all);
    cox_free(host);
    return code ? COX_ERR_UNAVAILABLE : COX_OK;
}

/* A name server may say any bytes; a slash would make a path of the port. */
static bool is_host(const char *target)
{
    size_t len = strspn(target, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");

    return len > 0 && target[len] == '\0' && strcmp(target, ".") != 0; /* which means: decidedly none */
}

static void read_record(struct found *f, const ns_msg *message, const ns_rr *record)
{
    char target[NS_MAXDNAME];
    const uint8_t *data = ns_rr_rdata(*record);

    if (ns_rr_type(*record) != ns_t_srv || ns_rr_rdlen(*record) < 7)
        return;
    if (ns_name_uncompress(ns_msg_base(*message), ns_msg_end(*message), data + 6, target, sizeof(target)) < 0)
        return;
    if (is_host(target))
        add(f, target, false, (unsigned)data[4] << 8 | data[5]);
}

static enum cox_err look_srv(const char *name, struct found *f, struct cox_buf *error)
{
    uint8_t *answer = cox_alloc(ANSWER_LEN_MAX);
    struct __res_state state = { 0 };
    ns_msg message;
    ns_rr record;
    int len = -1;

    if (res_ninit(&state) == 0) {
        len = res_nsearch(&state, name, ns_c_in, ns_t_srv, answer, ANSWER_LEN_MAX);
        if (len < 0)
            cox_buf_append_str(error, hstrerror(state.res_h_errno));
        res_nclose(&state);
    }
    if (len > ANSWER_LEN_MAX)
        len = ANSWER_LEN_MAX;
    if (len >= 0 && ns_initparse(answer, len, &message) != 0) {
        cox_buf_append_str(error, "the name server's answer cannot be read");
        len = -1;
    }
    for (int i = 0; len >= 0 && i < ns_msg_count(message, ns_s_an); i++) {
        if (ns_parserr(&message, ns_s_an, i, &record) == 0)
            read_record(f, &message, &record);
    }
    cox_free(answer);
    return len < 0 ? COX_ERR_UNAVAILABLE : COX_OK;
}

enum cox_err discovery_look_dns(const char *name, struct endpoint_text **ret, size_t *ret_n,
                                struct cox_buf *error)
{
    struct found f = { 0 };
    enum cox_err err = name[0] == '_' ? look_srv(name, &f, error) : look_host(name, &f, error);

    if (err) {
        endpoints_free(f.items, f.n);
        return err;
    }
    put_in_order(&f);
    *ret = f.items;
    *ret_n = f.n;
    return COX_OK;
}
