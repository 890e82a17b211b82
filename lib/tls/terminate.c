/* Handshakes, on a thread of their own that gives way to the others: cryptography for strangers must not hold
 * up the engine nor those who are in.
 *
 * A connection costs two descriptors and some hundred bytes until it speaks. From then on its handshake holds
 * memory; of those there are COX_TLS_HANDSHAKES_MAX, and the oldest gives way: an honest client needs two
 * answers of ours, who holds on without a word is soon the oldest. All of it takes COX_TLS_HANDSHAKE_MS. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX 64
#define NICE 5 /* a quarter of a core that the engine wants too */
#define PAIR_LEN (128 << 10)
#define LATE_MAX 32u /* updates of keys and attempts to begin anew: nobody honest needs so many */
#define WARN_NS (10000 * INT64_C(1000000))
#define FDS_MAX (1u << 20)
#define NUMBERS_MAX (1 << 16)

/* Who the reader of a descriptor reads from: by its number, the last that had it. */
struct reader {
    uint64_t id;
    bool cut;
    struct cox_tls_certificate *certificate;
};

struct cox_tls {
    pthread_mutex_t mutex; /* of the next six */
    SSL_CTX *context;
    struct reader *readers;
    struct cox_list arriving;
    uint64_t last_id;
    bool stopping;
    int64_t expires_s;

    size_t n_readers;
    int epoll_fd, wake_fd;
    pthread_t thread;
    struct tls_relay *relay;
    struct cox_list silent, talking; /* the thread's, as the next; oldest first */
    struct cox_list let_in, dead;    /* since the last turn: events at hand may still name them */
    size_t n_talking;
    int64_t warned_ns;
    uint64_t n_unsaid;
    atomic_int next_number;
    atomic_ullong n_done, n_failed, n_given_up, n_open;
};

void tls_thread_start(pthread_t *ret, const char *name, void *(*run)(void *), void *arg)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    COX_ASSERT(pthread_create(ret, NULL, run, arg) == 0);
    (void)pthread_setname_np(*ret, name); /* shown by ps and perf */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* ---- a connection ---- */

void tls_watch(int epoll_fd, struct tls_conn *c, bool plain, uint32_t events)
{
    uint32_t *now = plain ? &c->plain_events : &c->net_events;
    struct epoll_event event = { .events = events,
                                 .data.ptr = (void *)((uintptr_t)c | (plain ? TLS_PLAIN_BIT : 0)) };

    if (*now == events)
        return;
    COX_ASSERT(epoll_ctl(epoll_fd, *now == UINT32_MAX ? EPOLL_CTL_ADD : EPOLL_CTL_MOD,
                         plain ? c->plain : c->net, &event) == 0);
    *now = events;
}

void tls_unwatch(int epoll_fd, struct tls_conn *c)
{
    struct epoll_event event = { 0 };

    (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->net, &event);
    (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->plain, &event);
    c->net_events = c->plain_events = UINT32_MAX;
}

void tls_conn_free(struct cox_tls *t, struct tls_conn *c)
{
    cox_list_remove(&c->node);
    cox_list_remove(&c->due);
    SSL_free(c->ssl);
    close(c->net);
    close(c->plain);
    cox_free(c->to_net.data);
    cox_free(c->to_plain.data);
    cox_free(c);
    atomic_fetch_sub(&t->n_open, 1);
}

static void set_option(int fd, int level, int name, int value)
{
    (void)setsockopt(fd, level, name, &value, sizeof(value)); /* all that we ask for are refinements */
}

static void wake(struct cox_tls *t)
{
    const uint64_t one = 1;

    (void)!write(t->wake_fd, &one, sizeof(one)); /* full: it is awake anyway */
}

/* gRPC calls a connection by its number, and the lowest that is free has just been somebody's: so numbers are
 * taken in turn. */
static int renumber(struct cox_tls *t, int fd)
{
    int end = t->n_readers / 2 < NUMBERS_MAX ? (int)t->n_readers / 2 : NUMBERS_MAX;
    int from = atomic_load(&t->next_number), number = fcntl(fd, F_DUPFD_CLOEXEC, from);

    if (number < 0)
        return fd; /* as good a number as there is */
    atomic_store(&t->next_number, number + 1 < end ? number + 1 : 0);
    if (number < end || number < fd) {
        close(fd);
        return number;
    }
    close(number);
    return fd;
}

int cox_tls_terminate(struct cox_tls *t, int fd, enum cox_tls_kind kind)
{
    int pair[2];
    int err = socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) ? errno : 0;

    if (!err && kind == COX_TLS_GRPC)
        pair[1] = renumber(t, pair[1]);
    if (!err && (size_t)pair[1] >= t->n_readers) {
        close(pair[0]);
        close(pair[1]);
        err = EMFILE;
    }
    if (err) {
        close(fd);
        errno = err;
        return -1;
    }
    struct tls_conn *c = COX_NEW(struct tls_conn);

    *c = (struct tls_conn){ .net = fd,
                            .plain = pair[0],
                            .reader = pair[1],
                            .kind = kind,
                            .until_ns = cox_clock_mono_ns() + COX_TLS_HANDSHAKE_MS * INT64_C(1000000),
                            .net_events = UINT32_MAX,
                            .plain_events = UINT32_MAX };
    cox_list_init(&c->due);
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    for (int i = 0; i < 2; i++)
        set_option(pair[i], SOL_SOCKET, SO_SNDBUF, PAIR_LEN);
    atomic_fetch_add(&t->n_open, 1);
    pthread_mutex_lock(&t->mutex);
    c->id = ++t->last_id;
    cox_free(t->readers[c->reader].certificate);
    t->readers[c->reader] = (struct reader){ .id = c->id };
    bool first = cox_list_empty(&t->arriving);
    cox_list_push_back(&t->arriving, &c->node);
    pthread_mutex_unlock(&t->mutex);
    if (first)
        wake(t);
    return pair[1];
}

struct cox_tls_certificate *cox_tls_peer(struct cox_tls *t, int plain_fd)
{
    struct cox_tls_certificate *copy = NULL;

    if (plain_fd < 0 || (size_t)plain_fd >= t->n_readers)
        return NULL;
    pthread_mutex_lock(&t->mutex);
    if (t->readers[plain_fd].certificate)
        copy = cox_tls_certificate_copy(t->readers[plain_fd].certificate);
    pthread_mutex_unlock(&t->mutex);
    return copy;
}

void cox_tls_cut(struct cox_tls *t, int plain_fd)
{
    if (plain_fd < 0 || (size_t)plain_fd >= t->n_readers)
        return;
    pthread_mutex_lock(&t->mutex);
    t->readers[plain_fd].cut = true;
    pthread_mutex_unlock(&t->mutex);
}

bool tls_conn_is_cut(struct cox_tls *t, const struct tls_conn *c)
{
    pthread_mutex_lock(&t->mutex);
    bool cut = t->readers[c->reader].id == c->id && t->readers[c->reader].cut;
    pthread_mutex_unlock(&t->mutex);
    return cut;
}

/* ---- handshakes ---- */

/* Freed once the events at hand have been looked at: they may name it again. */
static void drop(struct cox_tls *t, struct tls_conn *c)
{
    if (c->dead)
        return;
    c->dead = true;
    if (c->ssl)
        t->n_talking--;
    tls_unwatch(t->epoll_fd, c);
    cox_list_remove(&c->node);
    cox_list_push_back(&t->dead, &c->node);
}

static void give_up(struct cox_tls *t, struct tls_conn *c)
{
    atomic_fetch_add(&t->n_given_up, 1);
    drop(t, c);
}

/* One line for many: strangers decide how often this happens. */
static void refuse(struct cox_tls *t, struct tls_conn *c, const char *why)
{
    int64_t now_ns = cox_clock_mono_ns();

    atomic_fetch_add(&t->n_failed, 1);
    t->n_unsaid++;
    if (!t->warned_ns || now_ns - t->warned_ns >= WARN_NS) {
        struct sockaddr_storage peer = { .ss_family = AF_UNSPEC };
        socklen_t len = sizeof(peer);
        char host[48] = "";

        (void)getpeername(c->net, (struct sockaddr *)&peer, &len);
        (void)getnameinfo((struct sockaddr *)&peer, len, host, sizeof(host), NULL, 0, NI_NUMERICHOST);
        cox_log(COX_LOG_WARN, "refused TLS handshakes", "count", COX_LOG_NUM(t->n_unsaid), "last_peer", host,
                "port", c->kind == COX_TLS_GRPC ? "grpc" : "http", "why", why, NULL);
        t->warned_ns = now_ns;
        t->n_unsaid = 0;
    }
    drop(t, c);
}

/* Words of a handshake when it is over: updates of keys, and what would begin it anew. */
static void on_late_words(int is_write, int version, int type, const void *data, size_t len, SSL *ssl,
                          void *arg)
{
    struct tls_conn *c = SSL_get_app_data(ssl);

    (void)version, (void)data, (void)len, (void)arg;
    if (is_write || type != SSL3_RT_HANDSHAKE || !c->let_in)
        return;
    if (++c->n_late > LATE_MAX && !COX_PLANTED("endless-key-updates"))
        shutdown(c->net, SHUT_RDWR);
}

static bool begin(struct cox_tls *t, struct tls_conn *c)
{
    pthread_mutex_lock(&t->mutex);
    SSL_CTX *context = t->context;
    c->ssl = SSL_new(context);
    pthread_mutex_unlock(&t->mutex);
    if (!c->ssl || SSL_set_fd(c->ssl, c->net) != 1)
        return false;
    SSL_set_app_data(c->ssl, c);
    SSL_set_msg_callback(c->ssl, on_late_words);
    SSL_set_accept_state(c->ssl);
    if (sk_X509_NAME_num(SSL_get_client_CA_list(c->ssl)) > 0) {
        int must = c->kind == COX_TLS_GRPC && !COX_PLANTED("certificate-not-required")
                       ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT
                       : 0;
        SSL_set_verify(c->ssl, SSL_VERIFY_PEER | must, NULL);
    }
    t->n_talking++;
    cox_list_remove(&c->node);
    cox_list_push_back(&t->talking, &c->node);
    if (t->n_talking > COX_TLS_HANDSHAKES_MAX && !COX_PLANTED("endless-handshakes"))
        give_up(t, COX_CONTAINER_OF(t->talking.next, struct tls_conn, node));
    return !c->dead;
}

/* Says why not, or NULL. */
static const char *why_not(struct cox_tls *t, struct tls_conn *c)
{
    X509 *shown = SSL_get0_peer_certificate(c->ssl);
    const unsigned char *protocol;
    unsigned len;

    SSL_get0_alpn_selected(c->ssl, &protocol, &len);
    if (c->kind == COX_TLS_GRPC && len == 0 && !COX_PLANTED("any-alpn"))
        return "the client does not say that it speaks HTTP/2";
    if (!shown)
        return NULL;
    if (SSL_get_verify_result(c->ssl) != X509_V_OK)
        return "the client's certificate is not verified";
    struct cox_tls_certificate *certificate = tls_certificate_read(shown);

    if (!certificate)
        return "the client's certificate has a name that is no text";
    pthread_mutex_lock(&t->mutex);
    struct reader *reader = &t->readers[c->reader];

    /* Its reader may have left, and somebody else have got the number. */
    if (reader->id == c->id) {
        cox_free(reader->certificate);
        reader->certificate = certificate;
        certificate = NULL;
    }
    pthread_mutex_unlock(&t->mutex);
    cox_free(certificate);
    return NULL;
}

static void let_in(struct cox_tls *t, struct tls_conn *c)
{
    const char *why = why_not(t, c);

    if (why) {
        refuse(t, c, why);
        return;
    }
    atomic_fetch_add(&t->n_done, 1);
    t->n_talking--;
    tls_unwatch(t->epoll_fd, c);
    cox_list_remove(&c->node);
    c->let_in = c->dead = true;
    cox_list_push_back(&t->let_in, &c->node);
}

/* Who speaks plain HTTP to this port is told so in plain HTTP. */
static void on_failure(struct cox_tls *t, struct tls_conn *c)
{
    static const char told[] =
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
        "This port speaks TLS: say https instead of http.\n";
    unsigned long code = ERR_peek_last_error();
    long verified = SSL_get_verify_result(c->ssl);

    if (c->kind == COX_TLS_HTTP && ERR_GET_REASON(code) == SSL_R_HTTP_REQUEST)
        (void)!send(c->net, told, sizeof(told) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (code == 0)
        give_up(t, c); /* it hung up */
    else
        refuse(t, c,
               verified != X509_V_OK ? X509_verify_cert_error_string(verified)
                                     : ERR_reason_error_string(code));
    ERR_clear_error();
}

static void on_words(struct cox_tls *t, struct tls_conn *c)
{
    ERR_clear_error();
    if (!c->ssl && !begin(t, c)) {
        give_up(t, c);
        return;
    }
    int n = SSL_do_handshake(c->ssl);

    if (n == 1) {
        let_in(t, c);
        return;
    }
    switch (SSL_get_error(c->ssl, n)) {
    case SSL_ERROR_WANT_READ:
        tls_watch(t->epoll_fd, c, false, EPOLLIN);
        break;
    case SSL_ERROR_WANT_WRITE:
        tls_watch(t->epoll_fd, c, false, EPOLLOUT);
        break;
    default:
        on_failure(t, c);
    }
}

/* ---- the thread ---- */

static bool arrive(struct cox_tls *t)
{
    struct cox_list arrived;
    uint64_t n;

    (void)!read(t->wake_fd, &n, sizeof(n));
    cox_list_init(&arrived);
    pthread_mutex_lock(&t->mutex);
    while (!cox_list_empty(&t->arriving)) {
        struct cox_list *node = t->arriving.next;
        cox_list_remove(node);
        cox_list_push_back(&arrived, node);
    }
    bool stopping = t->stopping;
    pthread_mutex_unlock(&t->mutex);
    COX_LIST_FOR_EACH (it, &arrived) {
        struct tls_conn *c = COX_CONTAINER_OF(it, struct tls_conn, node);
        cox_list_remove(it);
        cox_list_push_back(&t->silent, it);
        tls_watch(t->epoll_fd, c, false, EPOLLIN);
        tls_watch(t->epoll_fd, c, true, 0); /* that its reader has left is always told */
    }
    return !stopping;
}

static struct tls_conn *oldest(const struct cox_tls *t)
{
    struct tls_conn *a =
        cox_list_empty(&t->silent) ? NULL : COX_CONTAINER_OF(t->silent.next, struct tls_conn, node);
    struct tls_conn *b =
        cox_list_empty(&t->talking) ? NULL : COX_CONTAINER_OF(t->talking.next, struct tls_conn, node);

    return !b || (a && a->until_ns < b->until_ns) ? a : b;
}

static int wait_ms(const struct cox_tls *t)
{
    const struct tls_conn *first = oldest(t);
    int64_t left_ns = first ? first->until_ns - cox_clock_mono_ns() : 0;

    return !first ? -1 : left_ns <= 0 ? 0 : (int)(left_ns / 1000000) + 1;
}

static void sweep(struct cox_tls *t, int64_t now_ns)
{
    for (struct tls_conn *c = oldest(t); c && c->until_ns <= now_ns; c = oldest(t))
        give_up(t, c);
    COX_LIST_FOR_EACH (it, &t->let_in) {
        struct tls_conn *c = COX_CONTAINER_OF(it, struct tls_conn, node);
        cox_list_remove(it);
        c->dead = false;
        tls_relay_take(t->relay, c);
    }
    COX_LIST_FOR_EACH (it, &t->dead) {
        tls_conn_free(t, COX_CONTAINER_OF(it, struct tls_conn, node));
    }
}

static void *run(void *arg)
{
    struct cox_tls *t = arg;
    struct epoll_event events[EVENTS_MAX];
    bool more = true;

    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICE); /* refused where it is not allowed to give way */
    while (more) {
        int n = epoll_wait(t->epoll_fd, events, EVENTS_MAX, wait_ms(t));

        for (int i = 0; i < n; i++) {
            uintptr_t what = (uintptr_t)events[i].data.ptr;
            struct tls_conn *c = (struct tls_conn *)(what & ~TLS_PLAIN_BIT);

            if (!c)
                more = arrive(t);
            else if (c->dead)
                continue;
            else if (what & TLS_PLAIN_BIT)
                give_up(t, c);
            else
                on_words(t, c);
        }
        sweep(t, cox_clock_mono_ns());
    }
    sweep(t, INT64_MAX);
    return NULL;
}

/* ---- life ---- */

static size_t fd_end(void)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < FDS_MAX ? (size_t)limit.rlim_cur
                                                                             : FDS_MAX;
}

enum cox_err cox_tls_create(const struct cox_tls_files *files, struct cox_tls **ret, struct cox_buf *error)
{
    SSL_CTX *context = tls_context_load(files, error);

    if (!context)
        return COX_ERR_INVALID;
    struct cox_tls *t = COX_NEW(struct cox_tls);
    struct epoll_event event = { .events = EPOLLIN };

    pthread_mutex_init(&t->mutex, NULL);
    t->context = context;
    t->expires_s = tls_context_expires_s(context);
    t->n_readers = fd_end();
    t->readers = cox_calloc(t->n_readers, sizeof(*t->readers));
    cox_list_init(&t->arriving);
    cox_list_init(&t->silent);
    cox_list_init(&t->talking);
    cox_list_init(&t->let_in);
    cox_list_init(&t->dead);
    t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    COX_ASSERT(t->epoll_fd >= 0 && t->wake_fd >= 0);
    COX_ASSERT(epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->wake_fd, &event) == 0);
    t->relay = tls_relay_create(t);
    tls_thread_start(&t->thread, "cox-handshake", run, t);
    *ret = t;
    return COX_OK;
}

void cox_tls_destroy(struct cox_tls *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->mutex);
    t->stopping = true;
    pthread_mutex_unlock(&t->mutex);
    wake(t);
    pthread_join(t->thread, NULL);
    tls_relay_destroy(t->relay);
    close(t->epoll_fd);
    close(t->wake_fd);
    for (size_t i = 0; i < t->n_readers; i++)
        cox_free(t->readers[i].certificate);
    cox_free(t->readers);
    SSL_CTX_free(t->context);
    pthread_mutex_destroy(&t->mutex);
    cox_free(t);
}

/* Connections hold the context that they began with. */
enum cox_err cox_tls_reload(struct cox_tls *t, const struct cox_tls_files *files, struct cox_buf *error)
{
    SSL_CTX *next = tls_context_load(files, error), *before;

    if (!next)
        return COX_ERR_INVALID;
    pthread_mutex_lock(&t->mutex);
    before = t->context;
    t->context = next;
    t->expires_s = tls_context_expires_s(next);
    pthread_mutex_unlock(&t->mutex);
    SSL_CTX_free(before);
    return COX_OK;
}

struct cox_tls_stats cox_tls_stats(struct cox_tls *t)
{
    struct cox_tls_stats stats = { .n_done = atomic_load(&t->n_done),
                                   .n_failed = atomic_load(&t->n_failed),
                                   .n_given_up = atomic_load(&t->n_given_up),
                                   .n_open = atomic_load(&t->n_open) };

    pthread_mutex_lock(&t->mutex);
    stats.expires_s = t->expires_s;
    pthread_mutex_unlock(&t->mutex);
    return stats;
}
