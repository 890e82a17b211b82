/* Server-sent events: the rules of the standard, and that it does not matter how the bytes are cut. */
#include "check.h"

#include "sse.h"

#include "cox/base/alloc.h"
#include "cox/base/rng.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What was heard, an event a line, in brackets; and where each ended, counted from the first byte fed. */
struct heard {
    struct cox_buf text;
    size_t fed, last_end;
    uint64_t n, stop_at;
    struct cox_slice piece;
    bool copied; /* some data was not a part of the piece */
};

static bool on_event(void *user, struct cox_slice data, size_t end)
{
    struct heard *h = user;

    assert_true(end > 0 && end <= h->piece.len);
    assert_true(h->fed + end > h->last_end);
    h->last_end = h->fed + end;
    h->copied = h->copied || data.data < h->piece.data || data.data > h->piece.data + h->piece.len;
    cox_put_u8(&h->text, '[');
    cox_buf_append_slice(&h->text, data);
    cox_buf_append_str(&h->text, "]");
    return ++h->n != h->stop_at;
}

static void feed(struct sse *s, struct heard *h, const char *bytes, size_t len)
{
    /* A copy of its own, so that a sanitizer sees a read beside it. */
    uint8_t *copy = cox_alloc(len);

    if (len > 0)
        memcpy(copy, bytes, len);
    h->piece = cox_slice(copy, len);
    assert_int_equal(sse_feed(s, h->piece, on_event, h), COX_OK);
    h->fed += len;
    cox_free(copy);
}

static void expect(const char *bytes, const char *events)
{
    struct sse s = { 0 };
    struct heard h = { 0 };

    feed(&s, &h, bytes, strlen(bytes));
    assert_string_equal(cox_buf_cstr(&h.text), events);
    assert_int_equal(s.n_events, h.n);
    sse_fini(&s);
    cox_buf_fini(&h.text);
}

static void follows_the_standard(void **state)
{
    (void)state;
    expect("data: {\"a\":1}\n\n", "[{\"a\":1}]");
    expect("data:x\n\ndata:  y\n\n", "[x][ y]");
    expect("data: a\ndata: b\ndata\ndata:\n\n", "[a\nb\n\n]");
    expect("data: a\r\ndata: b\r\n\r\ndata: c\r\rdata: d\n\r\n", "[a\nb][c][d]");
    expect("\xef\xbb\xbf"
           "data: marked\n\n",
           "[marked]");
    expect("\n\xef\xbb\xbf"
           "data: not a mark here\n\n",
           "");
    expect(": comment\nevent: error\nid: 7\nretry: 5\ndata: e\n\n", "[e]");
    expect("event: ping\n\nid: 1\n\n: keepalive\n\n\n\n", "");
    expect("data\n\n", "[]");
    expect("data:\n\n", "[]");
    expect("datax: 1\ndat: 2\nDATA: 3\n data: 4\n\n", "");
    expect("data: whole\n\ndata: never ended\n", "[whole]");
    expect("data: [DONE]\n\n", "[[DONE]]");
    expect("", "");
}

static void an_event_ends_where_it_is_said_to(void **state)
{
    static const char bytes[] = "data: a\r\n\r\ndata: b\n\nda";
    struct sse s = { 0 };
    struct heard h = { .stop_at = 1 };

    (void)state;
    feed(&s, &h, bytes, sizeof(bytes) - 1);
    assert_int_equal(h.last_end, 11); /* the line feed is a part of the end */
    assert_int_equal(h.n, 1);         /* and it was told to stop */
    assert_false(h.copied);
    sse_fini(&s);
    s = (struct sse){ 0 };
    h.stop_at = 0;
    h.fed = h.last_end = 0;
    feed(&s, &h, bytes, sizeof(bytes) - 1);
    assert_int_equal(h.last_end, 20);
    assert_int_equal(h.n, 3);
    feed(&s, &h, "ta: c\n", 6);
    feed(&s, &h, "\n", 1);
    assert_int_equal(h.last_end, 29);
    assert_string_equal(cox_buf_cstr(&h.text), "[a][a][b][c]");
    sse_fini(&s);
    cox_buf_fini(&h.text);
}

static void an_endless_event_is_refused(void **state)
{
    static const size_t len = 1 << 20;
    struct sse s = { 0 };
    struct heard h = { 0 };
    char *block = cox_alloc(len);
    enum cox_err err = COX_OK;
    int n = 0;

    (void)state;
    memset(block, 'x', len);
    memcpy(block, "data: ", 6);
    for (; err == COX_OK && n < 40; n++) {
        if (n % 2 == 1)
            block[len - 1] = '\n'; /* many lines count as much as one */
        err = sse_feed(&s, cox_slice(block, len), on_event, &h);
    }
    assert_int_equal(err, COX_ERR_FULL);
    assert_int_equal(n, 17);
    assert_int_equal(h.n, 0);
    sse_fini(&s);
    cox_free(block);
}

static uint64_t seed_of_this_run(void)
{
    const char *said = getenv("COX_SEED");
    uint64_t seed = said ? strtoull(said, NULL, 0) : (uint64_t)time(NULL);

    print_message("COX_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

/* Words that make something happen, strung together. */
static void make_stream(struct cox_rng *rng, struct cox_buf *out)
{
    static const char *const words[] = { "data",         ":",  " ",  "\n", "\r", "\r\n", "\n\n",  "data: x",
                                         "\xef\xbb\xbf", "id", "ab", "\0", "\n", "\n",   "data:", "\r\r",
                                         ": c\n\n" };

    for (uint64_t n = cox_rng_below(rng, 40); n > 0; n--)
        cox_buf_append_str(out, words[cox_rng_below(rng, ARRAY_LEN(words))]);
}

static void cuts_do_not_matter(void **state)
{
    uint64_t seed = seed_of_this_run();
    struct cox_rng rng;

    (void)state;
    cox_rng_init(&rng, seed);
    for (int round = 0; round < 20000; round++) {
        struct cox_buf bytes = { 0 };
        struct sse whole = { 0 }, cut = { 0 };
        struct heard a = { 0 }, b = { 0 };

        make_stream(&rng, &bytes);
        feed(&whole, &a, (char *)bytes.data, bytes.len);
        for (size_t at = 0, n; at < bytes.len; at += n) {
            n = 1 + cox_rng_below(&rng, 6);
            n = n < bytes.len - at ? n : bytes.len - at;
            feed(&cut, &b, (char *)bytes.data + at, n);
        }
        check_seeded(cox_slice_eq(cox_buf_slice(&a.text), cox_buf_slice(&b.text)), seed);
        check_seeded(whole.n_events == cut.n_events, seed);
        sse_fini(&whole);
        sse_fini(&cut);
        cox_buf_fini(&a.text);
        cox_buf_fini(&b.text);
        cox_buf_fini(&bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_standard),
        cmocka_unit_test(an_event_ends_where_it_is_said_to),
        cmocka_unit_test(an_endless_event_is_refused),
        cmocka_unit_test(cuts_do_not_matter),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
