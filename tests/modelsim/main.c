/* cox-modelsim: a simulated inference server. */
#include "sim.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/config.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, EXIT_UNAVAILABLE = 5 };

static void on_request(void *user, struct http_conn *c, const struct http_request *q)
{
    struct endpoint *e = user;
    bool post = cox_slice_is(q->method, "POST");

    if (post && e->sim->options.fast && q->path.len > 4 && memcmp(q->path.data, "/v1/", 4) == 0)
        fast_request(e->sim, c, q);
    else if (post && cox_slice_is(q->path, "/v1/chat/completions"))
        call_begin(e, c, q, ASK_CHAT);
    else if (post && cox_slice_is(q->path, "/v1/completions"))
        call_begin(e, c, q, ASK_TEXT);
    else if (post && cox_slice_is(q->path, "/v1/embeddings"))
        call_begin(e, c, q, ASK_EMBEDDINGS);
    else if (!admin_request(e->sim, e, c, q))
        http_answer(c, 404, "application/json", "", cox_slice_str("{\"detail\":\"Not Found\"}"));
}

static void on_admin(void *user, struct http_conn *c, const struct http_request *q)
{
    if (!admin_request(user, NULL, c, q))
        http_answer(c, 404, "application/json", "", cox_slice_str("{\"detail\":\"Not Found\"}"));
}

static void on_timer(evutil_socket_t fd, short what, void *user)
{
    struct endpoint *e = user;

    (void)fd;
    (void)what;
    engine_advance(e->engine, cox_clock_mono_ns());
    endpoint_pump(e);
}

static void on_signal(evutil_socket_t fd, short what, void *user)
{
    (void)fd;
    (void)what;
    event_base_loopbreak(user);
}

/* The address of endpoint i: ports follow each other, unless they are free ones. */
static void address_of(char *out, size_t size, const char *listen, uint32_t i)
{
    const char *colon = strrchr(listen, ':');
    unsigned long port = colon ? strtoul(colon + 1, NULL, 10) : 0;

    snprintf(out, size, "%.*s:%lu", colon ? (int)(colon - listen) : (int)strlen(listen), listen,
             port > 0 ? port + i : 0);
}

static bool open_endpoint(struct sim *s, uint32_t i)
{
    struct endpoint *e = &s->endpoints[i];
    char address[80];
    struct http_config http = {
        .base = s->base, .address = address, .identity = SIM_IDENTITY, .on_request = on_request, .user = e
    };

    address_of(address, sizeof(address), s->options.listen, i);
    e->sim = s;
    e->index = i;
    cox_list_init(&e->calls);
    cox_list_init(&e->ended);
    faults_init(&e->faults);
    cox_rng_init(&e->rng, s->options.seed * 1000003 + i);
    if (http_listen(&http, &e->http) != COX_OK) {
        fprintf(stderr, "cox-modelsim: cannot listen on %s\n", address);
        return false;
    }
    const char *colon = strrchr(address, ':');
    snprintf(e->url, sizeof(e->url), "http://%.*s:%u/v1", (int)(colon - address), address,
             http_port(e->http));
    e->engine = engine_create(&s->options.engine, &call_engine_events, e);
    e->timer = event_new(s->base, -1, 0, on_timer, e);
    COX_ASSERT(e->timer);
    return true;
}

static bool read_script(struct sim *s)
{
    FILE *f = fopen(s->options.script_file, "re");
    struct cox_buf text = { 0 }, error = { 0 };
    bool ok = f != NULL;

    for (size_t n = 1; f && n > 0; text.len += n) {
        cox_buf_reserve(&text, 65536);
        n = fread(text.data + text.len, 1, 65536, f);
    }
    if (f)
        fclose(f);
    else
        cox_buf_append_str(&error, "cannot be read");
    ok = ok && script_parse(cox_buf_slice(&text), &s->script, &error) == COX_OK;
    if (!ok)
        fprintf(stderr, "cox-modelsim: --script %s: %s\n", s->options.script_file, cox_buf_cstr(&error));
    cox_buf_fini(&text);
    cox_buf_fini(&error);
    return ok;
}

static bool write_ready(const struct sim *s)
{
    char *part = cox_asprintf("%s.part", s->options.ready_file);
    FILE *f = fopen(part, "we");
    bool ok = f != NULL;

    if (f) {
        fputs("{\"endpoints\":[", f);
        for (uint32_t i = 0; i < s->n_endpoints; i++)
            fprintf(f, "%s\"%s\"", i > 0 ? "," : "", s->endpoints[i].url);
        fprintf(f, "],\"admin\":\"http://127.0.0.1:%u\",\"pid\":%ld}\n", http_port(s->admin), (long)getpid());
        ok = fclose(f) == 0 && rename(part, s->options.ready_file) == 0;
    }
    if (!ok)
        fprintf(stderr, "cox-modelsim: --ready-file %s cannot be written\n", s->options.ready_file);
    cox_free(part);
    return ok;
}

static bool open_all(struct sim *s)
{
    struct cox_buf error = { 0 };
    struct http_config admin = { .base = s->base,
                                 .address = s->options.admin,
                                 .identity = SIM_IDENTITY,
                                 .on_request = on_admin,
                                 .user = s };

    for (uint32_t i = 0; i < s->options.n_endpoints; i++, s->n_endpoints++) {
        if (!open_endpoint(s, i))
            return false;
    }
    if (http_listen(&admin, &s->admin) != COX_OK) {
        fprintf(stderr, "cox-modelsim: cannot listen on %s\n", s->options.admin);
        return false;
    }
    if (s->options.script_file && !read_script(s))
        return false;
    if (s->options.faults && admin_set_faults(s, NULL, cox_slice_str(s->options.faults), &error) != COX_OK) {
        fprintf(stderr, "cox-modelsim: --faults: %s\n", cox_buf_cstr(&error));
        cox_buf_fini(&error);
        return false;
    }
    return !s->options.ready_file || write_ready(s);
}

static void close_all(struct sim *s)
{
    for (uint32_t i = 0; i < s->n_endpoints; i++) {
        struct endpoint *e = &s->endpoints[i];
        http_destroy(e->http); /* its calls are cancelled by that, but for those that hang half closed */
        endpoint_pump(e);
        event_free(e->timer);
        engine_destroy(e->engine);
        cox_buf_fini(&e->stale);
    }
    http_destroy(s->admin);
    script_free(s->script);
    cox_buf_fini(&s->fast_whole);
    cox_buf_fini(&s->fast_stream);
    cox_buf_fini(&s->fast_head);
    cox_buf_fini(&s->fast_tail);
    cox_buf_fini(&s->scratch);
    cox_free(s->records);
    cox_free(s->endpoints);
}

int main(int argc, char **argv)
{
    struct sim s = { 0 };
    struct cox_config *keep = NULL;
    struct rlimit files;
    int code = EXIT_UNAVAILABLE;

    enum options_outcome outcome = options_read(&s.options, argc, argv, &keep);
    if (outcome != OPTIONS_RUN) {
        cox_config_destroy(keep);
        return outcome == OPTIONS_OK ? 0 : EXIT_USAGE;
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    s.replies = (struct reply_config){ .seed = s.options.seed,
                                       .output_tokens = s.options.output_tokens,
                                       .tool_turns = s.options.tool_turns };
    s.created_s = cox_clock_wall_ms() / 1000;
    s.base = event_base_new();
    COX_ASSERT(s.base);
    s.endpoints = cox_calloc(s.options.n_endpoints, sizeof(*s.endpoints));
    s.records = cox_calloc(SIM_RECORDS_MAX, sizeof(*s.records));
    fast_prepare(&s);
    struct event *term = evsignal_new(s.base, SIGTERM, on_signal, s.base);
    struct event *interrupt = evsignal_new(s.base, SIGINT, on_signal, s.base);
    COX_ASSERT(term && interrupt);
    event_add(term, NULL);
    event_add(interrupt, NULL);
    if (open_all(&s)) {
        fprintf(stderr, "cox-modelsim: SIMULATED inference, %u endpoints from %s on\n", s.n_endpoints,
                s.endpoints[0].url);
        event_base_dispatch(s.base);
        code = 0;
    }
    close_all(&s);
    event_free(term);
    event_free(interrupt);
    event_base_free(s.base);
    cox_config_destroy(keep);
    return code;
}
