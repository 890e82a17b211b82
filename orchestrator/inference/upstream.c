/* What takes the time here is system calls and what curl does for a request, so both are kept few: easy
 * handles keep what is the same for a target, sockets stay in epoll between requests, and one timer serves
 * the deadlines of all calls.
 *
 * curl may not be called from its own callbacks: what callers want meanwhile waits for them to return. */
#include "upstream_call.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define CONNECTIONS_DEFAULT 16384u
#define SOCKETS_LEFT 1024u /* for all else that the process has open */
#define LANE_CALLS_MAX 128u
#define IDLE_HANDLES_MAX 512u              /* handles of no call that are kept, in all */
#define CONNECT_MS_MAX (1000L * 3600 * 24) /* what "none" means to curl, which has a default for 0 */

const char *upstream_end_text(enum upstream_end end)
{
    switch (end) {
    case UPSTREAM_OK:
        return "answered";
    case UPSTREAM_CONNECT:
        return "no connection";
    case UPSTREAM_BROKEN:
        return "connection broken";
    case UPSTREAM_CONNECT_TIMEOUT:
        return "no connection in time";
    case UPSTREAM_FIRST_TIMEOUT:
        return "no content in time";
    case UPSTREAM_STALL_TIMEOUT:
        return "stalled";
    case UPSTREAM_TOTAL_TIMEOUT:
        return "not whole in time";
    case UPSTREAM_PROTOCOL:
        return "not HTTP, or too large";
    }
    return "unknown";
}

static void want(struct upstream_call *c)
{
    struct upstream *u = c->u;

    cox_list_remove(&c->node);
    cox_list_push_back(&u->wanting, &c->node);
    event_active(u->soon, EV_TIMEOUT, 0);
}

/* ---- deadlines: one timer for all ------------------------------------------------------------------- */

static int64_t earlier(int64_t a, int64_t from_ns, int64_t ms)
{
    int64_t at;

    if (ms <= 0 || __builtin_mul_overflow(ms, 1000000, &at) || __builtin_add_overflow(at, from_ns, &at))
        return a;
    return at < a ? at : a;
}

/* When the first of its deadlines is, as things stand; INT64_MAX: none. */
static int64_t deadline_ns(const struct upstream_call *c, enum upstream_end *ret_end)
{
    int64_t total = earlier(INT64_MAX, c->start_ns, c->timeouts.total_ms), at = total;

    *ret_end = UPSTREAM_TOTAL_TIMEOUT;
    if (!c->content_begun)
        at = earlier(at, c->start_ns, c->timeouts.first_ms);
    else if (!c->paused || COX_PLANTED("upstream-stall-while-paused"))
        at = earlier(at, c->heard_ns, c->timeouts.stall_ms);
    if (at < total)
        *ret_end = c->content_begun ? UPSTREAM_STALL_TIMEOUT : UPSTREAM_FIRST_TIMEOUT;
    return at;
}

static void arm_expiry(struct upstream *u)
{
    struct cox_heap_node *first = cox_heap_min(&u->deadlines);
    uint64_t key = first ? first->key : UINT64_MAX;
    struct timeval in = { 0, 0 };
    int64_t now;

    if (key >= u->expiry_armed)
        return; /* it comes too early, looks, and is armed anew */
    now = cox_clock_mono_ns();
    if ((int64_t)key > now) {
        in.tv_sec = ((int64_t)key - now) / 1000000000;
        in.tv_usec = ((int64_t)key - now) % 1000000000 / 1000 + 1;
    }
    u->expiry_armed = key;
    event_add(u->expiry, &in);
}

/* Later deadlines wait for the heap to come to them: a piece that arrives moves nothing. */
static void watch_deadline(struct upstream_call *c)
{
    enum upstream_end end;
    int64_t at = deadline_ns(c, &end);

    if (at == INT64_MAX) {
        cox_heap_remove(&c->u->deadlines, &c->until);
    } else if (!cox_heap_has(&c->until) || (uint64_t)at < c->until.key) {
        cox_heap_set(&c->u->deadlines, &c->until, (uint64_t)at);
        arm_expiry(c->u);
    }
}

/* ---- handles ---------------------------------------------------------------------------------------- */

static struct lane *add_lane(struct upstream *u);

/* A lane that keeps a connection for one server more. */
static struct lane *lane_for_server(struct upstream *u)
{
    while (u->lane_with_seat < u->n_lanes) {
        struct lane *l = u->lanes[u->lane_with_seat];

        if (l->n_servers < l->kept_max)
            return l;
        u->lane_with_seat++;
    }
    return add_lane(u);
}

static void free_server(struct upstream *u, struct upstream_server *s)
{
    if (s->lane && s->lane->n_servers-- == s->lane->kept_max)
        u->lane_with_seat = 0;
    cox_list_remove(&s->node);
    cox_mapb_remove(&u->servers, cox_slice(s->key, s->key_len));
    cox_free(s->key);
    cox_free(s);
}

static struct upstream_server *add_server(struct upstream *u, const char *url, size_t len)
{
    struct upstream_server *s = COX_NEW(struct upstream_server);

    if (u->servers.len >= u->connections_max && !cox_list_empty(&u->quiet))
        free_server(u, COX_CONTAINER_OF(u->quiet.next, struct upstream_server, node));
    s->key = cox_strndup(url, len);
    s->key_len = len;
    cox_list_init(&s->node);
    if (u->servers.len < u->connections_max) {
        s->lane = lane_for_server(u);
        s->lane->n_servers++;
    }
    cox_mapb_set(&u->servers, cox_slice(s->key, len), s);
    return s;
}

static struct upstream_server *server_of(struct upstream *u, const char *url)
{
    const char *host = strstr(url, "://");
    size_t len = host ? (size_t)(host - url) + 3 + strcspn(host + 3, "/?#") : strlen(url);
    struct upstream_server *s = cox_mapb_get(&u->servers, cox_slice(url, len));

    if (!s)
        s = add_server(u, url, len);
    cox_list_remove(&s->node);
    s->n_routes++;
    return s;
}

static void leave_server(struct upstream *u, struct upstream_server *s)
{
    if (--s->n_routes > 0)
        return;
    if (s->lane)
        cox_list_push_back(&u->quiet, &s->node);
    else
        free_server(u, s);
}

static void free_route(struct upstream *u, struct route *r)
{
    leave_server(u, r->server);
    cox_mapb_remove(&u->routes, cox_slice(r->key, r->key_len));
    cox_free(r->authorization);
    cox_free(r->key);
    cox_free(r);
}

static void leave_route(struct upstream_call *c)
{
    cox_list_remove(&c->of_route);
    if (--c->route->n_calls == 0)
        free_route(c->u, c->route);
    c->route = NULL;
}

static void free_call(struct upstream_call *c)
{
    cox_list_remove(&c->node);
    leave_route(c);
    cox_heap_remove(&c->u->deadlines, &c->until);
    curl_easy_cleanup(c->easy);
    cox_free(c->own_headers);
    cox_buf_fini(&c->whole);
    cox_buf_fini(&c->head);
    cox_free(c);
}

/* Its work is over and curl has let go of it: kept for the next call to the same target. */
static void retire(struct upstream_call *c)
{
    struct upstream *u = c->u;

    c->phase = PHASE_IDLE;
    u->n_busy--;
    c->lane = NULL;
    cox_heap_remove(&u->deadlines, &c->until);
    if (c->whole.cap > ONE_PIECE_LEN_MAX)
        cox_buf_fini(&c->whole);
    cox_list_remove(&c->node);
    cox_list_push_back(&u->all_idle, &c->node);
    cox_list_push_front(&c->route->idle, &c->of_route);
    if (++u->n_idle > IDLE_HANDLES_MAX) {
        u->n_idle--;
        free_call(COX_CONTAINER_OF(u->all_idle.next, struct upstream_call, node));
    }
}

static void put_key(struct cox_buf *key, const struct upstream_target *t)
{
    const char *parts[] = { t->url, t->bearer, t->ca_file };

    for (size_t i = 0; i < 3; i++) {
        cox_buf_append_str(key, parts[i] ? parts[i] : "");
        cox_put_u8(key, 0);
    }
}

static struct route *route_of(struct upstream *u, const struct upstream_target *t)
{
    struct cox_buf key = { 0 };
    struct route *r;
    size_t n = 0;

    put_key(&key, t);
    r = cox_mapb_get(&u->routes, cox_buf_slice(&key));
    if (r) {
        cox_buf_fini(&key);
        return r;
    }
    r = COX_NEW(struct route);
    cox_list_init(&r->idle);
    r->server = server_of(u, t->url);
    r->key_len = key.len;
    r->key = (char *)key.data;
    r->headers[n++].data = (char *)"Content-Type: application/json";
    r->headers[n++].data = (char *)"Expect:";
    if (t->bearer) {
        r->authorization = cox_asprintf("Authorization: Bearer %s", t->bearer);
        r->headers[n++].data = r->authorization;
    }
    for (size_t i = 1; i < n; i++)
        r->headers[i - 1].next = &r->headers[i];
    cox_mapb_set(&u->routes, cox_slice(r->key, r->key_len), r);
    return r;
}

/* ---- ends ------------------------------------------------------------------------------------------- */

static enum upstream_end end_of(const struct upstream_call *c, CURLcode r)
{
    switch (r) {
    case CURLE_OK: /* curl is content with half a head */
        return c->head_told ? UPSTREAM_OK : UPSTREAM_BROKEN;
    case CURLE_OPERATION_TIMEDOUT:
        return UPSTREAM_CONNECT_TIMEOUT; /* the only timeout that curl knows of */
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_PARTIAL_FILE:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_SEND_FAIL_REWIND:
    case CURLE_AGAIN:
        return UPSTREAM_BROKEN;
    case CURLE_RECV_ERROR: /* curl has no code of its own for a broken coding */
        return strstr(c->error, "chunked-encoding") ? UPSTREAM_PROTOCOL : UPSTREAM_BROKEN;
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL: /* HTTP/0.9 */
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_WRITE_ERROR:
    case CURLE_OUT_OF_MEMORY: /* how curl says that a header is too long for it */
        return UPSTREAM_PROTOCOL;
    default:
        return c->head_len > 0 ? UPSTREAM_PROTOCOL : UPSTREAM_CONNECT;
    }
}

static void drop(struct upstream_call *c)
{
    curl_multi_remove_handle(c->lane->multi, c->easy);
    c->lane->n_calls--;
    retire(c);
}

static void finish(struct upstream_call *c, enum upstream_end end, const char *message)
{
    const struct upstream_events *events = c->events;
    void *user = c->user;
    char words[CURL_ERROR_SIZE];

    (void)snprintf(words, sizeof(words), "%s", message);
    drop(c);
    events->on_end(user, end, words);
}

static void finish_by_curl(struct upstream_call *c, CURLcode r)
{
    enum upstream_end end = end_of(c, r);
    const char *words = c->refused ? c->refused : c->error[0] ? c->error : curl_easy_strerror(r);

    if (r == CURLE_OK)
        words = c->head_told ? "" : "the connection ended within the head of the response";
    finish(c, end, words);
}

static void take_ends(struct lane *l)
{
    CURLMsg *m;
    int left;

    while ((m = curl_multi_info_read(l->multi, &left)) != NULL) {
        struct upstream_call *c = NULL;
        CURLcode r = m->data.result;

        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &c);
        if (c->phase == PHASE_RUNS) /* else it is cancelled, and about to be dropped */
            finish_by_curl(c, r);
    }
}

/* Around all that makes curl work. */
static void enter(struct lane *l)
{
    COX_ASSERT(!l->u->in_curl);
    l->u->in_curl = true;
}

static void leave(struct lane *l)
{
    struct upstream *u = l->u;

    u->in_curl = false;
    take_ends(l);
    if (l->is_due || !cox_list_empty(&u->wanting))
        event_active(u->soon, EV_TIMEOUT, 0);
}

static void on_socket_ready(void *lane, int fd, int what)
{
    struct lane *l = lane;
    int running;

    enter(l);
    curl_multi_socket_action(l->multi, fd, what, &running);
    leave(l);
}

static void run_timers(struct lane *l)
{
    int running;

    l->is_due = false;
    enter(l);
    curl_multi_socket_action(l->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    leave(l);
}

/* ---- lanes ------------------------------------------------------------------------------------------ */

static void on_curls_timer(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    run_timers(user);
}

static int on_timer_wanted(CURLM *multi, long ms, void *user)
{
    struct lane *l = user;
    struct timeval in = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

    (void)multi;
    if (ms < 0) {
        l->is_due = false;
        event_del(l->timer);
    } else if (ms == 0) {
        l->is_due = true;
        if (!l->u->in_curl && !l->u->soon_runs)
            event_active(l->u->soon, EV_TIMEOUT, 0);
    } else {
        l->is_due = false;
        event_add(l->timer, &in);
    }
    return 0;
}

/* The connections of this one count against what may be kept open; the first lanes are the busiest. */
static uint32_t connections_of(const struct upstream *u, size_t n)
{
    size_t before = n * LANE_CALLS_MAX, left = u->connections_max > before ? u->connections_max - before : 1;

    return left < LANE_CALLS_MAX ? (uint32_t)left : LANE_CALLS_MAX;
}

static struct lane *add_lane(struct upstream *u)
{
    struct lane *l = COX_NEW(struct lane);

    l->u = u;
    l->multi = curl_multi_init();
    if (!l->multi)
        cox_out_of_memory();
    l->timer = evtimer_new(u->base, on_curls_timer, l);
    upstream_sockets_serve(u->sockets, l->multi, l);
    curl_multi_setopt(l->multi, CURLMOPT_TIMERFUNCTION, on_timer_wanted);
    curl_multi_setopt(l->multi, CURLMOPT_TIMERDATA, l);
    curl_multi_setopt(l->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_MULTIPLEX);
    l->kept_max = connections_of(u, u->n_lanes);
    curl_multi_setopt(l->multi, CURLMOPT_MAXCONNECTS, (long)l->kept_max);
    u->lanes = cox_realloc(u->lanes, u->n_lanes + 1, sizeof(struct lane *));
    u->lanes[u->n_lanes++] = l;
    return l;
}

/* Its own, unless that is full; who has needed others has connections there, and takes those up first. */
static struct lane *lane_with_room(struct upstream *u, struct upstream_server *s)
{
    struct lane *own = s->lane, *room = NULL;

    if (own && own->n_calls < (s->has_spread ? own->n_open : LANE_CALLS_MAX) &&
        own->n_calls < LANE_CALLS_MAX && !COX_PLANTED("upstream-any-lane"))
        return own;
    for (size_t i = 0; i < u->n_lanes; i++) {
        struct lane *l = u->lanes[i];

        if (l->n_calls >= LANE_CALLS_MAX)
            continue;
        if (l->n_calls < l->n_open)
            return l;
        room = room && l != own ? room : l;
    }
    room = room ? room : add_lane(u);
    s->has_spread = s->has_spread || room != own;
    return room;
}

/* ---- what waits for curl to return ------------------------------------------------------------------ */

static void do_wanted(struct upstream_call *c)
{
    struct upstream *u = c->u;

    cox_list_remove(&c->node);
    if (c->phase == PHASE_CANCEL) {
        drop(c);
        return;
    }
    cox_list_push_back(&u->underway, &c->node);
    if (c->phase == PHASE_START) {
        c->phase = PHASE_RUNS;
        c->lane = lane_with_room(u, c->route->server);
        c->lane->n_calls++;
        COX_ASSERT(curl_multi_add_handle(c->lane->multi, c->easy) == CURLM_OK);
    }
    if (c->resume) {
        CURLcode r;

        c->resume = false;
        enter(c->lane);
        r = curl_easy_pause(c->easy, CURLPAUSE_CONT); /* hands out what it holds, and says if that failed */
        leave(c->lane);
        if (r != CURLE_OK && c->phase == PHASE_RUNS)
            finish_by_curl(c, r);
    }
}

static void on_soon(evutil_socket_t fd, short what, void *user)
{
    struct upstream *u = user;

    (void)fd;
    (void)what;
    u->soon_runs = true;
    while (!cox_list_empty(&u->wanting)) {
        struct cox_list *node = u->wanting.next;

        do_wanted(COX_CONTAINER_OF(node, struct upstream_call, node));
    }
    u->soon_runs = false;
    for (size_t i = 0; i < u->n_lanes; i++) {
        if (u->lanes[i]->is_due)
            run_timers(u->lanes[i]);
    }
}

static void expire(struct upstream_call *c, enum upstream_end end)
{
    static const char *const words[] = {
        [UPSTREAM_FIRST_TIMEOUT] = "no content within %lld ms",
        [UPSTREAM_STALL_TIMEOUT] = "nothing came for %lld ms",
        [UPSTREAM_TOTAL_TIMEOUT] = "not whole within %lld ms",
    };
    char message[64];
    int64_t ms = end == UPSTREAM_FIRST_TIMEOUT   ? c->timeouts.first_ms
                 : end == UPSTREAM_STALL_TIMEOUT ? c->timeouts.stall_ms
                                                 : c->timeouts.total_ms;

    (void)snprintf(message, sizeof(message), words[end], (long long)ms);
    finish(c, end, message);
}

static void on_expiry(evutil_socket_t fd, short what, void *user)
{
    struct upstream *u = user;
    int64_t now = cox_clock_mono_ns();
    struct cox_heap_node *first;

    (void)fd;
    (void)what;
    u->expiry_armed = UINT64_MAX;
    while ((first = cox_heap_min(&u->deadlines)) != NULL && (int64_t)first->key <= now) {
        struct upstream_call *c = COX_CONTAINER_OF(first, struct upstream_call, until);
        enum upstream_end end;
        int64_t at = deadline_ns(c, &end);

        cox_heap_remove(&u->deadlines, first);
        if (at <= now)
            expire(c, end);
        else if (at < INT64_MAX)
            cox_heap_set(&u->deadlines, first, (uint64_t)at);
    }
    arm_expiry(u);
}

/* ---- calls ------------------------------------------------------------------------------------------ */

static struct upstream_call *make_call(struct upstream *u)
{
    struct upstream_call *c = COX_NEW(struct upstream_call);

    c->u = u;
    cox_list_init(&c->node);
    cox_list_init(&c->of_route);
    cox_heap_node_init(&c->until);
    c->easy = curl_easy_init();
    if (!c->easy)
        cox_out_of_memory();
    return c;
}

/* A handle that has asked the same before; else, when enough are kept, the one that has not for the longest
 * time. */
static struct upstream_call *get_call(struct upstream *u, const struct upstream_target *t)
{
    struct route *r = route_of(u, t);
    struct upstream_call *c;

    if (!cox_list_empty(&r->idle) || u->n_idle >= IDLE_HANDLES_MAX) {
        bool same = !cox_list_empty(&r->idle);

        c = same ? COX_CONTAINER_OF(r->idle.next, struct upstream_call, of_route)
                 : COX_CONTAINER_OF(u->all_idle.next, struct upstream_call, node);
        cox_list_remove(&c->of_route);
        cox_list_remove(&c->node);
        u->n_idle--;
        if (same)
            return c;
        r->n_calls++;
        leave_route(c);
        curl_easy_reset(c->easy);
    } else {
        c = make_call(u);
        r->n_calls++;
    }
    c->route = r;
    c->connect_ms = 0;
    upstream_call_init(c, t);
    return c;
}

struct upstream_call *upstream_start(struct upstream *u, const struct upstream_request *q)
{
    struct upstream_call *c = get_call(u, q->target);
    long connect_ms = q->timeouts.connect_ms > 0 && q->timeouts.connect_ms < CONNECT_MS_MAX
                          ? (long)q->timeouts.connect_ms
                          : CONNECT_MS_MAX;

    c->phase = PHASE_START;
    u->n_busy++;
    c->events = q->events;
    c->user = q->user;
    c->timeouts = q->timeouts;
    c->start_ns = c->heard_ns = cox_clock_mono_ns();
    c->content_begun = c->paused = c->resume = c->head_told = c->is_stream = false;
    c->refused = NULL;
    cox_buf_clear(&c->head);
    c->parsed = (struct upstream_head){ 0 };
    c->head_len = 0;
    c->received = 0;
    c->error[0] = '\0';
    if (connect_ms != c->connect_ms)
        curl_easy_setopt(c->easy, CURLOPT_CONNECTTIMEOUT_MS, connect_ms);
    c->connect_ms = connect_ms;
    upstream_call_ask(c, q);
    watch_deadline(c);
    want(c);
    return c;
}

void upstream_first(struct upstream_call *c)
{
    if (c->content_begun)
        return;
    c->content_begun = true;
    c->heard_ns = cox_clock_mono_ns();
    watch_deadline(c);
}

void upstream_cancel(struct upstream_call *c)
{
    struct upstream *u = c->u;
    bool runs = c->phase == PHASE_RUNS;

    cox_heap_remove(&u->deadlines, &c->until);
    c->phase = PHASE_CANCEL;
    c->resume = false;
    if (!runs) {
        retire(c); /* curl has not seen it */
    } else if (u->in_curl) {
        want(c);
    } else if (!COX_PLANTED("upstream-cancel-when-heard")) {
        drop(c);
    }
}

void upstream_pause(struct upstream_call *c, bool pause)
{
    if (pause == c->paused)
        return;
    c->paused = pause;
    c->heard_ns = cox_clock_mono_ns();
    watch_deadline(c);
    if (c->phase != PHASE_RUNS)
        return;
    c->resume = !pause;
    if (pause)
        curl_easy_pause(c->easy, CURLPAUSE_RECV); /* calls nobody */
    else
        want(c);
}

/* ---- life ------------------------------------------------------------------------------------------- */

static void init_curl(void)
{
    COX_ASSERT(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
}

static uint32_t sockets_of_process(void)
{
    struct rlimit limit = { 0, 0 };

    (void)getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur > UINT32_MAX)
        return UINT32_MAX;
    return limit.rlim_cur > 2 * SOCKETS_LEFT ? (uint32_t)limit.rlim_cur - SOCKETS_LEFT
                                             : (uint32_t)limit.rlim_cur / 2;
}

struct upstream *upstream_create(const struct upstream_config *config)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct upstream *u = COX_NEW(struct upstream);

    (void)pthread_once(&once, init_curl);
    u->base = config->base;
    u->expiry_armed = UINT64_MAX;
    u->soon = event_new(u->base, -1, 0, on_soon, u);
    u->expiry = evtimer_new(u->base, on_expiry, u);
    cox_list_init(&u->quiet);
    cox_list_init(&u->all_idle);
    cox_list_init(&u->wanting);
    cox_list_init(&u->underway);
    u->connections_max = config->connections_max ? config->connections_max : CONNECTIONS_DEFAULT;
    u->sockets_max = config->sockets_max ? config->sockets_max : sockets_of_process();
    u->sockets = upstream_sockets_create(u->base, on_socket_ready);
    return u;
}

static void free_all(struct cox_list *list)
{
    while (!cox_list_empty(list)) {
        struct upstream_call *c = COX_CONTAINER_OF(list->next, struct upstream_call, node);

        if (c->lane)
            curl_multi_remove_handle(c->lane->multi, c->easy);
        free_call(c);
    }
}

static void free_lane(struct lane *l)
{
    curl_multi_cleanup(l->multi);
    event_free(l->timer);
    cox_free(l);
}

void upstream_destroy(struct upstream *u)
{
    if (!u)
        return;
    COX_ASSERT(!u->in_curl);
    free_all(&u->underway);
    free_all(&u->wanting);
    free_all(&u->all_idle);
    while (!cox_list_empty(&u->quiet))
        free_server(u, COX_CONTAINER_OF(u->quiet.next, struct upstream_server, node));
    for (size_t i = 0; i < u->n_lanes; i++)
        free_lane(u->lanes[i]);
    cox_free(u->lanes);
    upstream_sockets_destroy(u->sockets);
    event_free(u->soon);
    event_free(u->expiry);
    cox_heap_fini(&u->deadlines);
    cox_mapb_fini(&u->routes);
    cox_mapb_fini(&u->servers);
    cox_free(u);
}
