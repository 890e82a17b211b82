/* What makes a connection one that asks for nothing, and what does not. */
#include "lib/rpc/frames.h"
#include "lib/rpc/offenders.h"

#include "cox/base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum {
    DATA = 0,
    HEADERS = 1,
    PRIORITY = 2,
    RST_STREAM = 3,
    SETTINGS = 4,
    PING = 6,
    WINDOW_UPDATE = 8,
    CONTINUATION = 9
};
#define ACK 1
#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

static void put(struct cox_buf *b, uint8_t kind, uint8_t flags, uint32_t stream, size_t len)
{
    const uint8_t head[9] = {
        (uint8_t)(len >> 16),    (uint8_t)(len >> 8),     (uint8_t)len,           kind,           flags,
        (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream
    };

    cox_buf_append(b, head, sizeof(head));
    memset(cox_buf_extend(b, len), 0xff, len); /* as a head it would be nonsense */
}

/* A connection that has said hello at time 0. */
static struct frames hello(void)
{
    struct frames f = { 0 };

    assert_null(frames_feed(&f, cox_slice_str(PREFACE), 0));
    return f;
}

static const char *say(struct frames *f, struct cox_buf *b, int64_t now_ms)
{
    const char *wrong = frames_feed(f, cox_buf_slice(b), now_ms);

    cox_buf_clear(b);
    return wrong;
}

/* The first of `n` frames, one each `every_ms`, that is too many; 0: none is. */
static size_t first_too_many(uint8_t kind, uint8_t flags, size_t len, size_t n, int64_t every_ms)
{
    struct frames f = hello();
    struct cox_buf b = { 0 };
    size_t found = 0;

    for (size_t i = 1; i <= n && found == 0; i++) {
        put(&b, kind, flags, kind == SETTINGS || kind == PING ? 0 : 1, len);
        if (say(&f, &b, (int64_t)i * every_ms))
            found = i;
    }
    cox_buf_fini(&b);
    return found;
}

static void test_floods_are_told_from_use(void **state)
{
    (void)state;
    assert_int_equal(first_too_many(PING, 0, 8, 2000, 0), 101);
    assert_int_equal(first_too_many(SETTINGS, 0, 6, 2000, 0), 101);
    assert_int_equal(first_too_many(DATA, 0, 0, 2000, 0), 1001);
    assert_int_equal(first_too_many(PRIORITY, 0, 5, 2000, 0), 1001);
    assert_int_equal(first_too_many(HEADERS, 4, 9000, 2000, 0), 11);
    assert_int_equal(first_too_many(PING, ACK, 8, 5000, 0), 0); /* our own, answered */
    assert_int_equal(first_too_many(SETTINGS, ACK, 0, 5000, 0), 0);
    assert_int_equal(first_too_many(DATA, 0, 1, 5000, 0), 0);
    assert_int_equal(first_too_many(DATA, 1, 0, 5000, 0), 0); /* the end of a stream */
    assert_int_equal(first_too_many(WINDOW_UPDATE, 0, 4, 5000, 0), 0);
    assert_int_equal(first_too_many(HEADERS, 4, 900, 50000, 0), 0); /* calls */
    assert_int_equal(first_too_many(PING, 0, 8, 50000, 100), 0);    /* budgets fill up again */
    assert_true(first_too_many(PING, 0, 8, 50000, 50) > 101);
    assert_int_equal(first_too_many(HEADERS, 4, 9000, 5000, 1000), 0);
    assert_true(first_too_many(HEADERS, 4, 9000, 5000, 500) > 11);
}

static void call(struct cox_buf *b, uint32_t stream)
{
    put(b, HEADERS, 4, stream, 60);
}

static void test_a_call_may_be_given_up_but_not_at_once(void **state)
{
    struct frames f = hello();
    struct cox_buf b = { 0 };
    uint32_t stream = 1;

    (void)state;
    for (int i = 0; i < 100; i++) { /* fifty calls, watched for a while, given up together */
        uint32_t first = stream;

        for (int k = 0; k < 50; k++, stream += 2)
            call(&b, stream);
        assert_null(say(&f, &b, i * 50));
        for (; first < stream; first += 2)
            put(&b, RST_STREAM, 0, first, 4);
        assert_null(say(&f, &b, i * 50 + FRAMES_YOUNG_MS));
    }
    for (int i = 0; i < 100; i++, stream += 2) {
        call(&b, stream);
        put(&b, RST_STREAM, 0, stream, 4);
    }
    assert_null(say(&f, &b, 6000));
    call(&b, stream);
    put(&b, RST_STREAM, 0, stream, 4);
    assert_string_equal(say(&f, &b, 6001), "calls that are taken back at once");
    cox_buf_fini(&b);
}

/* What a client does that probes for bandwidth: one ping for what it was given since the last. */
static void test_pings_are_free_for_who_is_given_answers(void **state)
{
    struct frames f = hello();
    struct frames_walk sent = { 0 };
    struct cox_buf b = { 0 };
    size_t n = 0;

    (void)state;
    for (int i = 0; i < 5000; i++) { /* all in the same millisecond */
        put(&b, HEADERS, 4, 1, 30);
        put(&b, DATA, 0, 1, 1000);
        if (frames_answer(&sent, cox_buf_slice(&b)))
            frames_answered(&f);
        cox_buf_clear(&b);
        put(&b, PING, 0, 0, 8);
        assert_null(say(&f, &b, 0));
    }
    for (; n < 1000 && !say(&f, &b, 0); n++)
        put(&b, PING, 0, 0, 8);
    assert_int_equal(n, 101); /* nothing was given for these */
    f = hello();
    frames_answered(&f);
    frames_answered(&f);
    for (n = 0; n < 1000 && !say(&f, &b, 0); n++)
        put(&b, PING, 0, 0, 8);
    assert_int_equal(n, 102); /* one for all of it */
    cox_buf_fini(&b);
}

static void test_an_answer_is_headers_or_data(void **state)
{
    static const struct {
        uint8_t kind, flags;
        bool answers;
    } sent[] = { { SETTINGS, 0, false }, { SETTINGS, ACK, false }, { PING, ACK, false },
                 { PING, 0, false },     { DATA, 0, true },        { WINDOW_UPDATE, 0, false },
                 { HEADERS, 4, true },   { RST_STREAM, 0, false }, { 7 /* GOAWAY */, 0, false } };
    struct frames_walk whole = { 0 }, pieces = { 0 };
    struct cox_buf b = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof(sent) / sizeof(sent[0]); i++) {
        bool found = false;

        put(&b, sent[i].kind, sent[i].flags, 1, 40);
        assert_int_equal(frames_answer(&whole, cox_buf_slice(&b)), sent[i].answers);
        for (size_t k = 0; k < b.len; k++)
            found |= frames_answer(&pieces, cox_slice(b.data + k, 1));
        assert_int_equal(found, sent[i].answers);
        cox_buf_clear(&b);
    }
    cox_buf_fini(&b);
}

static void test_headers_end(void **state)
{
    struct frames f = hello();
    struct cox_buf b = { 0 };
    size_t n = 0;
    const char *wrong = NULL;

    (void)state;
    call(&b, 1);
    for (; !wrong && n < 100000; n++) {
        put(&b, CONTINUATION, 0, 1, 0); /* says nothing, and costs a head */
        wrong = say(&f, &b, 0);
    }
    assert_string_equal(wrong, "headers without end");
    assert_in_range(n, 1000, 10000);
    f = hello();
    put(&b, HEADERS, 0, 1, FRAMES_HEADERS_LEN_MAX + 1);
    assert_string_equal(say(&f, &b, 0), "headers without end");
    cox_buf_fini(&b);
}

/* However the bytes are cut, the same is found at the same place. */
static void test_pieces_of_any_length_say_the_same(void **state)
{
    uint64_t seed = getenv("COX_SEED") ? strtoull(getenv("COX_SEED"), NULL, 10) : (uint64_t)time(NULL);
    struct cox_rng rng;

    (void)state;
    print_message("COX_SEED=%llu\n", (unsigned long long)seed);
    cox_rng_init(&rng, seed);
    for (int round = 0; round < 200; round++) {
        static const uint8_t kinds[] = {
            DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, CONTINUATION, 77
        };
        struct cox_buf b = { 0 };
        struct frames whole = { 0 }, pieces = { 0 };
        const char *wrong = NULL;

        cox_buf_append_str(&b, PREFACE);
        for (int i = 0; i < 400; i++)
            put(&b, kinds[cox_rng_below(&rng, 8)], (uint8_t)cox_rng_below(&rng, 6),
                (uint32_t)cox_rng_below(&rng, 900),
                cox_rng_below(&rng, 4) ? cox_rng_below(&rng, 30) : cox_rng_below(&rng, 12000));
        const char *expected = frames_feed(&whole, cox_buf_slice(&b), 5);

        for (size_t at = 0; at < b.len && !wrong;) {
            size_t n = 1 + (size_t)cox_rng_below(&rng, cox_rng_below(&rng, 2) ? 12 : 5000);

            n = n < b.len - at ? n : b.len - at;
            wrong = frames_feed(&pieces, cox_slice(b.data + at, n), 5);
            at += n;
        }
        if (expected != wrong)
            fail_msg("as a whole: %s; in pieces: %s", expected ? expected : "fine", wrong ? wrong : "fine");
        assert_memory_equal(whole.spent, pieces.spent, sizeof(whole.spent));
        cox_buf_fini(&b);
    }
}

static bool has(const struct offenders *o, uint64_t network, int64_t now_ns)
{
    return offenders_have(o, network, now_ns);
}

static void test_offenders_are_known_for_a_while(void **state)
{
    static struct offenders o;

    (void)state;
    assert_false(has(&o, 1, 0));
    offenders_note(&o, 1, 0);
    offenders_note(&o, 2, 10);
    assert_true(has(&o, 1, 10) && has(&o, 2, 10));
    assert_false(has(&o, 3, 10));
    assert_false(has(&o, 1, OFFENDERS_NS));
    assert_true(has(&o, 2, OFFENDERS_NS));
    /* Of more than it holds, those are forgotten that are over first. */
    for (unsigned i = 1; i <= OFFENDERS_MAX; i++)
        offenders_note(&o, 1000 + i, OFFENDERS_NS / 2 + i);
    assert_true(has(&o, 1001, OFFENDERS_NS / 2 + 100) && has(&o, 1064, OFFENDERS_NS / 2 + 100));
    assert_false(has(&o, 2, OFFENDERS_NS / 2 + 100));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floods_are_told_from_use),
        cmocka_unit_test(test_a_call_may_be_given_up_but_not_at_once),
        cmocka_unit_test(test_pings_are_free_for_who_is_given_answers),
        cmocka_unit_test(test_an_answer_is_headers_or_data),
        cmocka_unit_test(test_headers_end),
        cmocka_unit_test(test_pieces_of_any_length_say_the_same),
        cmocka_unit_test(test_offenders_are_known_for_a_while),
    };

    return cmocka_run_group_tests_name("frames", tests, NULL, NULL);
}
