/* Requests as bytes: what is taken, what is refused and how, wherever the bytes are cut. */
#include "check.h"

#include "cox/base/rng.h"
#include "edge/parse.h"

#include <string.h>

static void test_a_head(void **state)
{
    const char *text = "GET /a?b=c HTTP/1.1\r\nHost: h:1\r\nAccept-Encoding:  gzip, br \r\nX:\r\n\r\nrest";
    struct edge_head h;
    const char *why;
    size_t len;

    (void)state;
    assert_int_equal(edge_parse_head(cox_slice_str(text), &h, &len, &why), 0);
    assert_int_equal(len, strlen(text) - 4);
    assert_true(cox_slice_is(h.method, "GET"));
    assert_true(cox_slice_is(h.target, "/a?b=c"));
    assert_true(cox_slice_is(edge_header(&h, "ACCEPT-encoding"), "gzip, br"));
    assert_null(edge_header(&h, "y").data);
    assert_true(h.keep_alive);
    assert_false(h.chunked || h.has_length || h.expects_continue);
    for (size_t cut = 0; cut < len; cut++) { /* any beginning of it asks for more */
        size_t cut_len;
        assert_int_equal(edge_parse_head(cox_slice(text, cut), &h, &cut_len, &why), 0);
        assert_int_equal(cut_len, 0);
    }
}

static void test_what_heads_mean(void **state)
{
    static const struct {
        const char *headers;
        bool keep_alive, chunked, has_length, expects;
        uint64_t len;
    } cases[] = {
        { "Content-Length: 12\r\n", true, false, true, false, 12 },
        { "Transfer-Encoding: CHUNKED\r\n", true, true, false, false, 0 },
        { "Connection: Upgrade, Close\r\nExpect: 100-Continue\r\n", false, false, false, true, 0 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct cox_buf text = { 0 };
        struct edge_head h;
        const char *why;
        size_t len;
        cox_buf_printf(&text, "\r\nPOST / HTTP/1.1\nHost: h\r\n%s\r\n", cases[i].headers);
        assert_int_equal(edge_parse_head(cox_buf_slice(&text), &h, &len, &why), 0);
        assert_int_equal(len, text.len);
        assert_int_equal(h.keep_alive, cases[i].keep_alive);
        assert_int_equal(h.chunked, cases[i].chunked);
        assert_int_equal(h.has_length, cases[i].has_length);
        assert_int_equal(h.expects_continue, cases[i].expects);
        assert_int_equal(h.body_len, cases[i].len);
        cox_buf_fini(&text);
    }
}

static void test_refused_heads(void **state)
{
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        { "GET /\r\nHost: h\r\n\r\n", 400 },
        { "G(T / HTTP/1.1\r\nHost: h\r\n\r\n", 400 },
        { "GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505 },
        { "GET / FTP/1.12\r\nHost: h\r\n\r\n", 400 },
        { "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400 },
        { "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400 },
        { "GET /\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n", 400 },
        { "GET / HTTP/1.1\r\n\r\n", 400 },
        { "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400 },
        { "GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400 },
        { "GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n", 400 },
        { "GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n", 400 },
        { "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400 },
        { "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400 },
        { "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\n", 400 },
        { "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999999999999999\r\n\r\n", 400 },
        { "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501 },
        { "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 501 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct edge_head h;
        const char *why = NULL;
        size_t len;
        int status = edge_parse_head(cox_slice_str(cases[i].text), &h, &len, &why);
        if (status != cases[i].status)
            fail_msg("%s: %d, expected %d", cases[i].text, status, cases[i].status);
        assert_non_null(why);
    }
}

static void test_long_heads(void **state)
{
    struct cox_buf text = { 0 };
    struct edge_head h;
    const char *why;
    size_t len;

    (void)state;
    cox_buf_append_str(&text, "GET /");
    memset(cox_buf_extend(&text, EDGE_TARGET_LEN_MAX), 'a', EDGE_TARGET_LEN_MAX);
    cox_buf_append_str(&text, " HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_int_equal(edge_parse_head(cox_buf_slice(&text), &h, &len, &why), 414);
    cox_buf_clear(&text);
    cox_buf_append_str(&text, "GET / HTTP/1.1\r\nHost: h\r\nA: ");
    memset(cox_buf_extend(&text, EDGE_HEAD_LEN_MAX), 'a', EDGE_HEAD_LEN_MAX);
    assert_int_equal(edge_parse_head(cox_buf_slice(&text), &h, &len, &why), 431);
    cox_buf_clear(&text);
    cox_buf_append_str(&text, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (unsigned i = 0; i < EDGE_HEADERS_MAX; i++)
        cox_buf_append_str(&text, "A: b\r\n");
    assert_int_equal(edge_parse_head(cox_buf_slice(&text), &h, &len, &why), 431);
    cox_buf_fini(&text);
}

static void test_offers(void **state)
{
    (void)state;
    assert_true(edge_header_has(cox_slice_str("br, GZIP;q=0.5"), "gzip"));
    assert_false(edge_header_has(cox_slice_str("gzip;q=0"), "gzip"));
    assert_false(edge_header_has(cox_slice_str("gzip; q=0.00, x"), "gzip"));
    assert_false(edge_header_has(cox_slice_str("gzipped"), "gzip"));
    assert_false(edge_header_has(cox_slice(NULL, 0), "gzip"));
}

/* Feeds `text` in pieces of random sizes; false when it was refused. */
static bool unchunk(struct cox_rng *rng, const char *text, struct cox_buf *out, size_t *ret_taken)
{
    struct edge_chunked c = { 0 };
    size_t at = 0, len = strlen(text);

    while (at < len && c.state != EDGE_CHUNK_DONE) {
        size_t n = 1 + cox_rng_below(rng, len - at);
        size_t taken = edge_parse_chunked(&c, cox_slice(text + at, n), 1 + cox_rng_below(rng, 7), out);
        if (taken == SIZE_MAX)
            return false;
        at += taken;
    }
    *ret_taken = at;
    return c.state == EDGE_CHUNK_DONE;
}

static void test_chunked_bodies(void **state)
{
    static const struct {
        const char *text, *body; /* NULL: refused, or not whole */
    } cases[] = {
        { "5\r\nhello\r\n0\r\n\r\n", "hello" },
        { "5;x=\"y\"\r\nhello\r\n00A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n", "hello0123456789" },
        { "0\r\n\r\n", "" },
        { "\r\n0\r\n\r\n", NULL },
        { "-5\r\nhello\r\n0\r\n\r\n", NULL },
        { "5\r\nhelloX0\r\n\r\n", NULL },
        { "5\r\nhello\r\n", NULL },
        { "5\rhello\r\n0\r\n\r\n", NULL },
        { "1234567890123456\r\n", NULL },
        { "0x5\r\nhello\r\n0\r\n\r\n", NULL },
        /* For some a bare LF ends a line, for others it belongs to it: what follows would be a request or
           none. */
        { "5\nhello\r\n0\r\n\r\n", NULL },
        { "5;\nhello\r\n0\r\n\r\n", NULL },
        { "5\r\nhello\n0\r\n\r\n", NULL },
        { "0\n\n", NULL },
        { "0\r\nTrailer: x\n\r\n", NULL },
        { "0\r\nTrailer: x\ry\r\n\r\n", NULL },
        { "0\r\n\r\r\n", NULL },
    };

    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct cox_rng rng;
        cox_rng_init(&rng, seed);
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
            struct cox_buf out = { 0 };
            size_t taken = 0;
            bool ok = unchunk(&rng, cases[i].text, &out, &taken);
            check_seeded(ok == (cases[i].body != NULL), seed);
            check_seeded(!ok || taken == strlen(cases[i].text), seed);
            check_seeded(!ok || strcmp(cox_buf_cstr(&out), cases[i].body) == 0, seed);
            cox_buf_fini(&out);
        }
    }
}

/* Line ends are no burden: a body may come in chunks of a byte. */
static void test_many_chunks(void **state)
{
    struct edge_chunked c = { 0 };
    struct cox_buf text = { 0 }, out = { 0 };

    (void)state;
    for (int i = 0; i < 100000; i++)
        cox_buf_append_str(&text, "1\r\nx\r\n");
    cox_buf_append_str(&text, "0\r\n\r\n");
    assert_int_equal(edge_parse_chunked(&c, cox_buf_slice(&text), SIZE_MAX, &out), text.len);
    assert_int_equal(c.state, EDGE_CHUNK_DONE);
    assert_int_equal(out.len, 100000);
    c = (struct edge_chunked){ 0 };
    cox_buf_clear(&text);
    for (int i = 0; i < 10000; i++)
        cox_buf_append_str(&text, "1;a\r\nx\r\n");
    assert_true(edge_parse_chunked(&c, cox_buf_slice(&text), SIZE_MAX, &out) == SIZE_MAX);
    cox_buf_fini(&text);
    cox_buf_fini(&out);
}

static void test_queries(void **state)
{
    struct edge_param p[EDGE_PARAMS_MAX];
    struct cox_buf memory = { 0 }, many = { 0 };

    (void)state;
    assert_int_equal(edge_parse_query(cox_slice_str("a=1&&b=%C3%A9+x%2B&c&=d&e=f=g"), &memory, p), 5);
    assert_true(cox_slice_is(p[0].name, "a") && cox_slice_is(p[0].value, "1"));
    assert_true(cox_slice_is(p[1].value, "\xc3\xa9 x+"));
    assert_true(cox_slice_is(p[2].name, "c") && p[2].value.len == 0);
    assert_true(p[3].name.len == 0 && cox_slice_is(p[3].value, "d"));
    assert_true(cox_slice_is(p[4].value, "f=g"));
    assert_int_equal(edge_parse_query(cox_slice(NULL, 0), &memory, p), 0);
    static const char *const bad[] = { "a=%", "a=%4", "a=%zz", "a=%00", "a=%ff", "%c3=b" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(edge_parse_query(cox_slice_str(bad[i]), &memory, p), SIZE_MAX);
    for (unsigned i = 0; i <= EDGE_PARAMS_MAX; i++)
        cox_buf_append_str(&many, "a&");
    assert_int_equal(edge_parse_query(cox_buf_slice(&many), &memory, p), SIZE_MAX);
    cox_buf_fini(&memory);
    cox_buf_fini(&many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_head),        cmocka_unit_test(test_what_heads_mean),
        cmocka_unit_test(test_refused_heads), cmocka_unit_test(test_long_heads),
        cmocka_unit_test(test_offers),        cmocka_unit_test(test_chunked_bodies),
        cmocka_unit_test(test_many_chunks),   cmocka_unit_test(test_queries),
    };

    return cmocka_run_group_tests_name("edge_parse", tests, NULL, NULL);
}
