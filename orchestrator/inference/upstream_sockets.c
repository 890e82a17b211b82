#include "upstream_sockets.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"

#include <curl/curl.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

/* Reading and writing are two events, so that a change of one is one call of the kernel. */
struct socket {
    struct event *read, *write; /* NULL: never watched */
    void *lane;                 /* of the multi that waits for it now; NULL: curl has forgotten it */
    bool reads, writes;         /* what the kernel looks for */
    uint32_t *n_open;           /* opened and closed below, so that its number cannot come again unseen */
};

struct upstream_sockets {
    struct event_base *base;
    upstream_on_ready *on_ready;
    struct socket *by_fd;
    size_t cap;
    struct served *served;
    uint32_t n_open;
};

/* A multi, as its callbacks know it. */
struct served {
    struct upstream_sockets *sockets;
    void *lane;
    struct served *next;
};

static struct socket *socket_of(struct upstream_sockets *s, int fd)
{
    COX_ASSERT(fd >= 0);
    if ((size_t)fd >= s->cap) {
        size_t cap = s->cap ? s->cap : 64;

        while (cap <= (size_t)fd)
            cap *= 2;
        s->by_fd = cox_realloc(s->by_fd, cap, sizeof(s->by_fd[0]));
        for (size_t i = s->cap; i < cap; i++)
            s->by_fd[i] = (struct socket){ 0 };
        s->cap = cap;
    }
    return &s->by_fd[fd];
}

static void forget(struct socket *k)
{
    if (k->read)
        event_free(k->read);
    if (k->write)
        event_free(k->write);
    *k = (struct socket){ 0 };
}

static void on_event(evutil_socket_t fd, short what, void *user);

static void watch(struct upstream_sockets *s, struct event **event, bool *is_watched, int fd, short what,
                  bool on)
{
    if (on == *is_watched)
        return;
    *is_watched = on;
    if (!*event)
        *event = event_new(s->base, fd, (short)(what | EV_PERSIST), on_event, s);
    COX_ASSERT(*event && (on ? event_add(*event, NULL) : event_del(*event)) == 0);
}

static void on_event(evutil_socket_t fd, short what, void *user)
{
    struct upstream_sockets *s = user;
    struct socket *k = socket_of(s, fd);

    if (!k->lane)
        /* A server ended a connection that is not in use: curl sees it when it takes it up. */
        watch(s, &k->read, &k->reads, fd, EV_READ, false);
    else
        s->on_ready(k->lane, fd, what & EV_READ ? CURL_CSELECT_IN : CURL_CSELECT_OUT);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *socket_user)
{
    struct served *by = user;
    struct upstream_sockets *s = by->sockets;
    struct socket *k = socket_of(s, fd);

    (void)easy;
    (void)socket_user;
    if (what == CURL_POLL_REMOVE) {
        k->lane = NULL;
        if (!k->n_open)
            forget(k); /* curl closes it without a word, and its number may come again */
        else
            watch(s, &k->write, &k->writes, fd, EV_WRITE, false); /* it would be ready for ever */
        return 0;
    }
    k->lane = by->lane;
    watch(s, &k->read, &k->reads, fd, EV_READ, (what & CURL_POLL_IN) != 0);
    watch(s, &k->write, &k->writes, fd, EV_WRITE, (what & CURL_POLL_OUT) != 0);
    return 0;
}

int upstream_sockets_open(struct upstream_sockets *s, int family, int type, int protocol, uint32_t *n_open)
{
    int fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
    struct socket *k;

    if (fd < 0)
        return -1;
    k = socket_of(s, fd);
    forget(k);
    k->n_open = n_open;
    ++*n_open;
    s->n_open++;
    return fd;
}

uint32_t upstream_sockets_n_open(const struct upstream_sockets *s)
{
    return s->n_open;
}

int upstream_sockets_close(void *sockets, int fd)
{
    struct upstream_sockets *s = sockets;
    struct socket *k = socket_of(s, fd);

    if (k->n_open) {
        --*k->n_open;
        s->n_open--;
    }
    forget(k);
    return close(fd);
}

void upstream_sockets_serve(struct upstream_sockets *s, void *multi, void *lane)
{
    struct served *served = COX_NEW(struct served);

    *served = (struct served){ .sockets = s, .lane = lane, .next = s->served };
    s->served = served;
    curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, served);
}

struct upstream_sockets *upstream_sockets_create(struct event_base *base, upstream_on_ready *on_ready)
{
    struct upstream_sockets *s = COX_NEW(struct upstream_sockets);

    s->base = base;
    s->on_ready = on_ready;
    return s;
}

void upstream_sockets_destroy(struct upstream_sockets *s)
{
    for (size_t fd = 0; fd < s->cap; fd++)
        forget(&s->by_fd[fd]);
    while (s->served) {
        struct served *next = s->served->next;

        cox_free(s->served);
        s->served = next;
    }
    cox_free(s->by_fd);
    cox_free(s);
}
