#include "stream.h"

#define EVENTS_MAX 256

struct reading {
    bool (*on_message)(void *user, const ProtobufCMessage *message);
    void *user;
    bool enough;
    bool closed;
    struct cox_rpc_error *error;
};

static void on_message(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    struct reading *r = user;

    (void)call;
    if (!r->enough)
        r->enough = !r->on_message(r->user, message);
}

static void on_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    struct reading *r = user;

    (void)call;
    r->closed = true;
    r->error = cox_rpc_error_copy(status);
}

enum cli_exit cli_stream(struct cli *cli, const ProtobufCServiceDescriptor *service, const char *method,
                         const ProtobufCMessage *request,
                         bool (*on_one)(void *user, const ProtobufCMessage *message), void *user,
                         struct cox_rpc_error **ret_error)
{
    static const struct cox_rpc_handlers handlers = { .on_message = on_message, .on_closed = on_closed };
    struct reading r = { .on_message = on_one, .user = user };
    struct cox_rpc_call_config config = {
        .service = service, .method = method, .handlers = &handlers, .user = &r
    };
    bool stopped = false, interrupted = false;

    cli_connect(cli);
    struct cox_rpc_call *call = cox_rpc_call_start(cli->channel, &config);

    if (cox_rpc_send(call, request) == COX_OK)
        cox_rpc_half_close(call);
    while (!r.closed) {
        interrupted = interrupted || cli_interrupted();
        if ((interrupted || r.enough) && !stopped) {
            cox_rpc_cancel(call, NULL);
            stopped = true;
        }
        cox_rpc_loop_run_once(cli->loop, COX_RPC_FOREVER, EVENTS_MAX);
    }
    enum cli_exit code = interrupted ? CLI_INTERRUPTED : r.enough ? CLI_OK : cli_exit_of(r.error);

    *ret_error = code == CLI_OK || code == CLI_INTERRUPTED ? NULL : r.error;
    if (!*ret_error)
        cox_rpc_error_free(r.error);
    return code;
}
