#include "guard.h"

#include "frames.h"
#include "offenders.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/network.h"
#include "cox/base/units.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FDS_MAX (1 << 20)

struct guarded {
    uint64_t cookie; /* of the socket: its number may be another's by now */
    struct sockaddr_storage peer;
    struct frames frames;
    bool ended;
    struct frames_walk sent; /* of who sends, as the rest is of who reads */
    atomic_bool answered;    /* something of an answer was sent since that was asked last */
};

/* By descriptor. One that is being read is not handed over anew, so what is here is freed only by the next of
 * its number. */
static struct guarded *_Atomic all[FDS_MAX];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of: */
static struct offenders offenders;

static uint64_t cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof(cookie);

    return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) == 0 ? cookie : 0;
}

void rpc_guard_watch(int fd, const struct sockaddr_storage *peer)
{
    struct guarded *g = COX_NEW(struct guarded);

    if (fd >= FDS_MAX) {
        cox_free(g);
        return;
    }
    g->cookie = cookie_of(fd);
    g->peer = *peer;
    cox_free(atomic_exchange(&all[fd], g));
}

bool rpc_guard_offends(const struct sockaddr_storage *peer)
{
    pthread_mutex_lock(&mutex);
    bool has = offenders_have(&offenders, cox_network_of((const struct sockaddr *)peer), cox_clock_mono_ns());
    pthread_mutex_unlock(&mutex);
    return has;
}

static void end(struct guarded *g, const char *why)
{
    char host[NI_MAXHOST] = "?";

    g->ended = true;
    uint64_t network = cox_network_of((const struct sockaddr *)&g->peer);

    pthread_mutex_lock(&mutex);
    bool again = offenders_have(&offenders, network, cox_clock_mono_ns());
    offenders_note(&offenders, network, cox_clock_mono_ns());
    pthread_mutex_unlock(&mutex);
    if (again)
        return; /* the log is not theirs to fill */
    (void)getnameinfo((const struct sockaddr *)&g->peer, sizeof(g->peer), host, sizeof(host), NULL, 0,
                      NI_NUMERICHOST);
    cox_log(COX_LOG_WARN, "ended a connection that asks for nothing", "peer", host, "too many", why, NULL);
}

/* False: its peer is to be heard no more. */
static bool judge(struct guarded *g, const struct msghdr *m, size_t len)
{
    int64_t now_ms = cox_clock_mono_ns() / 1000000;

    if (atomic_exchange_explicit(&g->answered, false, memory_order_relaxed))
        frames_answered(&g->frames);
    for (size_t i = 0; i < m->msg_iovlen && len > 0 && !g->ended; i++) {
        size_t n = len < m->msg_iov[i].iov_len ? len : m->msg_iov[i].iov_len;
        const char *wrong = frames_feed(&g->frames, cox_slice(m->msg_iov[i].iov_base, n), now_ms);

        if (wrong)
            end(g, wrong);
        len -= n;
    }
    return !g->ended;
}

static struct guarded *guarded(int fd)
{
    return fd >= 0 && fd < FDS_MAX ? atomic_load_explicit(&all[fd], memory_order_acquire) : NULL;
}

ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
    struct guarded *g = guarded(fd);
    ssize_t n = syscall(SYS_recvmsg, fd, m, flags);

    if (n <= 0 || !g || (flags & (MSG_PEEK | MSG_ERRQUEUE)) || g->cookie != cookie_of(fd) ||
        judge(g, m, (size_t)n))
        return n;
    errno = ECONNRESET;
    return -1;
}

/* The first `len` bytes, or less. */
static bool answers(struct frames_walk *sent, const struct msghdr *m, size_t len)
{
    bool found = false;

    for (size_t i = 0; i < m->msg_iovlen && len > 0; i++) {
        size_t n = len < m->msg_iov[i].iov_len ? len : m->msg_iov[i].iov_len;

        found |= frames_answer(sent, cox_slice(m->msg_iov[i].iov_base, n));
        len -= n;
    }
    return found;
}

/* Its peer may ping before we are back from the kernel: an answer is noted before it leaves. Whose number has
 * another socket by now is mistaken for the connection before, but nothing is judged by what that sends. */
ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    struct guarded *g = guarded(fd);

    if (!g)
        return syscall(SYS_sendmsg, fd, m, flags);
    struct frames_walk ahead = g->sent;

    if (answers(&ahead, m, SIZE_MAX))
        atomic_store_explicit(&g->answered, true, memory_order_relaxed);
    ssize_t n = syscall(SYS_sendmsg, fd, m, flags);

    if (n > 0)
        (void)answers(&g->sent, m, (size_t)n);
    return n;
}
