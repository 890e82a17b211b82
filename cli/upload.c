/* Blobs to the orchestrator, and the folder that a document names as its bundle. */
#include "bundle.h"
#include "document.h"
#include "stream.h"

#include "cox/base/alloc.h"
#include "cox/json.h"
#include "cox/limits.h"

#include "coxswain/v1/blob_service.pb-c.h"

#include <libgen.h>
#include <string.h>

#define EVENTS_MAX 256
#define OUTBOX_LEN ((size_t)4 << 20)

static bool no_more(void *user, const ProtobufCMessage *message)
{
    (void)user;
    (void)message;
    return false;
}

/* Reading from its end moves no bytes. */
static enum cli_exit is_known(struct cli *cli, const char *hash, size_t size, bool *ret_known)
{
    Coxswain__V1__GetBlobRequest request = COXSWAIN__V1__GET_BLOB_REQUEST__INIT;
    struct cox_rpc_error *error = NULL;

    request.hash = (char *)(uintptr_t)hash;
    request.offset = size;
    enum cli_exit code = cli_stream(cli, &coxswain__v1__blob_service__descriptor, "GetBlob", &request.base,
                                    no_more, NULL, &error);

    *ret_known = code == CLI_OK;
    cox_rpc_error_free(error); /* whatever it is, writing will tell */
    return code == CLI_INTERRUPTED ? code : CLI_OK;
}

/* ---- writing --------------------------------------------------------------------------------------------
 */

struct writing {
    struct cox_slice left;
    bool closed;
    bool done; /* half closed */
    struct cox_rpc_error *error;
};

static void send_more(struct cox_rpc_call *call, struct writing *w)
{
    while (w->left.len > 0) {
        Coxswain__V1__PutBlobRequest piece = COXSWAIN__V1__PUT_BLOB_REQUEST__INIT;
        size_t len = w->left.len < COX_BLOB_CHUNK_LEN ? w->left.len : COX_BLOB_CHUNK_LEN;
        piece.data = (ProtobufCBinaryData){ len, (uint8_t *)(uintptr_t)w->left.data };
        if (cox_rpc_send(call, &piece.base) != COX_OK)
            return;
        w->left = cox_slice(w->left.data + len, w->left.len - len);
    }
    if (!w->done)
        cox_rpc_half_close(call);
    w->done = true;
}

static void on_drained(struct cox_rpc_call *call, void *user)
{
    send_more(call, user);
}

static void on_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    struct writing *w = user;

    (void)call;
    w->closed = true;
    w->error = cox_rpc_error_copy(status);
}

static enum cli_exit write_once(struct cli *cli, const char *hash, struct cox_slice bytes,
                                struct cox_rpc_error **ret_error)
{
    static const struct cox_rpc_handlers handlers = { .on_drained = on_drained, .on_closed = on_closed };
    Coxswain__V1__PutBlobRequest head = COXSWAIN__V1__PUT_BLOB_REQUEST__INIT;
    struct writing w = { .left = bytes };
    struct cox_rpc_call_config config = { .service = &coxswain__v1__blob_service__descriptor,
                                          .method = "PutBlob",
                                          .handlers = &handlers,
                                          .user = &w,
                                          .outbox_len_max = OUTBOX_LEN };
    bool stopped = false;

    cli_connect(cli);
    struct cox_rpc_call *call = cox_rpc_call_start(cli->channel, &config);

    head.hash = (char *)(uintptr_t)hash;
    head.size = bytes.len;
    if (cox_rpc_send(call, &head.base) == COX_OK)
        send_more(call, &w);
    while (!w.closed) {
        if (cli_interrupted() && !stopped) {
            cox_rpc_cancel(call, NULL);
            stopped = true;
        }
        cox_rpc_loop_run_once(cli->loop, COX_RPC_FOREVER, EVENTS_MAX);
    }
    *ret_error = w.error;
    return stopped ? CLI_INTERRUPTED : cli_exit_of(w.error);
}

/* Writing again what is there already is nothing: it is tried until time is up. */
static enum cli_exit upload(struct cli *cli, const char *hash, struct cox_slice bytes)
{
    struct cli_outage outage = { 0 };

    for (;;) {
        struct cox_rpc_error *error = NULL;
        enum cli_exit code = write_once(cli, hash, bytes, &error);
        bool again = code == CLI_UNAVAILABLE && error->status == COX_RPC_UNAVAILABLE;
        if (again)
            code = cli_outage_pause(cli, &outage, error);
        if (code && code != CLI_INTERRUPTED)
            cli_print_error_of(cli, "bundle", error);
        cox_rpc_error_free(error);
        if (code || !again)
            return code;
    }
}

/* ---- bundles --------------------------------------------------------------------------------------------
 */

/* A path in a document is relative to the document. */
static char *beside(const struct cli_document *d, const char *path)
{
    char *copy, *joined;

    if (*path == '/' || strcmp(d->name, "-") == 0)
        return cox_strdup(path);
    copy = cox_strdup(d->name);
    joined = cox_asprintf("%s/%s", dirname(copy), path);
    cox_free(copy);
    return joined;
}

static enum cli_exit pack(struct cli *cli, const struct cli_document *d, const char *path, bool send,
                          char *ret_hash)
{
    struct cox_buf bytes = { 0 }, error = { 0 };
    char *dir = beside(d, path);
    bool known = !send;
    enum cli_exit code = CLI_OK;

    if (cli_bundle_pack(dir, &bytes, &error)) {
        struct cox_buf message = { 0 };
        cox_buf_printf(&message, "cannot pack %s: %s", dir, cox_buf_cstr(&error));
        cli_document_violation(d, "bundle", cox_buf_cstr(&message), 0);
        cox_buf_fini(&message);
        code = CLI_USAGE;
    } else {
        cli_hash(cox_buf_slice(&bytes), ret_hash);
        if (!known)
            code = is_known(cli, ret_hash, bytes.len, &known);
        if (!code && !known) {
            cli_note(cli, "uploading %s, %zu KiB", path, (bytes.len + 1023) / 1024);
            code = upload(cli, ret_hash, cox_buf_slice(&bytes));
        }
    }
    cox_free(dir);
    cox_buf_fini(&bytes);
    cox_buf_fini(&error);
    return code;
}

enum cli_exit cli_document_pin(struct cli *cli, struct cli_document *d, bool send)
{
    struct cox_slice json = cli_document_json(d), raw;
    struct cox_buf path = { 0 }, pinned = { 0 };
    char hash[CLI_HASH_LEN + 1];
    enum cli_exit code = CLI_OK;

    if (!cox_json_member(json, "bundle", &raw) || cox_json_kind(raw) != COX_JSON_STRING)
        return CLI_OK;
    cox_json_unquote(&path, raw);
    if (strncmp(cox_buf_cstr(&path), "sha256:", 7) != 0) {
        code = pack(cli, d, cox_buf_cstr(&path), send, hash);
        if (!code) { /* in place: lines stay what they were */
            cox_buf_append(&pinned, json.data, (size_t)(raw.data - json.data));
            cox_json_quote(&pinned, cox_slice_str(hash));
            cox_buf_append(&pinned, raw.data + raw.len, json.len - (size_t)(raw.data + raw.len - json.data));
            cox_buf_fini(&d->pinned);
            d->pinned = pinned;
        }
    }
    cox_buf_fini(&path);
    return code;
}
