#include "upstream_sockets.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"

#include <curl/curl.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

struct socket {
    struct event *event; /* of what curl wanted last; NULL: never watched */
    short watched;       /* EV_READ, EV_WRITE: what the kernel looks for */
    short wanted;        /* by curl; 0: it has forgotten it */
    bool ours;           /* opened and closed below, so that its number cannot come again unseen */
};

struct upstream_sockets {
    struct event_base *base;
    CURLM *multi;
    void (*on_ready)(void *user, int fd, int what);
    void *user;
    struct socket *by_fd;
    size_t cap;
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
    if (k->event)
        event_free(k->event);
    *k = (struct socket){ 0 };
}

static void watch(struct upstream_sockets *s, struct socket *k, int fd, short what);

static void on_event(evutil_socket_t fd, short what, void *user)
{
    struct upstream_sockets *s = user;
    struct socket *k = socket_of(s, fd);

    if (k->wanted == 0) {
        /* A server ended a connection that is not in use: curl sees it when it takes it up. */
        watch(s, k, fd, 0);
        return;
    }
    s->on_ready(s->user, fd,
                (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0));
}

static void watch(struct upstream_sockets *s, struct socket *k, int fd, short what)
{
    if (what == k->watched)
        return;
    if (k->event && k->watched)
        event_del(k->event);
    if (what && k->event)
        COX_ASSERT(event_assign(k->event, s->base, fd, (short)(what | EV_PERSIST), on_event, s) == 0);
    else if (what)
        k->event = event_new(s->base, fd, (short)(what | EV_PERSIST), on_event, s);
    if (what)
        COX_ASSERT(k->event && event_add(k->event, NULL) == 0);
    k->watched = what;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *socket_user)
{
    struct upstream_sockets *s = user;
    struct socket *k = socket_of(s, fd);

    (void)easy;
    (void)socket_user;
    if (what == CURL_POLL_REMOVE) {
        k->wanted = 0;
        if (!k->ours)
            forget(k); /* curl closes it without a word, and its number may come again */
        else if (k->watched & EV_WRITE)
            watch(s, k, fd, 0); /* it would be ready for ever */
        return 0;
    }
    k->wanted = (short)((what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0));
    watch(s, k, fd, k->wanted);
    return 0;
}

static curl_socket_t open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *a)
{
    int fd = socket(a->family, a->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->protocol);

    (void)purpose;
    if (fd < 0)
        return CURL_SOCKET_BAD;
    forget(socket_of(user, fd));
    socket_of(user, fd)->ours = true;
    return fd;
}

static int close_socket(void *user, curl_socket_t fd)
{
    forget(socket_of(user, fd));
    return close(fd);
}

void upstream_sockets_use(struct upstream_sockets *s, void *easy)
{
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, s);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, s);
}

struct upstream_sockets *upstream_sockets_create(struct event_base *base, void *multi,
                                                 void (*on_ready)(void *user, int fd, int what), void *user)
{
    struct upstream_sockets *s = COX_NEW(struct upstream_sockets);

    *s = (struct upstream_sockets){ .base = base, .multi = multi, .on_ready = on_ready, .user = user };
    curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, s);
    return s;
}

void upstream_sockets_destroy(struct upstream_sockets *s)
{
    for (size_t fd = 0; fd < s->cap; fd++)
        forget(&s->by_fd[fd]);
    cox_free(s->by_fd);
    cox_free(s);
}
