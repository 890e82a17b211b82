/* The catalogue in force: what a reload keeps, and what files and names bring. The clock and the resolver are
 * the test's. */
#include "catalogue.h"

#include "check.h"

#include "cox/base/alloc.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int64_t __real_cox_clock_mono_ns(void);
int64_t __wrap_cox_clock_mono_ns(void);
int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                       struct addrinfo **ret);
int __real_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                       struct addrinfo **ret);

/* Runs ahead: what is looked at again every second, or ten, is looked at at once. */
int64_t __wrap_cox_clock_mono_ns(void)
{
    static atomic_llong ahead;

    return __real_cox_clock_mono_ns() + atomic_fetch_add(&ahead, 20000000000LL);
}

static atomic_int answer; /* 0: "a.example" is 127.0.0.1 and .2; 1: .2 and .3; 2: it is not known */

int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                       struct addrinfo **ret)
{
    static const char *const answers[2][2] = { { "127.0.0.1", "127.0.0.2" }, { "127.0.0.3", "127.0.0.2" } };
    struct addrinfo *first = NULL, *second = NULL;
    int which = atomic_load(&answer);

    assert_string_equal(node, "a.example");
    if (which == 2)
        return EAI_NONAME;
    assert_int_equal(__real_getaddrinfo(answers[which][0], service, hints, &first), 0);
    assert_int_equal(__real_getaddrinfo(answers[which][1], service, hints, &second), 0);
    struct addrinfo *last = first;

    while (last->ai_next)
        last = last->ai_next;
    last->ai_next = second;
    *ret = first;
    return 0;
}

/* ---- what is told ---- */

struct watch {
    struct event_base *base;
    struct catalogue *catalogue;
    struct cox_buf said;
};

static void on_model(void *user, struct model *m, bool added)
{
    cox_buf_printf(&((struct watch *)user)->said, "%s%s ", added ? "+" : "-", m->name);
    assert_int_equal(m->gone, !added);
}

static void on_endpoint(void *user, struct endpoint *e, bool added)
{
    cox_buf_printf(&((struct watch *)user)->said, "%s%s@%s ", added ? "+" : "-", e->model->name, e->name);
    assert_int_equal(e->gone, !added);
}

static void on_changed(void *user, struct endpoint *e)
{
    cox_buf_printf(&((struct watch *)user)->said, "%s=%u ", e->name, e->max_in_flight);
}

static void begin(struct watch *w)
{
    const struct catalogue_events events = { on_model, on_endpoint, on_changed };

    *w = (struct watch){ .base = event_base_new() };
    w->catalogue = catalogue_create(w->base, &events, w);
}

static void end(struct watch *w)
{
    catalogue_destroy(w->catalogue);
    event_base_free(w->base);
    cox_buf_fini(&w->said);
}

static void apply(struct watch *w, const char *json)
{
    struct catalogue_text *t = NULL;

    cox_buf_clear(&w->said);
    assert_int_equal(catalogue_parse(NULL, 0, cox_slice_str(json), &t, &w->said), COX_OK);
    catalogue_apply(w->catalogue, t);
}

static void check_said(struct watch *w, const char *expected)
{
    assert_string_equal(cox_buf_cstr(&w->said), expected);
    cox_buf_clear(&w->said);
}

static void await(struct watch *w, const char *expected)
{
    while (strcmp(cox_buf_cstr(&w->said), expected) != 0) {
        if (strncmp(cox_buf_cstr(&w->said), expected, w->said.len) != 0)
            fail_msg("%s; expected %s", cox_buf_cstr(&w->said), expected);
        event_base_loop(w->base, EVLOOP_ONCE);
    }
    cox_buf_clear(&w->said);
}

/* ---- reloads ---- */

static void a_reload_keeps_what_is_the_same(void **state)
{
    struct watch w;

    (void)state;
    begin(&w);
    apply(&w, "[{\"name\":\"a\",\"aliases\":[\"x\"],\"endpoints\":[\"http://h:1\",\"http://h:2\"]},"
              "{\"name\":\"b\",\"endpoints\":[\"http://h:1\"]}]");
    check_said(&w, "+a +a@h:1 +a@h:2 +b +b@h:1 ");
    struct model *a = catalogue_find(w.catalogue, cox_slice_str("x"));
    struct endpoint *first = COX_CONTAINER_OF(a->endpoints.next, struct endpoint, node);

    assert_string_equal(a->name, "a");
    assert_string_equal(first->targets[0].url, "http://h:1/v1/chat/completions");
    assert_string_equal(first->targets[3].url, "http://h:1/v1/models");
    assert_ptr_equal(catalogue_next(w.catalogue, NULL), a);

    apply(&w, "[{\"name\":\"b\",\"endpoints\":[\"http://h:1\"]},"
              "{\"name\":\"a\",\"aliases\":[\"x\"],\"endpoints\":[\"http://h:3\",{\"url\":\"http://h:1\","
              "\"max_in_flight\":9}]}]");
    check_said(&w, "h:1=9 -a@h:2 +a@h:3 ");
    assert_ptr_equal(catalogue_find(w.catalogue, cox_slice_str("a")), a);
    assert_int_equal(a->n_endpoints, 2);
    assert_ptr_equal(COX_CONTAINER_OF(a->endpoints.next, struct endpoint, node), first);
    assert_ptr_equal(catalogue_next(w.catalogue, catalogue_next(w.catalogue, NULL)), a);

    apply(&w, "[{\"name\":\"b\",\"endpoints\":[\"http://h:1\"],\"context_tokens\":7}]");
    check_said(&w, "+b -a@h:1 -a@h:3 -a ");
    assert_null(catalogue_find(w.catalogue, cox_slice_str("a")));
    assert_null(catalogue_find(w.catalogue, cox_slice_str("x")));
    assert_int_equal(catalogue_find(w.catalogue, cox_slice_str("b"))->context_tokens, 7);
    end(&w);
}

static void an_alias_becomes_a_model(void **state)
{
    struct watch w;

    (void)state;
    begin(&w);
    apply(&w, "[{\"name\":\"a\",\"aliases\":[\"b\"],\"endpoints\":[\"http://h:1\"]}]");
    check_said(&w, "+a +a@h:1 ");
    apply(&w, "[{\"name\":\"b\",\"aliases\":[\"a\"],\"endpoints\":[\"http://h:1\"]}]");
    check_said(&w, "+b +b@h:1 -a@h:1 -a ");
    assert_string_equal(catalogue_find(w.catalogue, cox_slice_str("a"))->name, "b");
    apply(&w, "[]");
    check_said(&w, "-b@h:1 -b ");
    assert_null(catalogue_find(w.catalogue, cox_slice_str("a")));
    end(&w);
}

static void a_call_keeps_its_endpoint(void **state)
{
    struct watch w;

    (void)state;
    begin(&w);
    apply(&w, "[{\"name\":\"a\",\"endpoints\":[\"http://h:1\"]}]");
    struct model *a = catalogue_find(w.catalogue, cox_slice_str("a"));
    struct endpoint *e = COX_CONTAINER_OF(a->endpoints.next, struct endpoint, node);

    endpoint_ref(e);
    apply(&w, "[]");
    assert_true(e->gone && e->model->gone);
    apply(&w, "[{\"name\":\"a\",\"endpoints\":[\"http://h:1\"]}]");
    check_said(&w, "+a +a@h:1 ");
    end(&w);
    assert_string_equal(e->targets[0].url, "http://h:1/v1/chat/completions");
    assert_string_equal(e->model->name, "a");
    endpoint_unref(e);
}

static void one_url_with_two_names_has_two_labels(void **state)
{
    struct watch w;

    (void)state;
    begin(&w);
    apply(&w, "[{\"name\":\"a\",\"endpoints\":[\"http://h:1\",{\"url\":\"http://"
              "h:1\",\"upstream_model\":\"lora\"}]}]");
    check_said(&w, "+a +a@h:1 +a@h:1#lora ");
    apply(&w, "[{\"name\":\"a\",\"endpoints\":[\"http://h:1\",\"https://h:1\",{\"url\":\"http://"
              "h:1\",\"upstream_model\":\"a\"}]}]");
    check_said(&w, "-a@h:1#lora +a@h:1#a +a@h:1#a#2 ");
    apply(&w, "[{\"name\":\"a\",\"endpoints\":[\"http://h:1\"]}]");
    apply(&w, "[{\"name\":\"a\",\"endpoints\":[\"https://h:1\"]}]");
    check_said(&w, "-a@h:1 +a@h:1 ");
    end(&w);
}

/* ---- files and names ---- */

static void put_file(const char *path, const char *text)
{
    char *next = cox_asprintf("%s.next", path);
    FILE *f = fopen(next, "we");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rename(next, path), 0);
    cox_free(next);
}

static void a_file_is_looked_at_again(void **state)
{
    char folder[] = "/tmp/cox-catalogue-XXXXXX";
    struct watch w;

    (void)state;
    assert_non_null(mkdtemp(folder));
    char *path = cox_asprintf("%s/endpoints", folder);
    char *json =
        cox_asprintf("[{\"name\":\"a\",\"endpoints\":[\"http://h:1\"],"
                     "\"discovery\":{\"file\":\"%s\",\"max_in_flight\":5,\"upstream_model\":\"m\"}}]",
                     path);

    begin(&w);
    put_file(path, "http://h:2\nhttp://h:3\n");
    apply(&w, json);
    await(&w, "+a +a@h:1 +a@h:2 +a@h:3 ");
    struct model *a = catalogue_find(w.catalogue, cox_slice_str("a"));
    struct endpoint *last = COX_CONTAINER_OF(a->endpoints.prev, struct endpoint, node);

    assert_string_equal(last->upstream_model, "m");
    assert_int_equal(last->max_in_flight, 5);
    put_file(path, "[{\"url\":\"http://h:3\",\"max_in_flight\":6},\"http://h:4\"]");
    await(&w, "-a@h:2 h:3=6 +a@h:4 ");
    put_file(path, "[\"http://h:"); /* neither this nor its absence changes anything */
    (void)unlink(path);
    put_file(path, "nonsense");
    put_file(path, "http://h:3\nhttp://h:4\n");
    await(&w, "h:3=5 ");
    apply(&w, json); /* the same place: nothing is lost until it is looked at again */
    check_said(&w, "");
    assert_int_equal(a->n_endpoints, 3);
    apply(&w, "[{\"name\":\"a\",\"endpoints\":[\"http://h:1\"]}]");
    check_said(&w, "-a@h:3 -a@h:4 ");
    end(&w);
    (void)unlink(path);
    assert_int_equal(rmdir(folder), 0);
    cox_free(path);
    cox_free(json);
}

static void a_name_is_resolved_again(void **state)
{
    struct watch w;

    (void)state;
    begin(&w);
    atomic_store(&answer, 0);
    apply(&w, "[{\"name\":\"a\",\"discovery\":{\"dns\":\"a.example:8000\"}}]");
    await(&w, "+a +a@127.0.0.1:8000 +a@127.0.0.2:8000 ");
    atomic_store(&answer, 2);
    atomic_store(&answer, 1);
    await(&w, "-a@127.0.0.1:8000 +a@127.0.0.3:8000 ");
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reload_keeps_what_is_the_same),
        cmocka_unit_test(an_alias_becomes_a_model),
        cmocka_unit_test(a_call_keeps_its_endpoint),
        cmocka_unit_test(one_url_with_two_names_has_two_labels),
        cmocka_unit_test(a_file_is_looked_at_again),
        cmocka_unit_test(a_name_is_resolved_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
