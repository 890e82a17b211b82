/* Chat completions through the router to an endpoint that answers at once: what the router adds. The same
 * requests go to the endpoint itself, and through nginx where it is installed, for comparison. */
#include "bench.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/json.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECONDS 3
#define WARM_UP_NS 500000000LL
#define SAMPLES_MAX 4000000u
#define READY_LIMIT_NS 20000000000LL
#define TURN_LEN 10000 /* bytes that a turn adds to the conversation: 400 KB at turn 40 */
#define TURN 40

/* ---- one connection: a request, its answer, the next request ---- */

struct flow {
    int fd;
    size_t sent;
    struct cox_buf in;
    size_t head_len;  /* 0: not all of it is there */
    int64_t body_len; /* -1: chunked */
    int64_t began_ns;
};

struct load_run {
    const char *host;
    int port;
    struct cox_slice request;
    uint32_t n_flows;
    struct flow *flows;
    int epoll;
    int64_t from_ns, until_ns;
    int64_t *samples;
    size_t n_samples, n_errors;
};

static bool flow_open(struct load_run *r, struct flow *f)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)r->port) };
    const int one = 1;

    inet_pton(AF_INET, r->host, &to.sin_addr);
    f->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (f->fd < 0 || connect(f->fd, (struct sockaddr *)&to, sizeof(to)) != 0) {
        complain("%s:%d: %s", r->host, r->port, strerror(errno));
        return false;
    }
    setsockopt(f->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)fcntl(f->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = f };

    return epoll_ctl(r->epoll, EPOLL_CTL_ADD, f->fd, &ev) == 0;
}

static void flow_send(struct load_run *r, struct flow *f)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = f };

    if (f->sent == 0)
        f->began_ns = cox_clock_mono_ns();
    while (f->sent < r->request.len) {
        ssize_t n = send(f->fd, r->request.data + f->sent, r->request.len - f->sent, MSG_NOSIGNAL);
        if (n < 0)
            break;
        f->sent += (size_t)n;
    }
    if (f->sent < r->request.len)
        ev.events |= EPOLLOUT;
    if (r->request.len > 65536)
        epoll_ctl(r->epoll, EPOLL_CTL_MOD, f->fd, &ev);
}

static const char *header_in(struct flow *f, const char *name)
{
    const char *at = strcasestr(cox_buf_cstr(&f->in), name);

    return at && (size_t)(at - (const char *)f->in.data) < f->head_len ? at + strlen(name) : NULL;
}

static bool is_whole(struct flow *f)
{
    if (f->head_len == 0) {
        const char *end = strstr(cox_buf_cstr(&f->in), "\r\n\r\n");
        if (!end)
            return false;
        f->head_len = (size_t)(end - (const char *)f->in.data) + 4;
        const char *len = header_in(f, "content-length:");
        f->body_len = len ? strtoll(len, NULL, 10) : -1;
    }
    if (f->body_len >= 0)
        return f->in.len >= f->head_len + (size_t)f->body_len;
    return f->in.len >= f->head_len + 5 && memcmp(f->in.data + f->in.len - 5, "0\r\n\r\n", 5) == 0;
}

/* False: the peer has left. */
static bool flow_read(struct load_run *r, struct flow *f)
{
    cox_buf_reserve(&f->in, 65536);
    ssize_t n = recv(f->fd, f->in.data + f->in.len, 65536, 0);

    if (n <= 0)
        return n < 0 && errno == EAGAIN;
    f->in.len += (size_t)n;
    if (!is_whole(f))
        return true;
    int64_t now_ns = cox_clock_mono_ns();

    if (memcmp(f->in.data, "HTTP/1.1 200", 12) != 0)
        r->n_errors++;
    else if (f->began_ns >= r->from_ns && now_ns < r->until_ns && r->n_samples < SAMPLES_MAX)
        r->samples[r->n_samples++] = now_ns - f->began_ns;
    cox_buf_clear(&f->in);
    f->head_len = f->sent = 0;
    if (now_ns < r->until_ns)
        flow_send(r, f);
    return true;
}

static bool run_flows(struct load_run *r)
{
    struct epoll_event events[256];

    for (uint32_t i = 0; i < r->n_flows; i++)
        flow_send(r, &r->flows[i]);
    while (cox_clock_mono_ns() < r->until_ns) {
        int n = epoll_wait(r->epoll, events, 256, 100);
        for (int i = 0; i < n; i++) {
            struct flow *f = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                flow_send(r, f);
            if ((events[i].events & ~(unsigned)EPOLLOUT) && !flow_read(r, f)) {
                complain("%s:%d has closed a connection", r->host, r->port);
                return false;
            }
        }
    }
    return true;
}

/* ---- who is measured ---- */

struct stage {
    struct process process;
    char *address; /* 127.0.0.1:N */
};

struct gateway {
    char *folder;
    struct stage coalesced, single; /* endpoints, which differ in how they stream */
    struct stage coxd, nginx;
    uint32_t seconds;
};

static bool read_file(const char *path, struct cox_buf *text)
{
    FILE *in = fopen(path, "rbe");

    if (!in)
        return false;
    cox_buf_clear(text);
    text->len = fread(cox_buf_extend(text, 65536), 1, 65536, in);
    fclose(in);
    return text->len > 0;
}

/* The first address behind `mark` in a ready file, once it is there. */
static char *await_address(struct process *p, const char *path, const char *mark)
{
    int64_t until_ns = cox_clock_mono_ns() + READY_LIMIT_NS;
    struct cox_buf text = { 0 };
    char *address = NULL;

    while (!address && process_alive(p) && cox_clock_mono_ns() < until_ns) {
        const char *at = read_file(path, &text) ? strstr(cox_buf_cstr(&text), mark) : NULL;
        if (at)
            address = cox_strndup(at + strlen(mark), strcspn(at + strlen(mark), "\"/,"));
        else
            (void)poll(NULL, 0, 5);
    }
    cox_buf_fini(&text);
    return address;
}

static bool start_endpoint(struct gateway *g, struct stage *s, const char *name, bool coalesced)
{
    char *ready = cox_asprintf("%s/%s.ready", g->folder, name);
    char *argv[] = { program_path("cox-modelsim"),
                     "--fast",
                     "--ready-file",
                     ready,
                     coalesced ? "--events-coalesced" : NULL,
                     NULL };

    if (process_start(&s->process, argv) == COX_OK)
        s->address = await_address(&s->process, ready, "http://");
    cox_free(argv[0]);
    cox_free(ready);
    if (!s->address)
        complain("cox-modelsim does not serve");
    return s->address;
}

static bool start_coxd(struct gateway *g)
{
    char *ready = cox_asprintf("%s/coxd.ready", g->folder), *data = cox_asprintf("%s/data", g->folder);
    char *single = cox_asprintf("single=http://%s/v1", g->single.address);
    char *coalesced = cox_asprintf("coalesced=http://%s/v1", g->coalesced.address);
    char *argv[] = { program_path("coxd"),
                     "--data-dir",
                     data,
                     "--store",
                     "memory",
                     "--grpc",
                     "127.0.0.1:0",
                     "--http",
                     "127.0.0.1:0",
                     "--model",
                     single,
                     "--model",
                     coalesced,
                     "--log-level",
                     "warn",
                     "--ready-file",
                     ready,
                     NULL };

    if (process_start(&g->coxd.process, argv) == COX_OK)
        g->coxd.address = await_address(&g->coxd.process, ready, "\"http\":\"");
    cox_free(argv[0]);
    cox_free(ready);
    cox_free(data);
    cox_free(single);
    cox_free(coalesced);
    if (!g->coxd.address)
        complain("coxd does not serve");
    return g->coxd.address;
}

/* One worker, kept connections, answers not held back: as one sets it up before model servers. */
static void start_nginx(struct gateway *g)
{
    const char *program = access("/usr/sbin/nginx", X_OK) == 0 ? "/usr/sbin/nginx" : NULL;
    char *path = cox_asprintf("%s/nginx.conf", g->folder);
    FILE *out = program ? fopen(path, "we") : NULL;
    int port = 0;
    struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(any);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && bind(fd, (struct sockaddr *)&any, len) == 0 &&
        getsockname(fd, (struct sockaddr *)&any, &len) == 0)
        port = ntohs(any.sin_port);
    if (fd >= 0)
        close(fd);
    if (out) {
        fprintf(out,
                "daemon off;\nmaster_process off;\nworker_processes 1;\npid %s/nginx.pid;\nerror_log stderr "
                "warn;\n"
                "events { worker_connections 4096; }\nhttp { access_log off; client_max_body_size 16m;\n"
                "client_body_buffer_size 1m; client_body_temp_path %s/body; proxy_temp_path %s/proxy;\n"
                "keepalive_requests 1000000000;\n"
                "upstream single { server %s; keepalive 128; keepalive_requests 1000000000; }\n"
                "upstream coalesced { server %s; keepalive 128; keepalive_requests 1000000000; }\n"
                "map $http_x_model $to { default single; coalesced coalesced; }\n"
                "server { listen 127.0.0.1:%d; location / { proxy_pass http://$to; proxy_http_version 1.1;\n"
                "proxy_set_header Connection \"\"; proxy_buffering off; } } }\n",
                g->folder, g->folder, g->folder, g->single.address, g->coalesced.address, port);
        fclose(out);
        char *argv[] = { (char *)(uintptr_t)program, "-c", path, "-p", g->folder, NULL };
        if (process_start(&g->nginx.process, argv) == COX_OK)
            g->nginx.address = cox_asprintf("127.0.0.1:%d", port);
    }
    cox_free(path);
}

/* ---- what is asked ---- */

struct mode {
    const char *name;
    const char *model;
    bool stream;
    bool long_conversation;
};

static const struct mode modes[] = {
    { "whole", "single", false, false },
    { "streamed, coalesced", "coalesced", true, false },
    { "streamed, one by one", "single", true, false },
    { "turn 40 of 400 KB", "single", false, true },
};

static void put_request(struct cox_buf *out, const struct mode *m)
{
    struct cox_buf body = { 0 };

    cox_buf_printf(&body, "{\"model\":\"%s\",\"stream\":%s,\"max_tokens\":50,\"messages\":[", m->model,
                   m->stream ? "true" : "false");
    for (int turn = 0; m->long_conversation && turn < TURN - 1; turn++) {
        cox_buf_printf(&body, "{\"role\":\"%s\",\"content\":\"", turn % 2 == 0 ? "user" : "assistant");
        for (int i = 0; i < TURN_LEN / 10; i++)
            cox_buf_printf(&body, "%d %07d ", turn % 10, i * 7919 % 10000000);
        cox_buf_append_str(&body, "\"},");
    }
    cox_buf_append_str(&body, "{\"role\":\"user\",\"content\":\"What is the capital of France?\"}]}");
    cox_buf_printf(
        out,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Authorization: Bearer none\r\nx-session-id: bench\r\nX-Model: %s\r\nContent-Length: %zu\r\n\r\n",
        m->model, body.len);
    cox_buf_append_slice(out, cox_buf_slice(&body));
    cox_buf_fini(&body);
}

/* ---- a measurement ---- */

static int compare(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

struct measured {
    double rps, p50_us, p99_us, cpu_us;
};

static bool measure(const struct gateway *g, const struct stage *s, uint32_t n_flows, const struct mode *m,
                    struct measured *ret)
{
    struct cox_buf request = { 0 };
    char *host = cox_strndup(s->address, strcspn(s->address, ":"));
    struct load_run r = { .host = host,
                          .port = (int)strtol(strchr(s->address, ':') + 1, NULL, 10),
                          .n_flows = n_flows,
                          .flows = cox_calloc(n_flows, sizeof(struct flow)),
                          .epoll = epoll_create1(EPOLL_CLOEXEC),
                          .samples = cox_calloc(SAMPLES_MAX, sizeof(int64_t)) };
    bool well = true;

    put_request(&request, m);
    r.request = cox_buf_slice(&request);
    for (uint32_t i = 0; i < n_flows && well; i++)
        well = flow_open(&r, &r.flows[i]);
    r.until_ns = cox_clock_mono_ns() + WARM_UP_NS;
    r.from_ns = INT64_MAX;
    well = well && run_flows(&r);
    for (uint32_t i = 0; i < n_flows && well; i++) { /* answers to the warm-up may still be coming */
        close(r.flows[i].fd);
        cox_buf_clear(&r.flows[i].in);
        r.flows[i].head_len = r.flows[i].sent = 0;
        well = flow_open(&r, &r.flows[i]);
    }
    int64_t cpu_ns = process_cpu_ns(s->process.pid);

    r.from_ns = cox_clock_mono_ns();
    r.until_ns = r.from_ns + g->seconds * INT64_C(1000000000);
    well = well && run_flows(&r);
    cpu_ns = process_cpu_ns(s->process.pid) - cpu_ns;
    if (well && (r.n_errors > 0 || r.n_samples == 0)) {
        complain("%s: %zu answers were not 200, %zu were", s->address, r.n_errors, r.n_samples);
        well = false;
    }
    if (well) {
        qsort(r.samples, r.n_samples, sizeof(int64_t), compare);
        ret->rps = (double)r.n_samples / g->seconds;
        ret->p50_us = (double)r.samples[r.n_samples / 2] / 1e3;
        ret->p99_us = (double)r.samples[r.n_samples * 99 / 100] / 1e3;
        ret->cpu_us = (double)cpu_ns / 1e3 / (double)r.n_samples;
    }
    for (uint32_t i = 0; i < n_flows; i++) {
        close(r.flows[i].fd);
        cox_buf_fini(&r.flows[i].in);
    }
    close(r.epoll);
    cox_free(r.samples);
    cox_free(r.flows);
    cox_free(host);
    cox_buf_fini(&request);
    return well;
}

static void report(const char *through, uint32_t n_flows, const struct mode *m, const struct measured *x,
                   double direct_p50_us)
{
    printf("{\"workload\":\"gateway\",\"through\":\"%s\",\"connections\":%u,\"mode\":\"%s\",\"rps\":%.0f,"
           "\"p50_us\":%.1f,\"p99_us\":%.1f,\"cpu_us_per_request\":%.1f,\"added_us\":%.1f}\n",
           through, n_flows, m->name, x->rps, x->p50_us, x->p99_us, x->cpu_us, x->p50_us - direct_p50_us);
    fflush(stdout);
}

static bool measure_mode(struct gateway *g, uint32_t n_flows, const struct mode *m)
{
    const struct stage *endpoint = strcmp(m->model, "single") == 0 ? &g->single : &g->coalesced;
    struct measured direct, through;

    if (!measure(g, endpoint, n_flows, m, &direct))
        return false;
    report("nothing", n_flows, m, &direct, direct.p50_us);
    if (!measure(g, &g->coxd, n_flows, m, &through))
        return false;
    report("coxd", n_flows, m, &through, direct.p50_us);
    if (!g->nginx.address)
        return true;
    if (!measure(g, &g->nginx, n_flows, m, &through))
        return false;
    report("nginx", n_flows, m, &through, direct.p50_us);
    return true;
}

/* ---- the whole ---- */

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static void stage_stop(struct stage *s)
{
    (void)process_stop(&s->process);
    cox_free(s->address);
}

static bool read_args(struct gateway *g, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--spawn") == 0 || strcmp(argv[i], "--json") == 0)
            continue;
        char *end = NULL;
        if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
            g->seconds = (uint32_t)strtoul(argv[++i], &end, 10);
        if (!end || *end || g->seconds < 1 || g->seconds > 600) {
            complain("gateway takes --spawn and --seconds N, not %s", argv[i]);
            return false;
        }
    }
    return true;
}

int gateway_main(int argc, char **argv)
{
    static const uint32_t flows[] = { 1, 64 };
    const char *parent = getenv("TMPDIR");
    struct gateway g = { .seconds = SECONDS };

    if (!read_args(&g, argc, argv))
        return 2;
    g.folder = cox_asprintf("%s/cox-bench.XXXXXX", parent ? parent : "/var/tmp");
    if (!mkdtemp(g.folder)) {
        complain("%s: %s", g.folder, strerror(errno));
        return EXIT_FAILURE;
    }
    bool well = start_endpoint(&g, &g.single, "single", false) &&
                start_endpoint(&g, &g.coalesced, "coalesced", true) && start_coxd(&g);

    if (well)
        start_nginx(&g);
    for (size_t i = 0; i < sizeof(flows) / sizeof(*flows) && well; i++)
        for (size_t k = 0; k < sizeof(modes) / sizeof(*modes) && well; k++)
            well = measure_mode(&g, flows[i], &modes[k]);
    stage_stop(&g.coxd);
    stage_stop(&g.nginx);
    stage_stop(&g.single);
    stage_stop(&g.coalesced);
    nftw(g.folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    cox_free(g.folder);
    return well ? EXIT_SUCCESS : EXIT_FAILURE;
}
