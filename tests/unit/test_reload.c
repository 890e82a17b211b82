/* Reloads while calls wait and are under way: each ends once, and is answered where anybody may answer it. */
#include "router_fixture.h"

#include "inference/router_internal.h"

#include "cox/base/rng.h"

#include <unistd.h>

#define ASK_OF(model) "{\"model\":\"" model "\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}"
#define AT_MOST_ONE "{\"url\":\"http://127.0.0.1:%d/v1\",\"max_in_flight\":1}"
#define FALLS_BACK "{\"name\":\"a\",\"fallbacks\":[\"b\"],\"endpoints\":[" AT_MOST_ONE "]}"

static const struct line good[] = { { NULL, KEEP, 0 } };
static const struct line slow[] = { { NULL, KEEP, 20 } };

static struct world *begin(void)
{
    struct world *w = world_begin(NULL);

    server_start(w, &w->servers[0], slow, 1);
    server_start(w, &w->servers[1], good, 1);
    server_start(w, &w->servers[2], slow, 1);
    return w;
}

/* The JSON of models that have no place for a port each. */
static void models_at(struct world *w, const char *format, int port)
{
    struct cox_buf json = { 0 };

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    cox_buf_printf(&json, format, port);
#pragma GCC diagnostic pop
    world_models(w, cox_buf_cstr(&json));
    cox_buf_fini(&json);
}

/* One is sent, and goes on where it is; the others wait. */
static void waits_then(struct world *w, const char *format, int port, const char *model)
{
    struct heard sent = { 0 }, waits[3] = { 0 };

    ask(w, &sent, ASK_OF("a"));
    for (size_t i = 0; i < ARRAY_LEN(waits); i++)
        ask(w, &waits[i], ASK_OF("a"));
    models_at(w, format, port);
    AWAIT(w, sent.over);
    assert_int_equal(sent.end, ROUTER_ANSWERED);
    assert_string_equal(sent.model, "a");
    for (size_t i = 0; i < ARRAY_LEN(waits); i++) {
        AWAIT(w, waits[i].over);
        assert_int_equal(waits[i].end, ROUTER_ANSWERED);
        assert_string_equal(waits[i].model, model);
        heard_fini(&waits[i]);
    }
    heard_fini(&sent);
}

static void calls_of_a_model_that_goes_are_answered_by_its_fallback(void **state)
{
    struct world *w = begin();

    (void)state;
    world_models(w, "[" FALLS_BACK ",{\"name\":\"b\",\"endpoints\":[" AT_MOST_ONE "]}]");
    waits_then(w, "[{\"name\":\"b\",\"endpoints\":[" AT_MOST_ONE "]}]", w->servers[1].port, "b");
    assert_int_equal(w->servers[0].n_requests, 1);
    world_end(w);
}

/* Nobody is left in its pool then but calls that will be tried again. */
static void so_are_those_that_have_failed_once(void **state)
{
    static const struct line bad[] = { { "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", KEEP, 0 } };
    struct world *w = world_begin(NULL);
    struct heard h = { 0 };

    (void)state;
    server_start(w, &w->servers[0], bad, 1);
    server_start(w, &w->servers[1], good, 1);
    world_models(w, "[" FALLS_BACK ",{\"name\":\"b\",\"endpoints\":[" AT_MOST_ONE "]}]");
    ask(w, &h, ASK_OF("a"));
    AWAIT(w, h.over || h.call->state == CALL_BACKOFF);
    assert_false(h.over);
    models_at(w, "[{\"name\":\"b\",\"endpoints\":[" AT_MOST_ONE "]}]", w->servers[1].port);
    AWAIT(w, h.over);
    assert_int_equal(h.end, ROUTER_ANSWERED);
    assert_string_equal(h.model, "b");
    heard_fini(&h);
    world_end(w);
}

static void the_fallback_may_come_with_the_reload(void **state)
{
    struct world *w = begin();

    (void)state;
    world_models(w, "[" FALLS_BACK ",{\"name\":\"b\",\"endpoints\":[" AT_MOST_ONE "]}]");
    waits_then(w, "[{\"name\":\"c\",\"aliases\":[\"b\"],\"endpoints\":[" AT_MOST_ONE "]}]",
               w->servers[1].port, "c");
    world_end(w);
}

/* ---- any reloads ---- */

#define ROUNDS 300
#define CALLS 600

/* Models come and go, with other servers, limits and fallbacks; "z" stays, and all fall back to it. */
static void put_models(struct world *w, struct cox_rng *rng, struct cox_buf *json)
{
    static const char *const names[] = { "a", "b", "c" };
    uint64_t there = cox_rng_below(rng, 8), first = cox_rng_below(rng, 3);

    cox_buf_printf(json, "[{\"name\":\"z\",\"endpoints\":[\"http://127.0.0.1:%d/v1\"]}", w->servers[1].port);
    for (uint64_t i = 0; i < 3; i++) {
        uint64_t me = (first + i) % 3, other = (me + 1) % 3, n = 1 + cox_rng_below(rng, 3);

        if (!(there >> me & 1))
            continue;
        cox_buf_printf(json, ",{\"name\":\"%s\",\"fallbacks\":[", names[me]);
        if (there >> other & 1)
            cox_buf_printf(json, "\"%s\",", names[other]);
        cox_buf_append_str(json, "\"z\"],\"endpoints\":[");
        for (uint64_t k = 0; k < n; k++)
            cox_buf_printf(json, "%s{\"url\":\"http://127.0.0.1:%d/v1\",\"max_in_flight\":%u}", k ? "," : "",
                           w->servers[(first + k) % 3].port, 1 + (unsigned)cox_rng_below(rng, 4));
        cox_buf_append_str(json, "]}");
    }
    cox_buf_append_str(json, "]");
}

static void reload(struct world *w, struct cox_rng *rng)
{
    struct cox_buf json = { 0 }, error = { 0 };
    struct catalogue_text *text;

    put_models(w, rng, &json);
    if (catalogue_parse(NULL, 0, cox_buf_slice(&json), &text, &error))
        fail_msg("%s: %s", cox_buf_cstr(&json), cox_buf_cstr(&error));
    catalogue_apply(router_catalogue(w->router), text);
    cox_buf_fini(&json);
    cox_buf_fini(&error);
}

/* Of a model that there is now. */
static const char *ask_of_any(struct world *w, struct cox_rng *rng)
{
    static const char *const asks[] = { ASK_OF("a"), ASK_OF("b"), ASK_OF("c"), ASK_OF("z") };
    size_t i = cox_rng_below(rng, 4);
    const char name[] = { "abcz"[i], '\0' };

    return catalogue_find(router_catalogue(w->router), cox_slice_str(name)) ? asks[i] : asks[3];
}

static void any_reloads(void **state)
{
    static const struct line uneven[] = { { NULL, KEEP, 3 }, { NULL, KEEP, 0 },  { NULL, KEEP, 9 },
                                          { NULL, KEEP, 1 }, { NULL, KEEP, 30 }, { NULL, KEEP, 2 } };
    const char *env = getenv("COX_TEST_SEED");
    uint64_t seed = env ? strtoull(env, NULL, 10) : (uint64_t)getpid() * 104729;
    static struct heard calls[CALLS];
    struct world *w = world_begin(NULL);
    size_t n = 0, n_cancelled = 0;
    struct cox_rng rng;

    (void)state;
    cox_rng_init(&rng, seed);
    for (size_t i = 0; i < SERVERS_MAX; i++)
        server_start(w, &w->servers[i], uneven, i == 1 ? 2 : ARRAY_LEN(uneven));
    for (int i = 0; i < ROUNDS; i++) {
        reload(w, &rng);
        for (uint64_t k = cox_rng_below(&rng, 5); k > 0 && n < CALLS; k--)
            ask(w, &calls[n++], ask_of_any(w, &rng));
        if (n > 0 && cox_rng_below(&rng, 8) == 0) {
            struct heard *h = &calls[cox_rng_below(&rng, n)];
            if (!h->over && !h->cancels) {
                h->cancels = true;
                n_cancelled++;
                router_cancel(h->call);
            }
        }
        for (uint64_t k = cox_rng_below(&rng, 6); k > 0; k--)
            event_base_loop(w->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    }
    for (size_t i = 0; i < n; i++) {
        AWAIT(w, calls[i].over);
        enum router_end expected = calls[i].cancels ? ROUTER_CANCELLED : ROUTER_ANSWERED;
        if (calls[i].end != expected && !calls[i].cancels)
            print_message("%s %s\n", calls[i].api_code, calls[i].message);
        check_seeded(calls[i].end == expected || calls[i].cancels, seed);
        heard_fini(&calls[i]);
    }
    check_seeded(n > ROUNDS && n_cancelled > 0, seed);
    world_end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_of_a_model_that_goes_are_answered_by_its_fallback),
        cmocka_unit_test(so_are_those_that_have_failed_once),
        cmocka_unit_test(the_fallback_may_come_with_the_reload),
        cmocka_unit_test(any_reloads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
