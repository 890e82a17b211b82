#include "curl_loop.h"

#include "cox/base/err.h"

static void tell_done(struct curl_loop *l)
{
    CURLMsg *message;
    int n;

    while ((message = curl_multi_info_read(l->multi, &n)) != NULL) {
        CURLcode result = message->data.result;
        void *owner = NULL;

        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &owner);
        l->on_done(owner, result);
    }
}

static void on_socket_event(evutil_socket_t fd, short what, void *arg)
{
    struct curl_loop *l = arg;
    int flags = (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0);
    int running;

    curl_multi_socket_action(l->multi, fd, flags, &running);
    tell_done(l);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *socket_user)
{
    struct curl_loop *l = user;
    struct event *event = socket_user;
    short events = EV_PERSIST;

    (void)easy;
    if (event)
        event_free(event);
    event = NULL;
    if (what != CURL_POLL_REMOVE) {
        events |= what & CURL_POLL_IN ? EV_READ : 0;
        events |= what & CURL_POLL_OUT ? EV_WRITE : 0;
        event = event_new(l->base, fd, events, on_socket_event, l);
        event_add(event, NULL);
    }
    curl_multi_assign(l->multi, fd, event);
    return 0;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct curl_loop *l = arg;
    int running;

    (void)fd;
    (void)what;
    curl_multi_socket_action(l->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    tell_done(l);
}

static int on_timeout_wanted(CURLM *multi, long ms, void *user)
{
    struct curl_loop *l = user;
    const struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

    (void)multi;
    if (ms < 0)
        event_del(l->timer);
    else
        event_add(l->timer, &tv);
    return 0;
}

void curl_loop_init(struct curl_loop *l, struct event_base *base,
                    void (*on_done)(void *owner, CURLcode result))
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
    *l = (struct curl_loop){ .base = base, .multi = curl_multi_init(), .on_done = on_done };
    l->timer = evtimer_new(base, on_timer, l);
    COX_ASSERT(l->multi && l->timer);
    curl_multi_setopt(l->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(l->multi, CURLMOPT_SOCKETDATA, l);
    curl_multi_setopt(l->multi, CURLMOPT_TIMERFUNCTION, on_timeout_wanted);
    curl_multi_setopt(l->multi, CURLMOPT_TIMERDATA, l);
}

void curl_loop_fini(struct curl_loop *l)
{
    curl_multi_cleanup(l->multi);
    event_free(l->timer);
    curl_global_cleanup();
}
