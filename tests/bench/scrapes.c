/* What it costs to read /metrics of many model servers, and how old what they said is. The servers are in
 * processes of their own, a listening socket each; here is what coxd has: a catalogue, health and placement
 * in one loop. One JSON object on standard output.
 *
 * usage: cox-bench-scrapes [endpoints=N] [away=N] [seconds=N] [metrics_len=BYTES]
 * Of the endpoints `away` refuse connections. */
#include "orchestrator/inference/health.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define A_CHILD 4000u /* servers: a listening socket and a connection each */
#define CHILDREN_MAX 16u
#define WARM_UP_MIN_S 5
#define SAMPLES_MAX 4000000u

/* ---- servers ---- */

struct seen { /* in memory that all processes share */
    atomic_ullong connections, requests;
};

struct server {
    struct event_base *base;
    struct seen *seen;
    char *answer;
    size_t answer_len;
};

struct peer {
    struct server *server;
    struct event *ready;
};

/* A request is in one piece, and its answer finds room in the socket: whatever differs ends the connection.
 */
static void on_request(evutil_socket_t fd, short what, void *user)
{
    struct peer *p = user;
    char text[8192];
    ssize_t n = read(fd, text, sizeof(text));

    (void)what;
    if (n > 4 && memcmp(text + n - 4, "\r\n\r\n", 4) == 0) {
        atomic_fetch_add(&p->server->seen->requests, 1);
        if (write(fd, p->server->answer, p->server->answer_len) == (ssize_t)p->server->answer_len)
            return;
    }
    event_free(p->ready);
    (void)close(fd);
    cox_free(p);
}

static void on_connection(evutil_socket_t listener, short what, void *user)
{
    struct server *s = user;
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), len = 1 << 20;
    struct peer *p;

    (void)what;
    if (fd < 0)
        return;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &len, sizeof(len));
    atomic_fetch_add(&s->seen->connections, 1);
    p = COX_NEW(struct peer);
    p->server = s;
    p->ready = event_new(s->base, fd, EV_READ | EV_PERSIST, on_request, p);
    event_add(p->ready, NULL);
}

static int listen_somewhere(void)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof(at);

    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(fd, 16) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &len) != 0) {
        perror("cox-bench-scrapes: a server");
        exit(1);
    }
    return fd;
}

static int port_of(int fd)
{
    struct sockaddr_in at;
    socklen_t len = sizeof(at);

    return getsockname(fd, (struct sockaddr *)&at, &len) == 0 ? ntohs(at.sin_port) : 0;
}

/* What vLLM says first, and histograms behind it. */
static void make_answer(struct server *s, size_t metrics_len)
{
    struct cox_buf body = { 0 }, text = { 0 };

    cox_buf_append_str(&body, "vllm:num_requests_running{model_name=\"m\"} 3.0\n"
                              "vllm:num_requests_waiting{model_name=\"m\"} 1.0\n"
                              "vllm:kv_cache_usage_perc{model_name=\"m\"} 0.25\n");
    for (unsigned i = 0; body.len < metrics_len; i++)
        cox_buf_printf(&body, "vllm:time_to_first_token_seconds_bucket{le=\"%u\",model_name=\"m\"} %u.0\n", i,
                       i);
    cox_buf_printf(&text, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n",
                   body.len);
    cox_buf_append_slice(&text, cox_buf_slice(&body));
    s->answer = (char *)text.data;
    s->answer_len = text.len;
    cox_buf_fini(&body);
}

/* Never returns. */
static void serve(const int *listeners, size_t n, struct seen *seen, size_t metrics_len)
{
    struct server s = { .base = event_base_new(), .seen = seen };

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    make_answer(&s, metrics_len);
    for (size_t i = 0; i < n; i++)
        event_add(event_new(s.base, listeners[i], EV_READ | EV_PERSIST, on_connection, &s), NULL);
    event_base_dispatch(s.base);
    _exit(0);
}

/* ---- who reads ---- */

struct bench {
    struct event_base *base;
    struct catalogue *catalogue;
    struct health *health;
    struct placement *placement;
    int64_t *said_ns;    /* by place: when it was heard last */
    uint32_t n, n_there; /* the first ones */
    double *ages_ms;
    size_t n_ages;
    uint64_t n_scrapes;
    int64_t turned_ns, late_ns; /* of the loop's own timer: how long others had to wait at most */
    bool counts;
};

static void on_model(void *user, struct model *m, bool added)
{
    struct bench *b = user;

    if (added)
        m->pool = placement_pool_add(b->placement);
}

static void on_endpoint(void *user, struct endpoint *e, bool added)
{
    struct bench *b = user;

    if (added) {
        e->place = placement_endpoint_add(b->placement, e->model->pool, &(struct placement_limits){ 0 });
        health_add(b->health, e);
    } else {
        health_remove(b->health, e);
    }
}

static void on_signals(void *user, struct endpoint *e, const struct placement_signals *signals)
{
    struct bench *b = user;
    int64_t now_ns = cox_clock_mono_ns();

    placement_endpoint_signals(b->placement, e->place, now_ns, signals);
    if (signals->running < 0)
        return;
    b->said_ns[e->place] = now_ns;
    b->n_scrapes += b->counts;
}

static void on_sample(evutil_socket_t fd, short what, void *user)
{
    struct bench *b = user;
    int64_t now_ns = cox_clock_mono_ns();

    (void)fd, (void)what;
    for (uint32_t i = 0; b->counts && i < b->n_there && b->n_ages < SAMPLES_MAX; i++)
        b->ages_ms[b->n_ages++] = b->said_ns[i] ? (double)(now_ns - b->said_ns[i]) / 1e6 : 1e9;
}

static void on_tick(evutil_socket_t fd, short what, void *user)
{
    struct bench *b = user;
    int64_t now_ns = cox_clock_mono_ns();

    (void)fd, (void)what;
    if (b->counts && b->turned_ns && now_ns - b->turned_ns - 2000000 > b->late_ns)
        b->late_ns = now_ns - b->turned_ns - 2000000;
    b->turned_ns = now_ns;
}

static void put_models(struct bench *b, const int *ports)
{
    struct cox_buf json = { 0 }, error = { 0 };
    struct catalogue_text *text;

    cox_buf_append_str(&json, "[{\"name\":\"m\",\"endpoints\":[");
    for (uint32_t i = 0; i < b->n; i++) {
        if (i < b->n_there)
            cox_buf_printf(&json, "%s\"http://127.0.0.1:%d/v1\"", i ? "," : "", ports[i]);
        else
            cox_buf_printf(&json, "%s\"http://127.1.%u.%u:9/v1\"", i ? "," : "", i / 250, i % 250 + 1);
    }
    cox_buf_append_str(&json, "]}]");
    if (catalogue_parse(NULL, 0, cox_buf_slice(&json), &text, &error)) {
        (void)fprintf(stderr, "cox-bench-scrapes: %s\n", cox_buf_cstr(&error));
        exit(1);
    }
    catalogue_apply(b->catalogue, text);
    cox_buf_fini(&json);
    cox_buf_fini(&error);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static int64_t cpu_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void run_for(struct bench *b, int64_t seconds)
{
    const struct timeval in = { seconds, 0 };

    event_base_loopexit(b->base, &in);
    event_base_dispatch(b->base);
}

/* Begins to count when all have been heard, and twice the time that took has passed. */
static void measure(struct bench *b, int64_t seconds, struct seen *seen, size_t metrics_len)
{
    int64_t began_ns = cox_clock_mono_ns(), all_ns = 0;
    uint32_t n_heard = 0;

    while (n_heard < b->n_there && cox_clock_mono_ns() - began_ns < 300000000000LL) {
        run_for(b, 1);
        for (n_heard = 0; n_heard < b->n_there && b->said_ns[n_heard]; n_heard++)
            ;
    }
    all_ns = cox_clock_mono_ns() - began_ns;
    run_for(b, WARM_UP_MIN_S + all_ns / 1000000000);
    uint64_t connections = atomic_load(&seen->connections), requests = atomic_load(&seen->requests);
    int64_t from_ns = cox_clock_mono_ns(), from_cpu_ns = cpu_ns();

    b->counts = true;
    run_for(b, seconds);
    double wall_s = (double)(cox_clock_mono_ns() - from_ns) / 1e9,
           cpu_s = (double)(cpu_ns() - from_cpu_ns) / 1e9;

    qsort(b->ages_ms, b->n_ages, sizeof(*b->ages_ms), by_value);
    if (b->n_ages == 0)
        b->ages_ms[b->n_ages++] = 0;
    printf("{\"endpoints\": %u, \"away\": %u, \"metrics_len\": %zu, \"seconds\": %.1f, \"scrapes_per_s\": "
           "%.0f, \"cores\": "
           "%.3f, "
           "\"cpu_us_per_scrape\": %.1f, \"age_p50_ms\": %.0f, \"age_p99_ms\": %.0f, \"age_max_ms\": %.0f, "
           "\"loop_late_max_ms\": %.1f, \"new_connections\": %llu, \"requests\": %llu}\n",
           b->n, b->n - b->n_there, metrics_len, wall_s, (double)b->n_scrapes / wall_s, cpu_s / wall_s,
           cpu_s * 1e6 / (double)(b->n_scrapes ? b->n_scrapes : 1), b->ages_ms[b->n_ages / 2],
           b->ages_ms[b->n_ages * 99 / 100], b->ages_ms[b->n_ages - 1], (double)b->late_ns / 1e6,
           atomic_load(&seen->connections) - connections, atomic_load(&seen->requests) - requests);
}

static void bench(uint32_t n, uint32_t n_there, const int *ports, int64_t seconds, struct seen *seen,
                  size_t metrics_len)
{
    static const struct catalogue_events events = { on_model, on_endpoint, NULL };
    const struct timeval second = { 0, 997000 }, tick = { 0, 2000 };
    struct bench b = { .base = event_base_new(), .n = n, .n_there = n_there };
    struct upstream *u = upstream_create(&(struct upstream_config){ .base = b.base });

    b.said_ns = cox_calloc(n, sizeof(*b.said_ns));
    b.ages_ms = cox_calloc(SAMPLES_MAX, sizeof(*b.ages_ms));
    b.placement = placement_create(&(struct placement_config){ .seed = 1 });
    b.health = health_create(
        &(struct health_config){ .base = b.base, .upstream = u, .on_signals = on_signals, .user = &b });
    b.catalogue = catalogue_create(b.base, &events, &b);
    struct event *sample = event_new(b.base, -1, EV_PERSIST, on_sample, &b);
    struct event *turn = event_new(b.base, -1, EV_PERSIST, on_tick, &b);

    event_add(sample, &second);
    event_add(turn, &tick);
    put_models(&b, ports);
    measure(&b, seconds, seen, metrics_len);
    event_free(sample);
    event_free(turn);
    catalogue_destroy(b.catalogue);
    health_destroy(b.health);
    upstream_destroy(u);
    placement_destroy(b.placement);
    event_base_free(b.base);
    cox_free(b.said_ns);
    cox_free(b.ages_ms);
}

static bool read_argument(const char *arg, const char *name, unsigned long *ret)
{
    size_t len = strlen(name);

    if (strncmp(arg, name, len) != 0)
        return false;
    *ret = strtoul(arg + len, NULL, 10);
    return *ret > 0;
}

int main(int argc, char **argv)
{
    unsigned long n = 10000, away = 0, seconds = 20, metrics_len = 16384;
    struct rlimit files;
    pid_t children[CHILDREN_MAX];
    size_t n_children = 0;

    for (int i = 1; i < argc; i++) {
        if (!read_argument(argv[i], "endpoints=", &n) && !read_argument(argv[i], "away=", &away) &&
            !read_argument(argv[i], "seconds=", &seconds) &&
            !read_argument(argv[i], "metrics_len=", &metrics_len)) {
            (void)fputs("usage: cox-bench-scrapes [endpoints=N] [away=N] [seconds=N] [metrics_len=BYTES]\n",
                        stderr);
            return 2;
        }
    }
    (void)getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    if (n > A_CHILD * CHILDREN_MAX || away > n || n + 512 > files.rlim_cur) {
        (void)fprintf(stderr, "cox-bench-scrapes: at most %u endpoints, and a descriptor each (ulimit -n)\n",
                      A_CHILD * CHILDREN_MAX);
        return 2;
    }
    struct seen *seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int *ports = cox_calloc(n, sizeof(*ports)), *listeners = cox_calloc(A_CHILD, sizeof(*listeners));

    for (size_t first = 0; first < n - away; first += A_CHILD) {
        size_t some = n - away - first < A_CHILD ? n - away - first : A_CHILD;

        for (size_t i = 0; i < some; i++) {
            listeners[i] = listen_somewhere();
            ports[first + i] = port_of(listeners[i]);
        }
        pid_t pid = fork();

        if (pid == 0)
            serve(listeners, some, seen, metrics_len);
        for (size_t i = 0; i < some; i++)
            (void)close(listeners[i]);
        if (pid > 0)
            children[n_children++] = pid;
    }
    bench((uint32_t)n, (uint32_t)(n - away), ports, (int64_t)seconds, seen, metrics_len);
    for (size_t i = 0; i < n_children; i++) {
        (void)kill(children[i], SIGKILL);
        (void)waitpid(children[i], NULL, 0);
    }
    cox_free(ports);
    cox_free(listeners);
    return 0;
}
