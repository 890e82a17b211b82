/* The bytes of connections that have been let in, both ways, on one thread.
 *
 * What one side says is read only while the other has taken what was read before, so a slow reader holds its
 * peer as a wire would, and a connection keeps at most COX_TLS_RELAY_LEN each way. An idle one keeps nothing
 * but what OpenSSL needs: its buffers come and go.
 *
 * The end of one side is passed on once what it had said is taken; the other may go on. When the reader of
 * plain words has left, nobody but us counts the connection any more: so a client that does not take the rest
 * is cut after COX_TLS_LEAVING_MS, and one that takes it in crumbs after COX_TLS_LEAVING_ALL_MS. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <errno.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX 128
#define FIRST_LEN 24 /* what HTTP/2 begins with: its reader looks at it as a whole */
#define STOP_NS (1000 * INT64_C(1000000))

struct tls_relay {
    struct cox_tls *tls;
    int epoll_fd, wake_fd;
    pthread_t thread;
    pthread_mutex_t mutex; /* of the next two */
    struct cox_list arriving;
    bool stopping;

    struct cox_list live, dead; /* all of them, by `node` */
    struct cox_list leaving;    /* by `due`, who has taken something last at the end */
    struct cox_list more;       /* by `due`: had more to say than a turn may take */
    uint8_t scratch[COX_TLS_RELAY_LEN];
};

static void drop(struct tls_relay *r, struct tls_conn *c)
{
    if (c->dead)
        return;
    c->dead = true;
    tls_unwatch(r->epoll_fd, c);
    cox_list_remove(&c->due);
    cox_list_remove(&c->node);
    cox_list_push_back(&r->dead, &c->node);
}

/* ---- pieces ---- */

static bool waits(const struct tls_piece *p)
{
    return p->len > p->at;
}

static void keep(struct tls_piece *p, const uint8_t *data, size_t len)
{
    p->data = cox_alloc(len);
    p->at = 0;
    p->len = len;
    memcpy(p->data, data, len);
}

static void taken(struct tls_piece *p, size_t len)
{
    p->at += len;
    if (waits(p))
        return;
    cox_free(p->data);
    *p = (struct tls_piece){ 0 };
}

/* What was taken of it; what was not is kept. False when the other side is gone. */
static bool put_plain(struct tls_conn *c, const uint8_t *data, size_t len)
{
    ssize_t n = send(c->plain, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        return false;
    if (n < 0)
        n = 0;
    if ((size_t)n < len)
        keep(&c->to_plain, data + n, len - (size_t)n);
    return true;
}

/* One record after the other, until the client takes no more. */
static ssize_t write_net(struct tls_conn *c, const uint8_t *data, size_t len)
{
    size_t at = 0;

    while (at < len) {
        size_t n;

        ERR_clear_error();
        int ok = SSL_write_ex(c->ssl, data + at, len - at, &n);
        if (ok == 1) {
            at += n;
            continue;
        }
        int why = SSL_get_error(c->ssl, ok);
        if (why != SSL_ERROR_WANT_WRITE && why != SSL_ERROR_WANT_READ)
            return -1;
        break;
    }
    return (ssize_t)at;
}

/* ---- from the client to the reader ---- */

/* Reads what is there, up to the scratch's length. False when the connection is to be cut. */
static bool read_net(struct tls_relay *r, struct tls_conn *c, size_t *ret_len, bool *ret_more)
{
    size_t len = 0, n;

    *ret_more = true;
    while (len < sizeof(r->scratch)) {
        ERR_clear_error();
        int ok = SSL_read_ex(c->ssl, r->scratch + len, sizeof(r->scratch) - len, &n);
        if (ok == 1) {
            len += n;
            *ret_more = SSL_has_pending(c->ssl) == 1;
            if (!*ret_more)
                break; /* the kernel will say when there is more */
            continue;
        }
        *ret_more = false;
        int why = SSL_get_error(c->ssl, ok);
        if (why == SSL_ERROR_ZERO_RETURN)
            c->net_over = true;
        else if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
            return false;
        break;
    }
    *ret_len = len;
    return true;
}

static bool flush_plain(struct tls_conn *c)
{
    if (waits(&c->to_plain)) {
        struct tls_piece piece = c->to_plain;
        ssize_t n = send(c->plain, piece.data + piece.at, piece.len - piece.at, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            return false;
        taken(&c->to_plain, n < 0 ? 0 : (size_t)n);
    }
    if (c->net_over && !waits(&c->to_plain) && !c->told_over) {
        c->told_over = true;
        shutdown(c->plain, SHUT_WR);
    }
    return true;
}

static bool take_net(struct tls_relay *r, struct tls_conn *c)
{
    size_t len = 0;
    bool more = false;

    if (!flush_plain(c))
        return false;
    if (waits(&c->to_plain) || c->net_over)
        return true;
    if (!read_net(r, c, &len, &more))
        return false;
    if (len > 0 && !c->begun && c->kind == COX_TLS_GRPC && len < FIRST_LEN)
        return false; /* who sends its first words in crumbs is no client of gRPC */
    c->begun |= len > 0;
    if (c->plain_over || c->plain_gone) /* nobody listens any more; what still comes is read over */
        len = 0;
    if (len > 0 && !put_plain(c, r->scratch, len))
        return false;
    if (more && !waits(&c->to_plain) && cox_list_empty(&c->due))
        cox_list_push_back(&r->more, &c->due);
    return flush_plain(c);
}

/* ---- from the reader to the client ---- */

/* Its reader has left, or what it had said has been taken a little further since. The list's order is that of
 * the ends but for those near the last of all, who may go LEAVING_MS late. */
static void leave(struct tls_relay *r, struct tls_conn *c)
{
    int64_t now_ns = cox_clock_mono_ns();

    if (!c->left_ns)
        c->left_ns = now_ns;
    c->until_ns = now_ns + COX_TLS_LEAVING_MS * INT64_C(1000000);
    if (c->until_ns > c->left_ns + COX_TLS_LEAVING_ALL_MS * INT64_C(1000000))
        c->until_ns = c->left_ns + COX_TLS_LEAVING_ALL_MS * INT64_C(1000000);
    cox_list_remove(&c->due);
    cox_list_push_back(&r->leaving, &c->due);
}

static bool flush_net(struct tls_relay *r, struct tls_conn *c)
{
    if (!waits(&c->to_net))
        return true;
    ssize_t n = write_net(c, c->to_net.data + c->to_net.at, c->to_net.len - c->to_net.at);

    if (n < 0)
        return false;
    taken(&c->to_net, (size_t)n);
    if (n > 0 && c->left_ns)
        leave(r, c);
    return true;
}

static bool take_plain(struct tls_relay *r, struct tls_conn *c)
{
    if (!flush_net(r, c))
        return false;
    if (!waits(&c->to_net) && !c->plain_over) {
        ssize_t n = recv(c->plain, r->scratch, sizeof(r->scratch), MSG_DONTWAIT);

        if (n > 0) {
            ssize_t sent = write_net(c, r->scratch, (size_t)n);
            if (sent < 0)
                return false;
            if (sent < n)
                keep(&c->to_net, r->scratch + sent, (size_t)(n - sent));
        } else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
            c->plain_over = true;
            leave(r, c);
        }
    }
    if (c->plain_over && tls_conn_is_cut(r->tls, c)) {
        struct linger reset = { 1, 0 };
        (void)setsockopt(c->net, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        return false;
    }
    if (c->plain_over && !waits(&c->to_net) && !(SSL_get_shutdown(c->ssl) & SSL_SENT_SHUTDOWN)) {
        ERR_clear_error();
        (void)SSL_shutdown(c->ssl); /* whether it is heard is the client's concern */
        shutdown(c->net, SHUT_WR);
    }
    return true;
}

/* ---- turns ---- */

static void mind(struct tls_relay *r, struct tls_conn *c)
{
    bool read_net_now = !waits(&c->to_plain) && !c->net_over;
    bool read_plain_now = !waits(&c->to_net) && !c->plain_over;

    if (c->plain_over && c->net_over && !waits(&c->to_net)) {
        drop(r, c);
        return;
    }
    tls_watch(r->epoll_fd, c, false,
              (read_net_now ? EPOLLIN : 0u) | (waits(&c->to_net) || SSL_want_write(c->ssl) ? EPOLLOUT : 0u));
    if (!c->plain_gone)
        tls_watch(r->epoll_fd, c, true,
                  (read_plain_now ? EPOLLIN : 0u) | (waits(&c->to_plain) ? EPOLLOUT : 0u));
}

/* All that its reader has left behind. */
static bool take_rest(struct tls_relay *r, struct tls_conn *c)
{
    do {
        if (!take_plain(r, c))
            return false;
    } while (!c->plain_over && !waits(&c->to_net));
    return true;
}

static void on_net(struct tls_relay *r, struct tls_conn *c, bool gone)
{
    /* The kernel goes on telling of what is reset, also who does not read it. */
    bool lost = gone && (c->net_over || waits(&c->to_plain));
    bool ok = !lost && take_net(r, c) && flush_net(r, c);

    if (ok && c->plain_gone)
        ok = take_rest(r, c);
    else if (ok && c->plain_over)
        ok = take_plain(r, c);
    if (ok)
        mind(r, c);
    else
        drop(r, c);
}

static void on_plain(struct tls_relay *r, struct tls_conn *c, bool gone)
{
    bool could_read = !waits(&c->to_plain);

    if (gone) { /* told without end otherwise */
        struct epoll_event none = { 0 };
        (void)epoll_ctl(r->epoll_fd, EPOLL_CTL_DEL, c->plain, &none);
        c->plain_gone = true;
        if (!COX_PLANTED("leaves-for-ever"))
            leave(r, c);
        taken(&c->to_plain, c->to_plain.len - c->to_plain.at);
    }
    if (!(gone ? take_rest(r, c) : take_plain(r, c)) || !flush_plain(c))
        drop(r, c);
    else if (!could_read && !waits(&c->to_plain))
        on_net(r, c, false); /* OpenSSL may hold words that the kernel does not tell of again */
    else
        mind(r, c);
}

static bool arrive(struct tls_relay *r)
{
    uint64_t n;

    (void)!read(r->wake_fd, &n, sizeof(n));
    for (;;) {
        struct tls_conn *c = NULL;

        pthread_mutex_lock(&r->mutex);
        bool stopping = r->stopping;
        if (!cox_list_empty(&r->arriving)) {
            c = COX_CONTAINER_OF(r->arriving.next, struct tls_conn, node);
            cox_list_remove(&c->node);
            cox_list_push_back(&r->live, &c->node);
        }
        pthread_mutex_unlock(&r->mutex);
        if (!c)
            return stopping;
        on_net(r, c, false); /* its first words may have come with the last of the handshake */
    }
}

static int wait_ms(const struct tls_relay *r, int64_t stop_ns)
{
    int64_t until_ns = stop_ns;

    if (!cox_list_empty(&r->more))
        return 0;
    if (!cox_list_empty(&r->leaving)) {
        const struct tls_conn *first = COX_CONTAINER_OF(r->leaving.next, struct tls_conn, due);
        if (first->until_ns < until_ns)
            until_ns = first->until_ns;
    }
    int64_t left_ns = until_ns == INT64_MAX ? 0 : until_ns - cox_clock_mono_ns();

    return until_ns == INT64_MAX ? -1 : left_ns <= 0 ? 0 : (int)(left_ns / 1000000) + 1;
}

static void sweep(struct tls_relay *r)
{
    int64_t now_ns = cox_list_empty(&r->leaving) ? 0 : cox_clock_mono_ns();
    struct cox_list turn;

    COX_LIST_FOR_EACH (it, &r->leaving) {
        struct tls_conn *c = COX_CONTAINER_OF(it, struct tls_conn, due);
        if (c->until_ns > now_ns)
            break;
        drop(r, c);
    }
    cox_list_init(&turn);
    while (!cox_list_empty(&r->more)) {
        struct cox_list *node = r->more.next;
        cox_list_remove(node);
        cox_list_push_back(&turn, node);
    }
    COX_LIST_FOR_EACH (it, &turn) {
        cox_list_remove(it);
        on_net(r, COX_CONTAINER_OF(it, struct tls_conn, due), false);
    }
    COX_LIST_FOR_EACH (it, &r->dead) {
        tls_conn_free(r->tls, COX_CONTAINER_OF(it, struct tls_conn, node));
    }
}

static void *run(void *arg)
{
    struct tls_relay *r = arg;
    struct epoll_event events[EVENTS_MAX];
    int64_t stop_ns = INT64_MAX;

    while (stop_ns == INT64_MAX || (!cox_list_empty(&r->live) && cox_clock_mono_ns() < stop_ns)) {
        int n = epoll_wait(r->epoll_fd, events, EVENTS_MAX, wait_ms(r, stop_ns));

        for (int i = 0; i < n; i++) {
            uintptr_t what = (uintptr_t)events[i].data.ptr;
            struct tls_conn *c = (struct tls_conn *)(what & ~TLS_PLAIN_BIT);
            bool gone = (events[i].events & (EPOLLHUP | EPOLLERR)) != 0;

            if (!c) {
                if (arrive(r) && stop_ns == INT64_MAX)
                    stop_ns = cox_clock_mono_ns() + STOP_NS;
            } else if (!c->dead) {
                if (what & TLS_PLAIN_BIT)
                    on_plain(r, c, gone);
                else
                    on_net(r, c, gone);
            }
        }
        sweep(r);
    }
    COX_LIST_FOR_EACH (it, &r->live) {
        tls_conn_free(r->tls, COX_CONTAINER_OF(it, struct tls_conn, node));
    }
    return NULL;
}

/* ---- life ---- */

static void wake(struct tls_relay *r)
{
    const uint64_t one = 1;

    (void)!write(r->wake_fd, &one, sizeof(one));
}

void tls_relay_take(struct tls_relay *r, struct tls_conn *c)
{
    pthread_mutex_lock(&r->mutex);
    bool first = cox_list_empty(&r->arriving);
    cox_list_push_back(&r->arriving, &c->node);
    pthread_mutex_unlock(&r->mutex);
    if (first)
        wake(r);
}

struct tls_relay *tls_relay_create(struct cox_tls *t)
{
    struct tls_relay *r = COX_NEW(struct tls_relay);
    struct epoll_event event = { .events = EPOLLIN };

    r->tls = t;
    pthread_mutex_init(&r->mutex, NULL);
    cox_list_init(&r->arriving);
    cox_list_init(&r->live);
    cox_list_init(&r->dead);
    cox_list_init(&r->leaving);
    cox_list_init(&r->more);
    r->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    COX_ASSERT(r->epoll_fd >= 0 && r->wake_fd >= 0);
    COX_ASSERT(epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, r->wake_fd, &event) == 0);
    tls_thread_start(&r->thread, "cox-tls", run, r);
    return r;
}

void tls_relay_destroy(struct tls_relay *r)
{
    pthread_mutex_lock(&r->mutex);
    r->stopping = true;
    pthread_mutex_unlock(&r->mutex);
    wake(r);
    pthread_join(r->thread, NULL);
    close(r->epoll_fd);
    close(r->wake_fd);
    pthread_mutex_destroy(&r->mutex);
    cox_free(r);
}
