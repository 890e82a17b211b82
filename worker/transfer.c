#include "transfer.h"

#include "blobs.h"
#include "token.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"
#include "cox/base/units.h"
#include "cox/limits.h"
#include "cox/rpc.h"

#include <coxswain/v1/blob_service.pb-c.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SERVICE (&coxswain__v1__blob_service__descriptor)
#define LOOK_MS 50                   /* how soon a cancel is seen */
#define OUTBOX_LEN ((size_t)1 << 20) /* chunks under way */
#define NAME_LEN (7 + BLOB_HEX_LEN + 1)

struct transfer {
    struct cox_rpc_loop *loop;
    struct cox_rpc_channel *channel;
    char *address, *session;
    const char *token_file;
    bool refused; /* the token was: the next call reads it anew */
    const struct cox_tls_files *tls;

    /* of the call under way */
    struct cox_rpc_call *call;
    const atomic_bool *cancelled;
    struct cox_buf *why;
    enum cox_code code;
    int64_t moved_ns;
    int fd;
    uint64_t len;
    bool stored;
    bool away;
    EVP_MD_CTX *digest;
};

/* ---------------------------------------------------------------- a call */

static void give_up(struct transfer *t, enum cox_code code, const char *message)
{
    if (t->code == COX_CODE_NONE) {
        t->code = code;
        cox_buf_append_str(t->why, message);
    }
    if (t->call)
        cox_rpc_cancel(t->call, NULL);
}

static enum cox_code code_of(enum cox_rpc_status status)
{
    switch (status) {
    case COX_RPC_OK:
        return COX_CODE_NONE;
    case COX_RPC_NOT_FOUND:
    case COX_RPC_INVALID_ARGUMENT:
    case COX_RPC_DATA_LOSS:
        return COX_CODE_INPUT_INVALID;
    case COX_RPC_PERMISSION_DENIED:
    case COX_RPC_UNAUTHENTICATED:
        return COX_CODE_DENIED;
    case COX_RPC_RESOURCE_EXHAUSTED:
        return COX_CODE_RESOURCE_EXHAUSTED;
    default:
        return COX_CODE_UNAVAILABLE;
    }
}

/* What an orchestrator that stops or restarts looks like from here. */
static bool is_outage(enum cox_rpc_status status)
{
    return status == COX_RPC_UNAVAILABLE || status == COX_RPC_UNKNOWN || status == COX_RPC_ABORTED ||
           status == COX_RPC_CANCELLED;
}

static void on_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    struct transfer *t = user;

    (void)call;
    t->call = NULL;
    if (t->code != COX_CODE_NONE || status->status == COX_RPC_OK)
        return;
    t->code = code_of(status->status);
    t->refused = status->status == COX_RPC_UNAUTHENTICATED && t->token_file;
    t->away = is_outage(status->status) || t->refused;
    if (t->refused)
        t->code =
            COX_CODE_UNAVAILABLE; /* it is being changed: what attempts have done must not be lost to that */
    cox_buf_printf(t->why, "the orchestrator's blobs: %s: %.300s", cox_rpc_status_text(status->status),
                   status->message ? status->message : "");
}

static void drop_channel(struct transfer *t)
{
    cox_rpc_channel_destroy(t->channel);
    t->channel = NULL;
    t->refused = false;
}

static bool begin(struct transfer *t, const char *method, const struct transfer_for *whose,
                  const struct cox_rpc_handlers *handlers, const atomic_bool *cancelled, struct cox_buf *why)
{
    t->cancelled = cancelled;
    t->why = why;
    t->code = COX_CODE_NONE;
    t->len = 0;
    t->stored = false;
    if (t->away && t->tls) { /* it may be our certificate, and there may be a new one */
        cox_rpc_channel_destroy(t->channel);
        t->channel = NULL;
    }
    t->away = false;
    t->moved_ns = cox_clock_mono_ns();
    EVP_DigestInit_ex(t->digest, EVP_sha256(), NULL);
    if (t->refused)
        drop_channel(t);
    if (!t->channel) {
        if (!t->address || !*t->address) {
            give_up(t, COX_CODE_UNAVAILABLE, "there is no orchestrator to exchange blobs with");
            return false;
        }
        char *authorization = token_authorization(t->token_file);
        const struct cox_rpc_metadata metadata = { "authorization", authorization };

        t->channel = cox_rpc_channel_create(
            t->loop, &(struct cox_rpc_channel_config){ .target = t->address,
                                                       .own_connection = true,
                                                       .tls = t->tls,
                                                       .metadata = &metadata,
                                                       .n_metadata = authorization != NULL });
        cox_free(authorization);
    }
    char attempt[COX_REF_TEXT_MAX];
    struct cox_rpc_metadata said[3] = { { "cox-attempt", attempt } };
    size_t n = 1;

    cox_ref_format(whose->attempt, attempt);
    if (t->session && *t->session)
        said[n++] = (struct cox_rpc_metadata){ "cox-session", t->session };
    if (*whose->tenant)
        said[n++] = (struct cox_rpc_metadata){ "cox-tenant", whose->tenant };
    t->call = cox_rpc_call_start(t->channel, &(struct cox_rpc_call_config){ .service = SERVICE,
                                                                            .method = method,
                                                                            .handlers = handlers,
                                                                            .user = t,
                                                                            .wait_for_ready = true,
                                                                            .metadata = said,
                                                                            .n_metadata = n });
    return true;
}

/* Runs the loop until the call is over, or `more` (which may be NULL) says that there is something to do. */
static void await(struct transfer *t, bool (*more)(struct transfer *t))
{
    while (t->call && !(more && t->code == COX_CODE_NONE && more(t))) {
        int64_t now_ns = cox_clock_mono_ns();

        if (atomic_load(t->cancelled))
            give_up(t, COX_CODE_CANCELLED, "cancelled");
        if (now_ns - t->moved_ns > TRANSFER_SILENCE_MS * INT64_C(1000000)) {
            t->away |= t->code == COX_CODE_NONE;
            give_up(t, COX_CODE_UNAVAILABLE, "the orchestrator's blobs: nothing moves");
        }
        cox_rpc_loop_run_once(t->loop, now_ns + LOOK_MS * INT64_C(1000000), 64);
    }
}

static void digest(struct transfer *t, struct cox_hash *ret)
{
    unsigned len = sizeof(ret->b);

    COX_ASSERT(EVP_DigestFinal_ex(t->digest, ret->b, &len) == 1 && len == sizeof(ret->b));
}

/* ---------------------------------------------------------------- get */

static bool write_all(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n < 0 && errno != EINTR)
            return false;
        data += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

static void on_chunk(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__GetBlobResponse *m = (const Coxswain__V1__GetBlobResponse *)message;
    struct transfer *t = user;

    (void)call;
    t->moved_ns = cox_clock_mono_ns();
    t->len += m->data.len;
    EVP_DigestUpdate(t->digest, m->data.data, m->data.len);
    if (t->len > COX_BLOB_LEN_MAX)
        give_up(t, COX_CODE_INPUT_INVALID, "a blob is longer than 1 GiB");
    else if (t->code == COX_CODE_NONE && !write_all(t->fd, m->data.data, m->data.len))
        give_up(t, COX_CODE_UNAVAILABLE, "cannot keep a blob on the worker's disk");
}

enum cox_code transfer_get(struct transfer *t, const struct transfer_for *whose, const char *hex,
                           const char *path, const atomic_bool *cancelled, struct cox_buf *why)
{
    static const struct cox_rpc_handlers handlers = { .on_message = on_chunk, .on_closed = on_closed };
    Coxswain__V1__GetBlobRequest m = COXSWAIN__V1__GET_BLOB_REQUEST__INIT;
    char name[NAME_LEN], found[BLOB_HEX_LEN + 1];
    struct cox_hash hash;

    t->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (t->fd < 0) {
        cox_buf_printf(why, "cannot keep a blob on the worker's disk: %s", strerror(errno));
        return COX_CODE_UNAVAILABLE;
    }
    (void)!fchmod(t->fd, 0644); /* a sandboxed step is another user; nobody else gets into the directory */
    if (begin(t, "GetBlob", whose, &handlers, cancelled, why)) {
        snprintf(name, sizeof(name), "sha256:%s", hex);
        m.hash = name;
        (void)cox_rpc_send(t->call, &m.base);
        cox_rpc_half_close(t->call);
        await(t, NULL);
    }
    close(t->fd);
    digest(t, &hash);
    blob_hex(&hash, found);
    if (t->code == COX_CODE_NONE && strcmp(found, hex) != 0 && !COX_PLANTED("blob-unverified")) {
        cox_buf_printf(why, "sha256:%s has other content than its name says", hex);
        t->code = COX_CODE_INPUT_INVALID;
    }
    return t->code;
}

/* ---------------------------------------------------------------- put */

static void on_stored(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    struct transfer *t = user;

    (void)call;
    (void)message;
    t->stored = true;
}

static bool has_room(struct transfer *t)
{
    return cox_rpc_outbox_len(t->call) < OUTBOX_LEN;
}

static bool hash_file(struct transfer *t, int fd, struct cox_hash *ret)
{
    uint8_t chunk[COX_BLOB_CHUNK_LEN];
    ssize_t n;

    t->len = 0;
    EVP_DigestInit_ex(t->digest, EVP_sha256(), NULL);
    while ((n = pread(fd, chunk, sizeof(chunk), (off_t)t->len)) > 0 && t->len <= COX_BLOB_LEN_MAX) {
        EVP_DigestUpdate(t->digest, chunk, (size_t)n);
        t->len += (uint64_t)n;
    }
    digest(t, ret);
    return n >= 0;
}

static void send_file(struct transfer *t, int fd, const char *name)
{
    uint8_t chunk[COX_BLOB_CHUNK_LEN];
    uint64_t at = 0;

    while (t->call && t->code == COX_CODE_NONE && (at < t->len || at == 0)) {
        Coxswain__V1__PutBlobRequest m = COXSWAIN__V1__PUT_BLOB_REQUEST__INIT;
        ssize_t n = pread(fd, chunk, sizeof(chunk), (off_t)at);

        if (n < 0 || (n == 0 && t->len > 0)) {
            give_up(t, COX_CODE_UNAVAILABLE, "a file changed while it was stored");
            break;
        }
        if (at == 0) {
            m.hash = (char *)(uintptr_t)name;
            m.size = t->len;
        }
        m.data.data = chunk;
        m.data.len = (size_t)n;
        if (cox_rpc_send(t->call, &m.base) != COX_OK)
            break; /* it has ended: its status tells */
        at += (uint64_t)n;
        t->moved_ns = cox_clock_mono_ns();
        await(t, has_room);
        if (at == t->len)
            break;
    }
    if (t->call)
        cox_rpc_half_close(t->call);
}

enum cox_code transfer_put(struct transfer *t, const struct transfer_for *whose, int fd,
                           struct cox_hash *ret_hash, uint64_t *ret_len, const atomic_bool *cancelled,
                           struct cox_buf *why)
{
    static const struct cox_rpc_handlers handlers = { .on_message = on_stored, .on_closed = on_closed };
    char name[NAME_LEN] = "sha256:";
    uint64_t len;

    if (!hash_file(t, fd, ret_hash)) {
        cox_buf_printf(why, "cannot read what is to be stored: %s", strerror(errno));
        return COX_CODE_UNAVAILABLE;
    }
    len = t->len;
    if (len > COX_BLOB_LEN_MAX) {
        cox_buf_append_str(why, "more than 1 GiB");
        return COX_CODE_OUTPUT_TOO_LARGE;
    }
    blob_hex(ret_hash, name + 7);
    if (begin(t, "PutBlob", whose, &handlers, cancelled, why)) {
        t->len = len;
        send_file(t, fd, name);
        await(t, NULL);
    }
    if (t->code == COX_CODE_NONE && !t->stored) {
        t->code = COX_CODE_UNAVAILABLE;
        cox_buf_append_str(why, "the orchestrator's blobs: no answer came");
    }
    *ret_len = len;
    return t->code;
}

/* ---------------------------------------------------------------- between calls */

bool transfer_was_away(const struct transfer *t)
{
    return t->away;
}

void transfer_pause(struct transfer *t, int64_t ms, const atomic_bool *cancelled)
{
    int64_t until_ns = cox_clock_mono_ns() + ms * INT64_C(1000000);

    for (int64_t now_ns = 0; now_ns < until_ns && !atomic_load(cancelled); now_ns = cox_clock_mono_ns())
        cox_rpc_loop_run_once(t->loop, until_ns, 64);
}

/* ---------------------------------------------------------------- life */

struct transfer *transfer_create(const char *token_file, const struct cox_tls_files *tls)
{
    struct transfer *t = COX_NEW(struct transfer);

    t->loop = cox_rpc_loop_create();
    t->digest = EVP_MD_CTX_new();
    t->token_file = token_file;
    t->tls = tls;
    COX_ASSERT(t->digest);
    return t;
}

void transfer_aim(struct transfer *t, const char *address, const char *session)
{
    cox_free(t->session);
    t->session = cox_strdup(session);
    if (t->address && strcmp(t->address, address) == 0)
        return;
    drop_channel(t);
    cox_free(t->address);
    t->address = cox_strdup(address);
}

void transfer_destroy(struct transfer *t)
{
    cox_rpc_channel_destroy(t->channel);
    cox_rpc_loop_destroy(t->loop);
    EVP_MD_CTX_free(t->digest);
    cox_free(t->address);
    cox_free(t->session);
    cox_free(t);
}
