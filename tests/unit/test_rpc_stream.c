/* Streams: order, half-close, bounds, pauses, and their end. */
#include "rpc_fixture.h"

#include <coxswain/v1/blob_service.pb-c.h>
#include <coxswain/v1/worker_service.pb-c.h>

#define WORKERS (&coxswain__v1__worker_service__descriptor)
#define BLOBS (&coxswain__v1__blob_service__descriptor)
#define OUTBOX_MAX ((size_t)1 << 20)

/* One end of a stream as its handlers saw it. */
struct end {
    struct cox_rpc_call *call; /* NULL once closed */
    bool echo;
    uint64_t n_received;
    uint64_t n_sent;
    bool in_order;
    int n_opened;
    int n_half_closed;
    int n_drained;
    int n_closed;
    enum cox_rpc_status status;
    char message[64];
};

static struct end served, client;
static int n_server_calls;

/* ---- Attach carries numbers, in hello one way, in welcome the other ---- */

static enum cox_err send_up(struct end *end)
{
    Coxswain__V1__Hello hello = COXSWAIN__V1__HELLO__INIT;
    Coxswain__V1__AttachRequest request = COXSWAIN__V1__ATTACH_REQUEST__INIT;

    hello.shard_uid = end->n_sent;
    request.hello = &hello;
    enum cox_err err = cox_rpc_send(end->call, &request.base);
    if (err == COX_OK)
        end->n_sent++;
    return err;
}

static enum cox_err send_down(struct end *end, size_t padding)
{
    Coxswain__V1__Welcome welcome = COXSWAIN__V1__WELCOME__INIT;
    Coxswain__V1__AttachResponse response = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    ProtobufCMessageUnknownField filler = { 1000, PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, padding + 3, NULL };

    welcome.shard_uid = end->n_sent;
    response.welcome = &welcome;
    if (padding > 0) {
        assert_in_range(padding, 1u << 14, (1u << 21) - 1); /* three bytes of length */
        filler.data = cox_calloc(1, padding + 3);
        filler.data[0] = (uint8_t)(0x80 | (padding & 0x7f));
        filler.data[1] = (uint8_t)(0x80 | (padding >> 7 & 0x7f));
        filler.data[2] = (uint8_t)(padding >> 14);
        response.base.n_unknown_fields = 1;
        response.base.unknown_fields = &filler;
    }
    enum cox_err err = cox_rpc_send(end->call, &response.base);
    cox_free(filler.data);
    if (err == COX_OK)
        end->n_sent++;
    return err;
}

static void receive(struct end *end, uint64_t number)
{
    end->in_order = end->in_order && number == end->n_received;
    end->n_received++;
}

static void closed(struct end *end, const struct cox_rpc_error *status)
{
    end->call = NULL;
    end->n_closed++;
    end->status = status->status;
    snprintf(end->message, sizeof(end->message), "%s", status->message ? status->message : "");
}

static void attach_open(struct cox_rpc_call *call, void *user)
{
    (void)user;
    n_server_calls++;
    served.call = call;
    served.n_opened++;
}

static void attach_message(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    (void)user, (void)call;
    receive(&served, ((const Coxswain__V1__AttachRequest *)(const void *)message)->hello->shard_uid);
    if (served.echo)
        assert_int_equal(send_down(&served, 0), COX_OK);
}

static void attach_half_close(struct cox_rpc_call *call, void *user)
{
    (void)user;
    served.n_half_closed++;
    cox_rpc_finish(call);
}

static void attach_drained(struct cox_rpc_call *call, void *user)
{
    (void)call, (void)user;
    served.n_drained++;
}

static void attach_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    (void)call, (void)user;
    n_server_calls--;
    closed(&served, status);
}

static const struct cox_rpc_method attach_methods[] = {
    { "Attach",
      { .on_open = attach_open,
        .on_message = attach_message,
        .on_half_close = attach_half_close,
        .on_drained = attach_drained,
        .on_closed = attach_closed } },
};

/* ---- PutBlob takes a stream and gives one answer ---- */

static size_t put_len;
static int n_puts_finished;

static void put_message(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    (void)call, (void)user;
    put_len += ((const Coxswain__V1__PutBlobRequest *)(const void *)message)->data.len;
}

static void put_half_close(struct cox_rpc_call *call, void *user)
{
    Coxswain__V1__PutBlobResponse response = COXSWAIN__V1__PUT_BLOB_RESPONSE__INIT;

    (void)user;
    n_puts_finished++;
    response.existed = true;
    cox_rpc_reply(call, &response.base);
}

static const struct cox_rpc_method blob_methods[] = {
    { "PutBlob", { .on_message = put_message, .on_half_close = put_half_close } },
};

static const struct cox_rpc_service services[] = {
    { &coxswain__v1__worker_service__descriptor, attach_methods, 1, NULL },
    { &coxswain__v1__blob_service__descriptor, blob_methods, 1, NULL },
};

/* ---- the client's end ---- */

static void client_open(struct cox_rpc_call *call, void *user)
{
    (void)call;
    ((struct end *)user)->n_opened++;
}

static void client_message(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    (void)call;
    receive(user, ((const Coxswain__V1__AttachResponse *)(const void *)message)->welcome->shard_uid);
}

static void client_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    (void)call;
    closed(user, status);
}

static const struct cox_rpc_handlers client_handlers = { .on_open = client_open,
                                                         .on_message = client_message,
                                                         .on_closed = client_closed };

static void attach(struct fixture *f, struct end *end)
{
    *end = (struct end){ .in_order = true };
    end->call = cox_rpc_call_start(
        f->channel, &(struct cox_rpc_call_config){
                        .service = WORKERS, .method = "Attach", .handlers = &client_handlers, .user = end });
}

static int setup(void **state)
{
    static struct fixture f;

    fixture_init(&f, (struct cox_rpc_server_config){
                         .services = services, .n_services = 2, .outbox_len_max = OUTBOX_MAX });
    served = (struct end){ .in_order = true };
    n_server_calls = 0;
    put_len = 0;
    n_puts_finished = 0;
    attach(&f, &client);
    RUN_UNTIL(&f, served.call);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture_fini(*state);
    assert_int_equal(n_server_calls, 0);
    return 0;
}

static void test_ten_thousand_messages_each_way_in_order(void **state)
{
    struct fixture *f = *state;

    served.echo = true;
    for (int i = 0; i < 10000; i++)
        assert_int_equal(send_up(&client), COX_OK);
    RUN_UNTIL(f, client.n_received == 10000);
    cox_rpc_half_close(client.call);
    assert_int_equal(send_up(&client), COX_ERR_CANCELLED);
    RUN_UNTIL(f, client.n_closed && served.n_closed);
    assert_true(served.in_order);
    assert_true(client.in_order);
    assert_int_equal(served.n_received, 10000);
    assert_int_equal(served.n_half_closed, 1);
    assert_true(served.n_drained > 0);
    assert_int_equal(served.status, COX_RPC_OK);
    assert_int_equal(client.status, COX_RPC_OK);
}

static void test_stream_is_open_before_any_message(void **state)
{
    struct fixture *f = *state;

    RUN_UNTIL(f, client.n_opened == 1);
    assert_int_equal(client.n_received, 0);
    assert_int_equal(served.n_opened, 1);
}

static void test_queued_messages_precede_the_status(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 100; i++)
        assert_int_equal(send_down(&served, 0), COX_OK);
    cox_rpc_fail(served.call,
                 &(struct cox_rpc_error){ .status = COX_RPC_ABORTED, .message = "a newer stream has come" });
    RUN_UNTIL(f, client.n_closed && served.n_closed);
    assert_int_equal(client.n_received, 100);
    assert_int_equal(client.status, COX_RPC_ABORTED);
    assert_string_equal(client.message, "a newer stream has come");
    assert_int_equal(served.status, COX_RPC_OK);
    assert_int_equal(served.n_half_closed, 0);
}

static void fill_outbox(struct fixture *f)
{
    cox_rpc_pause_reads(client.call);
    for (int idle = 0; idle < 3;) {
        enum cox_err err = send_down(&served, 65536);
        assert_true(err == COX_OK || err == COX_ERR_FULL);
        assert_true(cox_rpc_outbox_len(served.call) <= OUTBOX_MAX);
        idle = err == COX_ERR_FULL && cox_rpc_loop_run_once(f->loop, cox_clock_mono_ns() + 20000000, 256) == 0
                   ? idle + 1
                   : 0;
    }
}

static void test_outbox_of_a_peer_that_does_not_read_is_bounded(void **state)
{
    struct fixture *f = *state;
    int n_drained;

    fill_outbox(f);
    assert_in_range(client.n_received, 0, 1);
    n_drained = served.n_drained;
    cox_rpc_resume_reads(client.call);
    RUN_UNTIL(f, client.n_received == served.n_sent);
    assert_true(client.in_order);
    RUN_UNTIL(f, cox_rpc_outbox_len(served.call) == 0);
    assert_true(served.n_drained > n_drained);
}

static void test_a_peer_that_does_not_read_can_be_cut(void **state)
{
    struct fixture *f = *state;

    fill_outbox(f);
    cox_rpc_cancel(served.call, &(struct cox_rpc_error){ .status = COX_RPC_RESOURCE_EXHAUSTED,
                                                         .message = "reads too slowly" });
    RUN_UNTIL(f, served.n_closed);
    assert_int_equal(served.status, COX_RPC_RESOURCE_EXHAUSTED);
    cox_rpc_resume_reads(client.call);
    RUN_UNTIL(f, client.n_closed);
    print_message("client of a cut stream sees %s: %s\n", cox_rpc_status_text(client.status), client.message);
    assert_int_not_equal(client.status, COX_RPC_OK);
    assert_true(client.n_received < served.n_sent);
}

static void test_server_that_does_not_read_holds_the_client(void **state)
{
    struct fixture *f = *state;

    cox_rpc_server_pause_reads(f->server);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(send_up(&client), COX_OK);
    while (cox_rpc_loop_run_once(f->loop, cox_clock_mono_ns() + 20000000, 256) > 0)
        ;
    assert_in_range(served.n_received, 0, 1);
    cox_rpc_server_resume_reads(f->server);
    RUN_UNTIL(f, served.n_received == 1000);
    assert_true(served.in_order);
}

static void test_client_that_vanishes_is_not_a_half_close(void **state)
{
    struct fixture *f = *state;

    send_up(&client);
    RUN_UNTIL(f, served.n_received == 1);
    cox_rpc_channel_destroy(f->channel);
    f->channel = NULL;
    RUN_UNTIL(f, served.n_closed && client.n_closed);
    assert_int_equal(served.n_half_closed, 0);
    assert_int_equal(served.status, COX_RPC_CANCELLED);
    assert_int_equal(client.status, COX_RPC_CANCELLED);
}

static void test_stream_up_and_one_answer(void **state)
{
    struct fixture *f = *state;
    static const struct cox_rpc_handlers handlers = { .on_closed = client_closed };
    Coxswain__V1__PutBlobRequest chunk = COXSWAIN__V1__PUT_BLOB_REQUEST__INIT;
    uint8_t data[1000] = { 0 };
    struct end put = { .in_order = true };

    chunk.data = (ProtobufCBinaryData){ sizeof(data), data };
    put.call = cox_rpc_call_start(
        f->channel, &(struct cox_rpc_call_config){
                        .service = BLOBS, .method = "PutBlob", .handlers = &handlers, .user = &put });
    for (int i = 0; i < 100; i++)
        assert_int_equal(cox_rpc_send(put.call, &chunk.base), COX_OK);
    cox_rpc_half_close(put.call);
    RUN_UNTIL(f, put.n_closed);
    assert_int_equal(put.status, COX_RPC_OK);
    assert_int_equal(put_len, 100000);
    assert_int_equal(n_puts_finished, 1);
}

static void test_destroying_a_server_ends_a_hundred_live_streams(void **state)
{
    struct fixture *f = *state;
    struct end ends[100];
    int n_closed = 0;

    for (int i = 0; i < 100; i++)
        attach(f, &ends[i]);
    RUN_UNTIL(f, n_server_calls == 101);
    served.n_closed = 0;
    cox_rpc_server_destroy(f->server);
    f->server = NULL;
    assert_int_equal(n_server_calls, 0);
    assert_int_equal(served.n_closed, 101);
    for (int i = 0; i < 100; i++) {
        RUN_UNTIL(f, ends[i].n_closed == 1);
        n_closed += ends[i].status != COX_RPC_OK;
    }
    assert_int_equal(n_closed, 100);
}

static void test_a_draining_server_lets_live_calls_end(void **state)
{
    struct fixture *f = *state;
    struct end late;

    served.echo = true;
    cox_rpc_server_drain(f->server);
    send_up(&client);
    RUN_UNTIL(f, client.n_received == 1);
    attach(f, &late);
    RUN_UNTIL(f, late.n_closed);
    assert_int_equal(late.status, COX_RPC_UNAVAILABLE);
    cox_rpc_half_close(client.call);
    RUN_UNTIL(f, client.n_closed);
    assert_int_equal(client.status, COX_RPC_OK);
    assert_int_equal(cox_rpc_server_calls(f->server), 0);
}

/* Eight million empty AttemptRefs: 16 MiB on the wire, a gigabyte in memory. */
static void test_a_message_that_explodes_when_decoded_is_refused(void **state)
{
    struct fixture *f = *state;
    Coxswain__V1__AttachRequest request = COXSWAIN__V1__ATTACH_REQUEST__INIT;
    size_t len = COX_MESSAGE_LEN_MAX - 1;
    uint8_t *bytes = cox_calloc(1, len);
    ProtobufCMessageUnknownField refs = { 2, PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, len, bytes };

    for (size_t i = 1; i + 1 < len; i += 2)
        bytes[i] = 2 << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    request.base.n_unknown_fields = 1;
    request.base.unknown_fields = &refs;
    assert_int_equal(cox_rpc_send(client.call, &request.base), COX_OK);
    cox_free(bytes);
    RUN_UNTIL(f, client.n_closed && served.n_closed);
    assert_int_equal(client.status, COX_RPC_RESOURCE_EXHAUSTED);
    assert_string_equal(client.message, "the coxswain.v1.AttachRequest is too large once decoded");
    assert_int_equal(served.n_received, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_ten_thousand_messages_each_way_in_order),
        TEST(test_stream_is_open_before_any_message),
        TEST(test_queued_messages_precede_the_status),
        TEST(test_outbox_of_a_peer_that_does_not_read_is_bounded),
        TEST(test_a_peer_that_does_not_read_can_be_cut),
        TEST(test_server_that_does_not_read_holds_the_client),
        TEST(test_client_that_vanishes_is_not_a_half_close),
        TEST(test_stream_up_and_one_answer),
        TEST(test_destroying_a_server_ends_a_hundred_live_streams),
        TEST(test_a_message_that_explodes_when_decoded_is_refused),
        TEST(test_a_draining_server_lets_live_calls_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
