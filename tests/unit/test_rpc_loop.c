/* The loop: deadlines, the cap on events, and wake-ups from another thread. */
#include "cox/base/ring.h"
#include "rpc_fixture.h"

#include <coxswain/v1/task_service.pb-c.h>

#include <pthread.h>

#define MS 1000000LL

static int n_requests;
static int n_responses;

static void on_get(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    Coxswain__V1__GetTaskResponse response = COXSWAIN__V1__GET_TASK_RESPONSE__INIT;

    (void)message, (void)user;
    n_requests++;
    cox_rpc_reply(call, &response.base);
}

static const struct cox_rpc_method methods[] = { { "GetTask", { .on_message = on_get } } };
static const struct cox_rpc_service services[] = {
    { &coxswain__v1__task_service__descriptor, methods, 1, NULL },
};

static int setup(void **state)
{
    static struct fixture f;

    fixture_init(&f, (struct cox_rpc_server_config){ .services = services, .n_services = 1 });
    n_requests = 0;
    n_responses = 0;
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture_fini(*state);
    return 0;
}

static void get(struct fixture *f);

/* Keeps the loop busy: every answer brings the next request, until `user` more have been sent. */
static void on_response(const ProtobufCMessage *response, const struct cox_rpc_error *status, void *user)
{
    (void)response;
    if (status->status != COX_RPC_OK)
        return;
    n_responses++;
    if (user)
        get(user);
}

static void get_once(struct fixture *f, void *user)
{
    Coxswain__V1__GetTaskRequest request = COXSWAIN__V1__GET_TASK_REQUEST__INIT;

    cox_rpc_unary(f->channel, &coxswain__v1__task_service__descriptor, "GetTask", &request.base, 0,
                  on_response, user);
}

static void get(struct fixture *f)
{
    get_once(f, f);
}

static void settle(struct fixture *f)
{
    while (cox_rpc_loop_run_once(f->loop, cox_clock_mono_ns() + 50 * MS, 256) > 0)
        ;
}

static void test_waits_until_the_deadline(void **state)
{
    struct fixture *f = *state;

    settle(f);
    int64_t start_ns = cox_clock_mono_ns();

    assert_int_equal(cox_rpc_loop_run_once(f->loop, start_ns + 60 * MS, 256), 0);
    assert_true(cox_clock_mono_ns() - start_ns >= 60 * MS);
}

static void test_a_past_deadline_only_looks(void **state)
{
    struct fixture *f = *state;

    settle(f);
    int64_t start_ns = cox_clock_mono_ns();

    for (int i = 0; i < 10; i++)
        assert_int_equal(cox_rpc_loop_run_once(f->loop, 0, 256), 0);
    assert_true(cox_clock_mono_ns() - start_ns < PATIENCE_NS);
}

static void test_the_cap_loses_no_event(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 50; i++)
        get_once(f, NULL);
    while (n_responses < 50) {
        int before = n_requests + n_responses;
        assert_in_range(cox_rpc_loop_run_once(f->loop, cox_clock_mono_ns() + PATIENCE_NS, 1), 1, 1);
        assert_in_range(n_requests + n_responses - before, 0, 1);
    }
    assert_int_equal(n_requests, 50);
}

static void *wake_once(void *user)
{
    cox_rpc_loop_wake(user);
    return NULL;
}

static void test_wake_ends_a_wait(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;

    settle(f);
    assert_int_equal(pthread_create(&thread, NULL, wake_once, f->loop), 0);
    assert_int_equal(cox_rpc_loop_run_once(f->loop, COX_RPC_FOREVER, 256), 0);
    pthread_join(thread, NULL);

    /* One given before the wait counts too; many are one. */
    for (int i = 0; i < 1000; i++)
        cox_rpc_loop_wake(f->loop);
    assert_int_equal(cox_rpc_loop_run_once(f->loop, COX_RPC_FOREVER, 256), 0);
    int64_t start_ns = cox_clock_mono_ns();

    cox_rpc_loop_run_once(f->loop, start_ns + 20 * MS, 256);
    assert_true(cox_clock_mono_ns() - start_ns >= 20 * MS);
}

#define N_ITEMS 20000

struct producer {
    struct cox_rpc_loop *loop;
    struct cox_ring *ring;
};

static void *produce(void *user)
{
    struct producer *p = user;
    static char items[N_ITEMS];

    for (size_t i = 0; i < N_ITEMS; i++) {
        bool was_empty = false;
        while (!cox_ring_push(p->ring, &items[i], &was_empty))
            ;
        if (was_empty)
            cox_rpc_loop_wake(p->loop);
    }
    return NULL;
}

/* The wait has no deadline worth the name: a wake-up that got lost, with or without traffic, fails the test.
 */
static void pump_ring(struct fixture *f)
{
    struct producer p = { f->loop, cox_ring_create(64) };
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, produce, &p), 0);
    for (int n = 0; n < N_ITEMS;) {
        int64_t start_ns = cox_clock_mono_ns();
        cox_rpc_loop_run_once(f->loop, start_ns + PATIENCE_NS, 256);
        assert_true(cox_clock_mono_ns() - start_ns < PATIENCE_NS);
        while (cox_ring_pop(p.ring))
            n++;
    }
    pthread_join(thread, NULL);
    cox_ring_destroy(p.ring);
}

static void test_no_wake_is_lost_when_idle(void **state)
{
    pump_ring(*state);
}

static void test_no_wake_is_lost_under_load(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 16; i++)
        get(f);
    pump_ring(f);
    int64_t until_ns = cox_clock_mono_ns() + PATIENCE_NS;
    while (n_responses <= 16 &&
           cox_clock_mono_ns() < until_ns) /* each response asks again: the traffic goes on */
        cox_rpc_loop_run_once(f->loop, until_ns, 256);
    assert_true(n_responses > 16);
}

static void test_destroying_the_loop_ends_its_calls(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 10; i++)
        get_once(f, NULL);
    /* teardown destroys channel, server and loop with the calls under way */
    assert_int_equal(n_responses, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_waits_until_the_deadline),
        TEST(test_a_past_deadline_only_looks),
        TEST(test_the_cap_loses_no_event),
        TEST(test_wake_ends_a_wait),
        TEST(test_no_wake_is_lost_when_idle),
        TEST(test_no_wake_is_lost_under_load),
        TEST(test_destroying_the_loop_ends_its_calls),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
