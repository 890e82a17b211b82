/* Accepting connections, on a thread of its own.
 *
 * The library's listener is not used: the first accept() that fails for want of a descriptor ends it for
 * good, silently, so anybody who opened connections enough once would shut the door for all (1.51; later ones
 * wait and try again). It also keeps who connects and says nothing for two minutes.
 *
 * Here a connection is handed to the library once its client has said the 24 bytes that HTTP/2 begins with.
 * Until then it waits, for 10 s at most, and among a third of the descriptors at most, of whom the oldest
 * gives way: thousands that come back at once from a busy host take seconds to speak. When descriptors become
 * scarce the newest is refused, so that files can still be opened: its client tries again.
 *
 * With TLS the same holds for the socket of the plain words: they begin when the handshake is over.
 */
#include "guard.h"
#include "rpc_internal.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <arpa/inet.h>
#include <errno.h>
#include <grpc/grpc_posix.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#define LISTENERS_MAX 8
#define WAITING_SHARE 3
#define TLS_FDS 3 /* its socket, and two between its TLS and us */
#define PREFACE_LEN 24
#define PREFACE_NS (10000 * INT64_C(1000000))
#define PAUSE_NS                                                                                             \
    (100 * INT64_C(1000000))               /* after an accept() that failed: others will free what it lacks  \
                                            */
#define WARN_NS (10000 * INT64_C(1000000)) /* between two lines of the log about that */
#define USER_TIMEOUT_MS 10000              /* unacknowledged for so long: the connection is gone */
#define FDS_MAX (1u << 20)
#define FDS_KEPT 2048u /* for files and the HTTP side; of a small limit, half */
#define EVENTS_MAX 64
#define SLOWLY_NS (200 * INT64_C(1000000)) /* between two connections of offenders, all together */
#define SETTLING_NS                                                                                          \
    (100 * INT64_C(1000000)) /* for the loop to have no call waiting, before a second owner is heard */
#define SETTLING_MS 1
#define SLOW_MAX 50u /* who cannot speak within PREFACE_NS need not wait */

struct waiting {
    struct cox_list node; /* oldest first */
    int fd;
    int64_t until_ns;
};

union address {
    struct sockaddr_storage whole;
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

struct peer {
    union address address;
    bool known;     /* the library has had this descriptor */
    bool second;    /* and not for the first time */
    uint64_t since; /* of the loop's settled moments */
};

/* So many: the library gives a connection no other name than its descriptor. See rpc_listener_certificate. */
#define SETTLED_TWICE 2

struct rpc_listener {
    struct cox_tls *tls; /* NULL: plaintext */
    grpc_server *server;
    grpc_server_credentials *credentials;
    int epoll_fd, stop_fd;
    int fds[LISTENERS_MAX];
    size_t n_fds;
    struct cox_list waiting;
    size_t n_waiting;
    struct cox_list settling; /* struct waiting who have spoken; not counted among the waiting */
    struct cox_list slow;     /* struct waiting of offenders: nobody listens to them until it is their turn */
    size_t n_slow;
    int64_t slow_ns;         /* when the next of them may speak */
    int64_t paused_until_ns; /* 0: accepting */
    int64_t warned_ns;
    int fd_end; /* no connection has this number or a higher one */
    pthread_t thread;
    struct cox_rpc_loop *loop;
    pthread_mutex_t mutex; /* of peers: by descriptor, the last that had it */
    struct peer *peers;
};

/* ---- listening ---- */

static void set_option(int fd, int level, int name, int value)
{
    (void)setsockopt(fd, level, name, &value, sizeof(value)); /* all that we ask for are refinements */
}

/* -1 and errno. */
static int listen_on(const struct addrinfo *info, int port)
{
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    union address address;

    memcpy(&address, info->ai_addr, info->ai_addrlen < sizeof(address) ? info->ai_addrlen : sizeof(address));
    if (info->ai_family == AF_INET6)
        address.in6.sin6_port = htons((uint16_t)port);
    else
        address.in.sin_port = htons((uint16_t)port);
    if (fd < 0)
        return -1;
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (bind(fd, &address.any, info->ai_addrlen) || listen(fd, SOMAXCONN)) {
        int err = errno;
        close(fd);
        errno = err;
        return -1;
    }
    /* Inherited by what is accepted. */
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS);
    return fd;
}

static int port_of(int fd)
{
    union address bound;
    socklen_t len = sizeof(bound);

    if (getsockname(fd, &bound.any, &len))
        return 0;
    return ntohs(bound.any.sa_family == AF_INET6 ? bound.in6.sin6_port : bound.in.sin_port);
}

/* All that a name stands for, on one port, but addresses that this host has not: hosts files name ::1 where
 * there is no IPv6. Returns the port, or 0. */
static int listen_all(struct rpc_listener *l, const char *address)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
    const char *colon = strrchr(address, ':');
    struct addrinfo *found = NULL;

    if (!colon || colon == address)
        return 0;
    bool six = address[0] == '[' && colon[-1] == ']';
    char *name = cox_strndup(address + six, (size_t)(colon - address) - (six ? 2 : 0));
    int port = 0;
    bool bad = getaddrinfo(name, colon + 1, &hints, &found) != 0;

    for (const struct addrinfo *it = found; it && !bad && l->n_fds < LISTENERS_MAX; it = it->ai_next) {
        int wanted = ntohs(it->ai_family == AF_INET6 ? ((union address *)(void *)it->ai_addr)->in6.sin6_port
                                                     : ((union address *)(void *)it->ai_addr)->in.sin_port);
        int fd = listen_on(it, port ? port : wanted);
        if (fd >= 0)
            port = port_of(l->fds[l->n_fds++] = fd);
        else
            bad = errno != EADDRNOTAVAIL && errno != EAFNOSUPPORT;
    }
    cox_free(name);
    if (found)
        freeaddrinfo(found);
    return bad ? 0 : port;
}

/* ---- waiting for the first words ---- */

static void watch(struct rpc_listener *l, int op, int fd, void *what)
{
    struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP, .data.ptr = what };

    COX_ASSERT(epoll_ctl(l->epoll_fd, op, fd, &event) == 0);
}

/* Its descriptor goes elsewhere, or is closed. */
static void leave(struct rpc_listener *l, struct waiting *w, bool shut)
{
    cox_list_remove(&w->node);
    l->n_waiting--;
    if (shut)
        close(w->fd);
    cox_free(w);
}

static bool settled(struct rpc_listener *l, int fd)
{
    const struct peer *p = &l->peers[fd]; /* nobody else writes it */

    return !l->tls || !p->second || atomic_load(&l->loop->n_settled) - p->since >= SETTLED_TWICE;
}

static void hand_over(struct rpc_listener *l, int fd)
{
    pthread_mutex_lock(&l->mutex);
    l->peers[fd].known = true;
    pthread_mutex_unlock(&l->mutex);
    set_option(fd, SOL_SOCKET, SO_RCVLOWAT, 1);
    rpc_guard_watch(fd, &l->peers[fd].address.whole);
    grpc_server_add_channel_from_fd(l->server, fd, l->credentials);
}

/* A loop without work waits for the very call that would be refused, so it is woken; one that is never
 * without waiting calls has its time, and then refuses (rpc_listener_certificate). */
static void settle(struct rpc_listener *l, int64_t now_ns)
{
    bool wake = false;

    COX_LIST_FOR_EACH (it, &l->settling) {
        struct waiting *w = COX_CONTAINER_OF(it, struct waiting, node);

        if (!settled(l, w->fd) && w->until_ns > now_ns) {
            wake = true;
            continue;
        }
        cox_list_remove(it);
        hand_over(l, w->fd);
        cox_free(w);
    }
    if (wake)
        cox_rpc_loop_wake(l->loop);
}

/* Who has hung up is not handed over, whatever it had said: in a storm of clients that give up and dial again
 * the library would be busy with those who have left. */
static void on_words(struct rpc_listener *l, struct waiting *w, bool left)
{
    char preface[PREFACE_LEN];
    int fd = w->fd;
    bool speaks = !left && recv(fd, preface, sizeof(preface), MSG_PEEK) == (ssize_t)sizeof(preface);

    if (speaks)
        watch(l, EPOLL_CTL_DEL, fd, NULL);
    if (!speaks || settled(l, fd)) {
        leave(l, w, !speaks); /* it has left, or hung up half way */
        if (speaks)
            hand_over(l, fd);
        return;
    }
    cox_list_remove(&w->node);
    l->n_waiting--;
    w->until_ns = cox_clock_mono_ns() + SETTLING_NS;
    cox_list_push_back(&l->settling, &w->node);
    cox_rpc_loop_wake(l->loop);
}

static void listen_to(struct rpc_listener *l, struct waiting *w, int64_t now_ns)
{
    w->until_ns = now_ns + PREFACE_NS;
    cox_list_push_back(&l->waiting, &w->node);
    l->n_waiting++;
    watch(l, EPOLL_CTL_ADD, w->fd, w);
}

static bool has_left(int fd)
{
    struct pollfd poll_fd = { .fd = fd, .events = POLLRDHUP };

    return poll(&poll_fd, 1, 0) == 1;
}

/* The next offender whose turn it is; those who have left meanwhile have none. */
static void let_speak(struct rpc_listener *l, int64_t now_ns)
{
    while (!cox_list_empty(&l->slow) && l->slow_ns <= now_ns) {
        struct waiting *w = COX_CONTAINER_OF(l->slow.next, struct waiting, node);
        cox_list_remove(&w->node);
        l->n_slow--;
        if (has_left(w->fd)) {
            close(w->fd);
            cox_free(w);
            continue;
        }
        l->slow_ns = now_ns + SLOWLY_NS;
        listen_to(l, w, now_ns);
    }
}

static void expire(struct rpc_listener *l, int64_t now_ns)
{
    while (!cox_list_empty(&l->waiting)) {
        struct waiting *w = COX_CONTAINER_OF(l->waiting.next, struct waiting, node);
        if (w->until_ns > now_ns)
            return;
        leave(l, w, true);
    }
}

/* ---- accepting ---- */

static void pause_accepting(struct rpc_listener *l, bool pause)
{
    for (size_t i = 0; i < l->n_fds; i++)
        watch(l, pause ? EPOLL_CTL_DEL : EPOLL_CTL_ADD, l->fds[i], &l->fds[i]);
    l->paused_until_ns = pause ? cox_clock_mono_ns() + PAUSE_NS : 0;
}

static void warn_scarce(struct rpc_listener *l, const char *why)
{
    int64_t now_ns = cox_clock_mono_ns();

    if (l->warned_ns && now_ns - l->warned_ns < WARN_NS)
        return;
    l->warned_ns = now_ns;
    cox_log(COX_LOG_WARN, "refusing gRPC connections", "why", why, "waiting", COX_LOG_NUM(l->n_waiting),
            NULL);
}

static size_t waiting_max(const struct rpc_listener *l)
{
    return (size_t)(l->fd_end / (l->tls ? TLS_FDS : 1)) / WAITING_SHARE;
}

/* In a row, far apart: each of their connections may cost as much as the one that was ended. */
static void admit_slowly(struct rpc_listener *l, struct waiting *w)
{
    if (l->n_slow == SLOW_MAX) {
        close(w->fd);
        cox_free(w);
        return;
    }
    cox_list_push_back(&l->slow, &w->node);
    l->n_slow++;
}

static void admit(struct rpc_listener *l, int fd, const union address *peer)
{
    struct waiting *w = COX_NEW(struct waiting);
    int64_t now_ns = cox_clock_mono_ns();

    pthread_mutex_lock(&l->mutex);
    l->peers[fd] = (struct peer){ .address = *peer,
                                  .known = l->peers[fd].known || COX_PLANTED("silent-owners"),
                                  .second = l->peers[fd].known,
                                  .since = atomic_load(&l->loop->n_settled) };
    pthread_mutex_unlock(&l->mutex);
    w->fd = fd;
    set_option(fd, SOL_SOCKET, SO_RCVLOWAT, PREFACE_LEN);
    if (rpc_guard_offends(&peer->whole)) {
        admit_slowly(l, w);
        return;
    }
    listen_to(l, w, now_ns);
    if (l->n_waiting > waiting_max(l))
        leave(l, COX_CONTAINER_OF(l->waiting.next, struct waiting, node), true);
}

/* False when there is nobody else. */
static bool accept_one(struct rpc_listener *l, int listener)
{
    union address peer = { .any.sa_family = AF_UNSPEC };
    socklen_t len = sizeof(peer);
    int fd = accept4(listener, &peer.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0 && l->tls)
        fd = cox_tls_terminate(l->tls, fd, COX_TLS_GRPC);
    if (fd >= 0 && fd < l->fd_end) {
        admit(l, fd, &peer);
        return true;
    }
    if (fd >= 0) {
        close(fd);
        warn_scarce(l, "descriptors are scarce");
        if (!cox_list_empty(&l->waiting)) /* the next one may have the number of who waits longest */
            leave(l, COX_CONTAINER_OF(l->waiting.next, struct waiting, node), true);
        return true;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return false;
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        warn_scarce(l, strerror(errno));
        pause_accepting(l, true);
        if (COX_PLANTED("deaf-after-emfile"))
            l->paused_until_ns = INT64_MAX;
        return false;
    }
    return true; /* that one is gone */
}

static int wait_ms(const struct rpc_listener *l, int64_t now_ns)
{
    int64_t until_ns = INT64_MAX;

    if (!cox_list_empty(&l->waiting))
        until_ns = COX_CONTAINER_OF(l->waiting.next, struct waiting, node)->until_ns;
    if (!cox_list_empty(&l->slow) && l->slow_ns < until_ns)
        until_ns = l->slow_ns;
    if (l->paused_until_ns && l->paused_until_ns < until_ns)
        until_ns = l->paused_until_ns;
    if (!cox_list_empty(&l->settling))
        return SETTLING_MS;
    if (until_ns == INT64_MAX)
        return -1;
    return until_ns <= now_ns ? 0 : (int)((until_ns - now_ns) / 1000000) + 1;
}

static int *listener_of(struct rpc_listener *l, void *what)
{
    for (size_t i = 0; i < l->n_fds; i++)
        if (what == &l->fds[i])
            return &l->fds[i];
    return NULL;
}

static void *run(void *arg)
{
    struct rpc_listener *l = arg;

    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        int n = epoll_wait(l->epoll_fd, events, EVENTS_MAX, wait_ms(l, cox_clock_mono_ns()));

        /* Who waits is looked at before anybody is let in or given up: an event names nobody who has left. */
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &l->stop_fd)
                return NULL;
            if (!listener_of(l, events[i].data.ptr))
                on_words(l, events[i].data.ptr, (events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
        }
        for (int i = 0; i < n; i++) {
            const int *fd = listener_of(l, events[i].data.ptr);
            for (int k = 0; fd && k < EVENTS_MAX && !l->paused_until_ns && accept_one(l, *fd); k++) {
            }
        }
        settle(l, cox_clock_mono_ns());
        let_speak(l, cox_clock_mono_ns());
        expire(l, cox_clock_mono_ns());
        if (l->paused_until_ns && cox_clock_mono_ns() >= l->paused_until_ns)
            pause_accepting(l, false);
    }
}

/* ---- life ---- */

static int fd_end(void)
{
    struct rlimit limit;
    rlim_t n = FDS_MAX;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < n)
        n = limit.rlim_cur;
    return (int)(n > 2 * FDS_KEPT ? n - FDS_KEPT : n / 2);
}

struct rpc_listener *rpc_listener_create(struct cox_rpc_loop *loop, const char *address, struct cox_tls *tls,
                                         int *ret_port)
{
    struct rpc_listener *l = COX_NEW(struct rpc_listener);

    l->loop = loop;
    l->tls = tls;
    cox_list_init(&l->waiting);
    cox_list_init(&l->slow);
    cox_list_init(&l->settling);
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    COX_ASSERT(l->epoll_fd >= 0 && l->stop_fd >= 0);
    pthread_mutex_init(&l->mutex, NULL);
    l->fd_end = fd_end();
    l->peers = cox_calloc((size_t)l->fd_end, sizeof(*l->peers));
    *ret_port = listen_all(l, address);
    if (*ret_port != 0)
        return l;
    rpc_listener_destroy(l);
    return NULL;
}

void rpc_listener_start(struct rpc_listener *l, grpc_server *server)
{
    sigset_t all, before;

    l->server = server;
    l->credentials = grpc_insecure_server_credentials_create();
    watch(l, EPOLL_CTL_ADD, l->stop_fd, &l->stop_fd);
    pause_accepting(l, false);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    COX_ASSERT(pthread_create(&l->thread, NULL, run, l) == 0);
    (void)pthread_setname_np(l->thread, "cox-accept"); /* shown by ps and perf */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void drop_all(struct cox_list *list)
{
    COX_LIST_FOR_EACH (it, list) {
        struct waiting *w = COX_CONTAINER_OF(it, struct waiting, node);
        cox_list_remove(it);
        close(w->fd);
        cox_free(w);
    }
}

void rpc_listener_stop(struct rpc_listener *l)
{
    const uint64_t one = 1;

    if (!l->server)
        return;
    COX_ASSERT(write(l->stop_fd, &one, sizeof(one)) == (ssize_t)sizeof(one));
    pthread_join(l->thread, NULL);
    l->server = NULL;
    drop_all(&l->slow);
    drop_all(&l->settling);
    expire(l, INT64_MAX);
    for (size_t i = 0; i < l->n_fds; i++)
        close(l->fds[i]);
    l->n_fds = 0;
}

void rpc_listener_destroy(struct rpc_listener *l)
{
    if (!l)
        return;
    rpc_listener_stop(l);
    for (size_t i = 0; i < l->n_fds; i++)
        close(l->fds[i]);
    if (l->credentials)
        grpc_server_credentials_release(l->credentials);
    close(l->epoll_fd);
    close(l->stop_fd);
    pthread_mutex_destroy(&l->mutex);
    cox_free(l->peers);
    cox_free(l);
}

/* The descriptor in what the library calls a peer; -1: it is none of ours. */
static int fd_of(const struct rpc_listener *l, const char *library_name)
{
    int fd;

    return sscanf(library_name, "fd:%d", &fd) == 1 && fd >= 0 && fd < l->fd_end ? fd : -1;
}

/* The library names a call by its connection's descriptor alone, and does not promise to keep that open until
 * we have seen the call. 1.51 does keep it; another that did not would give us calls of whoever has the
 * descriptor now, and of one who had it before. The latter's are all there once no call has been waiting
 * anywhere since. (Twice: what is counted has no lock around it.)
 */
struct cox_tls_certificate *rpc_listener_certificate(struct rpc_listener *l, const char *library_name,
                                                     bool *ret_unsure)
{
    int fd = fd_of(l, library_name);

    *ret_unsure = fd < 0;
    if (fd < 0)
        return NULL;
    pthread_mutex_lock(&l->mutex);
    const struct peer *p = &l->peers[fd];

    *ret_unsure = p->second && atomic_load(&l->loop->n_settled) - p->since < SETTLED_TWICE &&
                  !COX_PLANTED("second-owner-believed");
    pthread_mutex_unlock(&l->mutex);
    return *ret_unsure ? NULL : cox_tls_peer(l->tls, fd);
}

char *rpc_listener_peer(struct rpc_listener *l, const char *library_name)
{
    char host[INET6_ADDRSTRLEN] = "";
    union address peer;
    int fd = fd_of(l, library_name);

    if (fd < 0)
        return cox_strdup(library_name);
    pthread_mutex_lock(&l->mutex);
    peer = l->peers[fd].address;
    pthread_mutex_unlock(&l->mutex);
    if (peer.any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&peer.in6.sin6_addr)) { /* [::] takes both */
        inet_ntop(AF_INET, &peer.in6.sin6_addr.s6_addr[12], host, sizeof(host));
        return cox_asprintf("ipv4:%s:%d", host, ntohs(peer.in6.sin6_port));
    }
    if (peer.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &peer.in6.sin6_addr, host, sizeof(host));
        return cox_asprintf("ipv6:[%s]:%d", host, ntohs(peer.in6.sin6_port));
    }
    inet_ntop(AF_INET, &peer.in.sin_addr, host, sizeof(host));
    return cox_asprintf("ipv4:%s:%d", host, ntohs(peer.in.sin_port));
}
