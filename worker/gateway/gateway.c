/* Keys, and where they are shown. */
#include "internal.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/base/log.h"
#include "cox/base/plant.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 16
#define PAUSE_MS 100

/* ---------------------------------------------------------------- listeners */

static void on_accept(evutil_socket_t listening, short what, void *arg)
{
    struct listener *l = arg;
    int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)what;
    if (fd >= 0) {
        connection_open(l, fd);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
        event_del(l->event);
        event_add(l->pause, &(struct timeval){ .tv_usec = PAUSE_MS * 1000 });
    }
}

static void on_pause(evutil_socket_t fd, short what, void *arg)
{
    struct listener *l = arg;

    (void)fd, (void)what;
    event_add(l->event, NULL);
}

/* Takes over the listening socket, which does not block. */
static struct listener *listener_create(struct gateway *g, struct gateway_attempt *attempt, int fd)
{
    struct listener *l = COX_NEW(struct listener);

    *l = (struct listener){ .gateway = g, .attempt = attempt, .fd = fd };
    cox_list_init(&l->strangers);
    l->event = event_new(g->base, fd, EV_READ | EV_PERSIST, on_accept, l);
    l->pause = evtimer_new(g->base, on_pause, l);
    event_add(l->event, NULL);
    return l;
}

static void listener_destroy(struct listener *l)
{
    if (!l)
        return;
    connections_close(&l->strangers);
    event_free(l->event);
    event_free(l->pause);
    close(l->fd);
    cox_free(l);
}

static struct listener *listen_on_host(struct gateway *g)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct listener *l;

    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &len) != 0) {
        cox_log(COX_LOG_WARN, "steps without a sandbox cannot ask for blobs: no port of the loopback", "why",
                strerror(errno), NULL);
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    l = listener_create(g, NULL, fd);
    l->port = ntohs(at.sin_port);
    return l;
}

/* ---------------------------------------------------------------- a sandbox's listener */

static void close_channel(struct gateway_attempt *a)
{
    if (a->channel_event)
        event_free(a->channel_event);
    if (a->channel >= 0)
        close(a->channel);
    a->channel_event = NULL;
    a->channel = -1;
}

static void on_channel(evutil_socket_t channel, short what, void *arg)
{
    struct gateway_attempt *a = arg;
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec byte = { .iov_base = a->gateway->buf, .iov_len = 1 };
    struct msghdr message = {
        .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    ssize_t n = recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    int fd;

    (void)what;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(fd))) {
        memcpy(&fd, CMSG_DATA(c), sizeof(fd));
        a->own = listener_create(a->gateway, a, fd);
    }
    close_channel(a); /* also when there is no sandbox: what became of it is told elsewhere */
}

void gateway_listen(struct gateway_attempt *a, int channel)
{
    listener_destroy(a->own);
    a->own = NULL;
    close_channel(a);
    a->confined = true;
    a->channel = channel;
    a->channel_event = event_new(a->gateway->base, channel, EV_READ | EV_PERSIST, on_channel, a);
    event_add(a->channel_event, NULL);
}

static bool put_url(const struct gateway_attempt *a, bool own_network, const char *path,
                    char ret[GATEWAY_URL_MAX])
{
    const struct listener *host = a->gateway->host;

    if (!own_network && !host)
        return false;
    snprintf(ret, GATEWAY_URL_MAX, "http://127.0.0.1:%u%s", own_network ? GATEWAY_PORT : host->port, path);
    return true;
}

bool gateway_url(const struct gateway_attempt *a, bool own_network, char ret[GATEWAY_URL_MAX])
{
    return put_url(a, own_network, "/blobs", ret);
}

bool gateway_models_url(const struct gateway_attempt *a, bool own_network, char ret[GATEWAY_URL_MAX])
{
    struct models *models = a->gateway->models;

    return models && models_served(models) && put_url(a, own_network, "/v1", ret);
}

/* ---------------------------------------------------------------- keys */

/* Every key is looked at, to its end: how long it takes says only how many there are. */
struct gateway_attempt *gateway_find(const struct listener *at, struct cox_slice key)
{
    struct gateway_attempt *found = NULL;

    COX_LIST_FOR_EACH (it, &at->gateway->attempts) {
        struct gateway_attempt *a = COX_CONTAINER_OF(it, struct gateway_attempt, link);
        bool is_key = key.len == sizeof(a->key) - 1 &&
                      (CRYPTO_memcmp(a->key, key.data, key.len) == 0 || COX_PLANTED("gateway-key-unread"));

        if (is_key &&
            (at->attempt == a || (!at->attempt && !a->confined) || COX_PLANTED("gateway-key-anywhere")))
            found = a;
    }
    return found;
}

struct gateway_attempt *gateway_admit(struct gateway *g, const struct cox_agent_assign *assign)
{
    struct gateway_attempt *a = COX_NEW(struct gateway_attempt);
    uint8_t random[KEY_RANDOM_LEN];
    char *at = a->key + sizeof(KEY_PREFIX) - 1;

    COX_ASSERT(RAND_bytes(random, sizeof(random)) == 1);
    memcpy(a->key, KEY_PREFIX, sizeof(KEY_PREFIX));
    for (size_t i = 0; i < sizeof(random); i++)
        snprintf(at + 2 * i, 3, "%02x", random[i]);
    explicit_bzero(random, sizeof(random));
    a->gateway = g;
    a->ref = assign->ref;
    cache_tenant(a->tenant, assign->tenant);
    a->disk_len_max = assign->resources.disk_bytes > 0 ? (uint64_t)assign->resources.disk_bytes : 0;
    a->channel = -1;
    cox_list_init(&a->connections);
    cox_list_init(&a->link);
    cox_list_push_back(&g->attempts, &a->link);
    return a;
}

const char *gateway_key(const struct gateway_attempt *a)
{
    return a->key;
}

void gateway_offer(struct gateway_attempt *a, const char *const *blobs, struct redactor *redactor)
{
    a->blobs = blobs;
    a->redactor = redactor;
}

void gateway_revoke(struct gateway_attempt *a)
{
    if (a->revoked || COX_PLANTED("gateway-key-lives-on"))
        return;
    a->revoked = true;
    cox_list_remove(&a->link);
    connections_close(&a->connections);
    listener_destroy(a->own);
    a->own = NULL;
    close_channel(a);
    explicit_bzero(a->key, sizeof(a->key));
}

size_t gateway_stored(const struct gateway_attempt *a, const struct cox_hash **ret)
{
    *ret = a->stored;
    return a->n_stored;
}

void gateway_attempt_free(struct gateway_attempt *a)
{
    if (!a)
        return;
    gateway_revoke(a);
    cox_free(a->stored);
    cox_free(a);
}

/* ---------------------------------------------------------------- life */

struct gateway *gateway_create(struct event_base *base, struct courier *courier, struct models *models,
                               const char *spool_dir)
{
    struct gateway *g = COX_NEW(struct gateway);

    g->base = base;
    g->courier = courier;
    g->models = models;
    g->spool_dir = spool_dir;
    cox_list_init(&g->attempts);
    g->host = listen_on_host(g);
    return g;
}

void gateway_destroy(struct gateway *g)
{
    if (!g)
        return;
    listener_destroy(g->host);
    cox_free(g);
}
