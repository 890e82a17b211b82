#include "cli.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/wire.h"

#include <inttypes.h>
#include <string.h>

#define PAUSE_FIRST_MS 100
#define PAUSE_MAX_MS 1000
#define EVENTS_MAX 256
#define DIAGNOSE_MS 2000
#define CONNECT_LIMIT_MS                                                                                     \
    5000 /* one attempt: who listens and says nothing must not outlast --connect-timeout */

/* ---- connection ------------------------------------------------------------------------------------- */

static const struct cox_tls_files *tls_of(const struct cli *cli)
{
    return cli->tls.ca || cli->tls.cert || cli->tls.key ? &cli->tls : NULL;
}

void cli_connect(struct cli *cli)
{
    if (cli->loop)
        return;
    char *authorization = cli->token ? cox_asprintf("Bearer %s", cli->token) : NULL;
    struct cox_rpc_metadata metadata[2];
    size_t n_metadata = 0;
    bool brief = cli->connect_timeout_ms > 0 && cli->connect_timeout_ms < CONNECT_LIMIT_MS;

    if (authorization)
        metadata[n_metadata++] = (struct cox_rpc_metadata){ "authorization", authorization };
    if (cli->tenant)
        metadata[n_metadata++] = (struct cox_rpc_metadata){ "cox-tenant", cli->tenant };
    cli_interrupt_hold();
    cox_rpc_init();
    cli->loop = cox_rpc_loop_create();
    cli->channel = cox_rpc_channel_create(
        cli->loop, &(struct cox_rpc_channel_config){
                       .target = cli->address,
                       .metadata = metadata,
                       .n_metadata = n_metadata,
                       .tls = tls_of(cli),
                       .reconnect_backoff_ms = PAUSE_FIRST_MS,
                       .reconnect_backoff_max_ms = PAUSE_MAX_MS,
                       .connect_limit_ms = brief ? cli->connect_timeout_ms : CONNECT_LIMIT_MS,
                   });
    cli_interrupt_start(cli->loop);
    cox_free(authorization);
}

void cli_disconnect(struct cli *cli)
{
    if (!cli->loop)
        return;
    cli_interrupt_stop();
    cox_rpc_channel_destroy(cli->channel);
    cox_rpc_loop_destroy(cli->loop);
    cox_rpc_fini();
}

ProtobufCMessage *cli_copy(const ProtobufCMessage *message)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = cox_alloc(len);

    protobuf_c_message_pack(message, bytes);
    ProtobufCMessage *copy = protobuf_c_message_unpack(message->descriptor, &cox_wire_allocator, len, bytes);

    COX_ASSERT(copy);
    cox_free(bytes);
    return copy;
}

bool cli_pause(struct cli *cli, int64_t ms)
{
    int64_t until = cox_clock_mono_ns() + ms * 1000000;

    while (cox_clock_mono_ns() < until && !cli_interrupted())
        cox_rpc_loop_run_once(cli->loop, until, EVENTS_MAX);
    return !cli_interrupted();
}

/* ---- errors ----------------------------------------------------------------------------------------- */

enum cli_exit cli_exit_of(const struct cox_rpc_error *error)
{
    switch (error->status) {
    case COX_RPC_OK:
        return CLI_OK;
    case COX_RPC_INVALID_ARGUMENT:
    case COX_RPC_ALREADY_EXISTS:
    case COX_RPC_FAILED_PRECONDITION:
    case COX_RPC_OUT_OF_RANGE:
    case COX_RPC_UNIMPLEMENTED:
        return CLI_USAGE;
    case COX_RPC_NOT_FOUND:
        return CLI_NOT_FOUND;
    case COX_RPC_PERMISSION_DENIED:
    case COX_RPC_UNAUTHENTICATED:
        return CLI_DENIED;
    default:
        return CLI_UNAVAILABLE;
    }
}

/* What people need of the transport's message: it names each layer that the failure went through. */
static const char *message_of(const struct cox_rpc_error *error)
{
    static const char refused[] = "Failed to connect to remote host: ";
    const char *at = error->message ? strstr(error->message, refused) : NULL;

    if (error->status == COX_RPC_UNAVAILABLE && at)
        return at + strlen(refused);
    return error->message && *error->message ? error->message : cox_rpc_status_text(error->status);
}

static const char *address_hint(const struct cli *cli, const char *message)
{
    if (strstr(message, "http1.x server"))
        return "That is an HTTP port; expected the other one, of `coxd --grpc`.";
    if (!strchr(cli->address, ':'))
        return "Expected HOST:PORT in --address or COX_ADDRESS.";
    return "Is coxd running there? --address or COX_ADDRESS names another.";
}

/* The transport says that a handshake failed, but not why: looks once more. */
static bool says_tls(const struct cli *cli, const struct cox_rpc_error *error)
{
    struct cox_buf why = { 0 };
    bool found = error->status == COX_RPC_UNAVAILABLE && !strstr(message_of(error), "refused") &&
                 cox_tls_diagnose(cli->address, tls_of(cli), DIAGNOSE_MS, &why);

    if (found)
        cli_error("%s: %s", cli->address, cox_buf_cstr(&why));
    cox_buf_fini(&why);
    return found;
}

void cli_print_error_of(const struct cli *cli, const char *of, const struct cox_rpc_error *error)
{
    const char *message = message_of(error), *colon = *of ? ": " : "";

    if (says_tls(cli, error))
        return;
    if (error->status == COX_RPC_UNAVAILABLE)
        cli_error("%s: %s\n     %s", cli->address, message, address_hint(cli, message));
    else if (error->status == COX_RPC_UNIMPLEMENTED)
        cli_error("%s: not available in this version of coxd (%s)", cli->address, message);
    else
        cli_error("%s%s%s", of, colon, message);
    for (size_t i = 0; i < error->n_violations; i++)
        fprintf(stderr, "     %s: %s\n", error->violations[i].field, error->violations[i].description);
    if (error->retry_delay_ms > 0 && error->status != COX_RPC_UNAVAILABLE)
        fprintf(stderr, "     Try again in %" PRId64 " ms.\n", error->retry_delay_ms);
}

void cli_print_error(const struct cli *cli, const struct cox_rpc_error *error)
{
    cli_print_error_of(cli, "", error);
}

/* ---- calls ------------------------------------------------------------------------------------------ */

static bool passes(const struct cox_rpc_error *error)
{
    return error->status == COX_RPC_UNAVAILABLE ||
           (error->status == COX_RPC_RESOURCE_EXHAUSTED && error->retry_delay_ms > 0);
}

/* No connection was made, so nothing was sent: also what must not be said twice may be tried again. */
static bool never_sent(const struct cox_rpc_error *error)
{
    return error->status == COX_RPC_UNAVAILABLE && error->message &&
           strncmp(error->message, "failed to connect", strlen("failed to connect")) == 0;
}

enum cli_exit cli_outage_pause(struct cli *cli, struct cli_outage *o, const struct cox_rpc_error *error)
{
    int64_t now = cox_clock_mono_ns();
    int64_t pause = PAUSE_FIRST_MS;

    if (o->tries++ == 0) {
        o->since_ns = now;
        if (cli->connect_timeout_ms > 0)
            cli_note(cli, "%s: %s; trying for up to %.3g s", cli->address, message_of(error),
                     (double)cli->connect_timeout_ms / 1000);
    }
    for (unsigned i = 1; i < o->tries && pause < PAUSE_MAX_MS; i++)
        pause *= 2;
    if (pause < error->retry_delay_ms)
        pause = error->retry_delay_ms;
    int64_t left = cli->connect_timeout_ms - (now - o->since_ns) / 1000000;

    if (left <= 0) {
        if (cli->connect_timeout_ms > 0)
            cli_note(cli, "%s: gave up after %u tries in %.3g s", cli->address, o->tries,
                     (double)(now - o->since_ns) / 1e9);
        return CLI_UNAVAILABLE;
    }
    return cli_pause(cli, pause < left ? pause : left) ? CLI_OK : CLI_INTERRUPTED;
}

struct answer {
    bool done;
    ProtobufCMessage *response;
    struct cox_rpc_error *error;
};

static void on_response(const ProtobufCMessage *response, const struct cox_rpc_error *status, void *user)
{
    struct answer *a = user;

    a->done = true;
    if (response)
        a->response = cli_copy(response);
    else
        a->error = cox_rpc_error_copy(status);
}

/* One attempt; CLI_INTERRUPTED when Ctrl-C came first. */
static enum cli_exit call_once(struct cli *cli, const ProtobufCServiceDescriptor *service, const char *method,
                               const ProtobufCMessage *request, int64_t timeout_ms, struct answer *a)
{
    struct cox_rpc_call *call =
        cox_rpc_unary(cli->channel, service, method, request, timeout_ms, on_response, a);
    bool stopped = false;

    while (!a->done) {
        if (cli_interrupted() && !stopped) {
            cox_rpc_cancel(call, NULL);
            stopped = true;
        }
        cox_rpc_loop_run_once(cli->loop, COX_RPC_FOREVER, EVENTS_MAX);
    }
    if (a->response)
        return CLI_OK;
    return stopped ? CLI_INTERRUPTED : cli_exit_of(a->error);
}

enum cli_exit cli_try(struct cli *cli, const ProtobufCServiceDescriptor *service, const char *method,
                      const ProtobufCMessage *request, bool repeatable, int64_t timeout_ms,
                      ProtobufCMessage **ret_response, struct cox_rpc_error **ret_error)
{
    struct cli_outage outage = { 0 };

    *ret_error = NULL;
    cli_connect(cli);
    for (;;) {
        struct answer a = { 0 };
        enum cli_exit code = call_once(cli, service, method, request, timeout_ms, &a);
        if (code == CLI_OK) {
            *ret_response = a.response;
            return code;
        }
        if (code != CLI_INTERRUPTED && (never_sent(a.error) || (repeatable && passes(a.error))))
            code = cli_outage_pause(cli, &outage, a.error);
        if (code != CLI_OK && code != CLI_INTERRUPTED) {
            *ret_error = a.error;
            return code;
        }
        cox_rpc_error_free(a.error);
        if (code == CLI_INTERRUPTED)
            return code;
    }
}

enum cli_exit cli_call(struct cli *cli, const ProtobufCServiceDescriptor *service, const char *method,
                       const ProtobufCMessage *request, bool repeatable, ProtobufCMessage **ret_response)
{
    struct cox_rpc_error *error = NULL;
    enum cli_exit code = cli_try(cli, service, method, request, repeatable, 60000, ret_response, &error);

    if (error)
        cli_print_error(cli, error);
    cox_rpc_error_free(error);
    return code;
}
