/* What the model calls of attempts have spent reaches the engine once, and who is fenced ends. */
#include "attempts.h"
#include "check.h"
#include "router.h"

#include "cox/base/units.h"

#include <string.h>

struct bench {
    struct event_base *base;
    struct attempts *attempts;
    int n_told, n_fenced;
};

static void on_spend(void *user)
{
    struct bench *b = user;

    b->n_told++;
}

static void on_fenced(void *user)
{
    struct bench *b = user;

    b->n_fenced++;
}

static void begin(struct bench *b)
{
    memset(b, 0, sizeof(*b));
    b->base = event_base_new();
    b->attempts =
        attempts_create(&(struct attempts_config){ .base = b->base, .on_spend = on_spend, .user = b });
}

static void end(struct bench *b)
{
    attempts_destroy(b->attempts);
    event_base_free(b->base);
}

static void turn(struct bench *b)
{
    event_base_loop(b->base, EVLOOP_NONBLOCK);
}

static struct cox_ref ref(uint64_t task, uint64_t counter)
{
    return (struct cox_ref){ .task = task, .step = 3, .token = { 5, counter } };
}

static const struct attempts_promise promise = { 300, 80 };

static void let_in(struct attempts *a, struct attempt_call *c, struct cox_ref of, void (*fenced)(void *),
                   void *user)
{
    attempts_begin(a, c, of, fenced, user);
    assert_true(attempts_admit(a, c, promise));
}

static const struct router_books books = { .input_tokens = 100,
                                           .output_tokens = 20,
                                           .cached_tokens = 60,
                                           .wasted_tokens = 7,
                                           .cost_micros = 9,
                                           .currency = "EUR",
                                           .tries = 2 };

static void test_what_is_spent_is_told_once(void **state)
{
    struct attempt_call calls[3];
    struct attempts_spend spend;
    struct bench b;

    (void)state;
    begin(&b);
    let_in(b.attempts, &calls[0], ref(1, 1), on_fenced, &b);
    let_in(b.attempts, &calls[1], ref(1, 1), on_fenced, &b);
    let_in(b.attempts, &calls[2], ref(2, 1), on_fenced, &b); /* of another task */
    turn(&b);
    assert_int_equal(b.n_told, 0);
    attempts_end(b.attempts, &calls[0], &books);
    attempts_end(b.attempts, &calls[1], &books);
    attempts_end(b.attempts, &calls[2], &(struct router_books){ .tries = 0 }); /* refused: no call */
    assert_int_equal(b.n_told, 0);
    turn(&b);
    assert_int_equal(b.n_told, 1);
    assert_true(attempts_take(b.attempts, &spend));
    assert_true(cox_ref_eq(spend.ref, ref(1, 1)));
    assert_int_equal(spend.n_calls, 2);
    assert_int_equal(spend.input_tokens, 200);
    assert_int_equal(spend.output_tokens, 40);
    assert_int_equal(spend.cached_tokens, 120);
    assert_int_equal(spend.wasted_tokens, 14);
    assert_int_equal(spend.cost_micros, 18);
    assert_string_equal(spend.currency, "EUR");
    assert_int_equal(spend.n_ended, 2);
    assert_int_equal(spend.released.reserved, 600);
    assert_int_equal(spend.released.guessed, 160);
    assert_true(attempts_take(b.attempts, &spend));
    assert_true(cox_ref_eq(spend.ref, ref(2, 1)));
    assert_int_equal(spend.n_calls, 0);
    assert_int_equal(spend.n_ended, 1); /* it was let in all the same */
    assert_false(attempts_take(b.attempts, &spend));
    turn(&b);
    assert_int_equal(b.n_told, 1);
    end(&b);
}

/* Told while a call goes on: its end is told beside it, and not again. */
static void test_a_call_that_goes_on(void **state)
{
    struct attempt_call calls[2];
    struct attempts_spend spend;
    struct bench b;

    (void)state;
    begin(&b);
    let_in(b.attempts, &calls[0], ref(1, 1), on_fenced, &b);
    let_in(b.attempts, &calls[1], ref(1, 1), on_fenced, &b);
    attempts_end(b.attempts, &calls[0], &books);
    turn(&b);
    assert_true(attempts_take(b.attempts, &spend));
    assert_int_equal(spend.input_tokens, 100);
    assert_false(attempts_take(b.attempts, &spend));
    while (b.n_told < 2) /* named again, though nothing was spent: it may be fenced */
        event_base_loop(b.base, EVLOOP_ONCE);
    assert_true(attempts_take(b.attempts, &spend));
    assert_int_equal(spend.n_calls + spend.input_tokens + spend.n_ended + spend.released.reserved, 0);
    assert_true(cox_ref_eq(spend.ref, ref(1, 1)));
    assert_false(attempts_take(b.attempts, &spend));
    attempts_end(b.attempts, &calls[1], &books);
    turn(&b);
    assert_true(attempts_take(b.attempts, &spend));
    assert_int_equal(spend.input_tokens, 100);
    assert_false(attempts_take(b.attempts, &spend));
    end(&b);
}

static void test_who_is_fenced_is_told_once(void **state)
{
    struct attempt_call calls[3];
    struct attempts_spend spend;
    struct bench b;

    (void)state;
    begin(&b);
    for (size_t i = 0; i < 3; i++)
        let_in(b.attempts, &calls[i], ref(1, i / 2), on_fenced, &b);
    attempts_fence(b.attempts, ref(1, 7)); /* nobody's */
    assert_int_equal(b.n_fenced, 0);
    attempts_fence(b.attempts, ref(1, 0));
    attempts_fence(b.attempts, ref(1, 0));
    assert_int_equal(b.n_fenced, 2);
    attempts_end(b.attempts, &calls[0], &books); /* what it cost counts all the same */
    attempts_end(b.attempts, &calls[1], &books);
    turn(&b);
    assert_true(attempts_take(b.attempts, &spend));
    assert_int_equal(spend.wasted_tokens, 14);
    assert_false(attempts_take(b.attempts, &spend));
    attempts_end(b.attempts, &calls[2], &books);
    end(&b);
}

/* A call that the engine lets in though another of its attempt was fenced is fenced by its next word. */
static void test_who_is_let_in_again_can_be_fenced_again(void **state)
{
    struct attempt_call calls[2];
    struct bench b;

    (void)state;
    begin(&b);
    let_in(b.attempts, &calls[0], ref(1, 1), on_fenced, &b);
    attempts_fence(b.attempts, ref(1, 1));
    assert_int_equal(b.n_fenced, 1);
    let_in(b.attempts, &calls[1], ref(1, 1), on_fenced, &b);
    attempts_fence(b.attempts, ref(1, 1));
    assert_true(b.n_fenced > 1);
    attempts_end(b.attempts, &calls[0], &books);
    attempts_end(b.attempts, &calls[1], &books);
    end(&b);
}

/* The engine's two answers, that a call may go on and that its attempt is fenced, come in either order. */
static void test_a_fence_before_the_admission_holds(void **state)
{
    struct attempt_call first, second, third;
    struct attempts_spend spend;
    struct bench b;

    (void)state;
    begin(&b);
    let_in(b.attempts, &first, ref(1, 1), on_fenced, &b);
    attempts_begin(b.attempts, &second, ref(1, 1), on_fenced, &b);
    attempts_fence(b.attempts, ref(1, 1));
    assert_int_equal(b.n_fenced, 1); /* the other has not begun */
    assert_false(attempts_admit(b.attempts, &second, promise));
    attempts_begin(b.attempts, &third, ref(1, 1), on_fenced, &b); /* asked for after that */
    assert_true(attempts_admit(b.attempts, &third, promise));
    attempts_fence(b.attempts, ref(1, 1));
    assert_int_equal(b.n_fenced, 2); /* the first has not ended yet: it knows */
    attempts_end(b.attempts, &first, &books);
    attempts_end(b.attempts, &third, &books);
    turn(&b);
    assert_true(attempts_take(b.attempts, &spend));
    assert_int_equal(spend.n_calls, 2);
    assert_false(attempts_take(b.attempts, &spend));
    end(&b);
}

/* What was refused is told to nobody. */
static void test_who_is_refused_was_never_there(void **state)
{
    struct attempt_call call;
    struct attempts_spend spend;
    struct bench b;

    (void)state;
    begin(&b);
    attempts_begin(b.attempts, &call, ref(1, 1), on_fenced, &b);
    attempts_refuse(b.attempts, &call);
    turn(&b);
    assert_int_equal(b.n_told, 0);
    assert_false(attempts_take(b.attempts, &spend));
    end(&b);
}

/* Thousands are named in turn, not all at once; and each is. */
static void test_looks_are_spread(void **state)
{
    enum { N = ATTEMPTS_LOOKS_MAX + 100 };
    static struct attempt_call calls[N];
    struct attempts_spend spend;
    struct bench b;
    unsigned n = 0, n_most = 0;

    (void)state;
    begin(&b);
    for (unsigned i = 0; i < N; i++)
        let_in(b.attempts, &calls[i], ref(1, i + 1), on_fenced, &b);
    while (n < N) {
        unsigned n_now = 0;

        event_base_loop(b.base, EVLOOP_ONCE);
        while (attempts_take(b.attempts, &spend))
            n_now++;
        n_most = n_now > n_most ? n_now : n_most;
        n += n_now;
    }
    assert_int_equal(n_most, ATTEMPTS_LOOKS_MAX);
    for (unsigned i = 0; i < N; i++)
        attempts_end(b.attempts, &calls[i], &books);
    end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_spent_is_told_once),
        cmocka_unit_test(test_a_call_that_goes_on),
        cmocka_unit_test(test_who_is_fenced_is_told_once),
        cmocka_unit_test(test_who_is_let_in_again_can_be_fenced_again),
        cmocka_unit_test(test_a_fence_before_the_admission_holds),
        cmocka_unit_test(test_who_is_refused_was_never_there),
        cmocka_unit_test(test_looks_are_spread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
