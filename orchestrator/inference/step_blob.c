#include "step_blob.h"

#include "steps_internal.h"

#include "cox/base/alloc.h"
#include "cox/limits.h"
#include "cox/wire.h"

#include "coxswain/v1/blob_service.pb-c.h"

#include <openssl/evp.h>

#define HASHED_LEN ((size_t)256 << 10) /* a turn of the loop: others wait meanwhile */
#define UNREAD_LEN ((size_t)1 << 20)   /* sent, and not yet taken by the other side */

struct step_blob {
    struct steps *steps;
    struct steps_call *call; /* NULL: not begun, or over */
    struct event *turn;
    struct cox_buf tenant;
    struct cox_hash hash;
    step_blob_done *done;
    void *user;

    /* stored */
    EVP_MD_CTX *digest; /* NULL: it is fetched */
    struct cox_slice bytes;
    size_t at; /* hashed, then sent */
    size_t unread_len;
    bool answered;

    /* fetched */
    struct cox_buf fetched;
    size_t len_max;
};

static void stir(struct step_blob *b)
{
    const struct timeval now = { 0, 0 };

    event_add(b->turn, &now);
}

static void end(struct step_blob *b, enum cox_code code, const char *why)
{
    b->done(b->user, code, why);
}

/* ---- stored ---- */

static void send_piece(struct step_blob *b, bool first)
{
    Coxswain__V1__PutBlobRequest m = COXSWAIN__V1__PUT_BLOB_REQUEST__INIT;
    size_t left = b->bytes.len - b->at;
    char name[COX_HASH_TEXT_MAX];
    struct cox_buf packed = { 0 };

    if (first) {
        cox_hash_format(&b->hash, name);
        m.hash = name;
        m.size = b->bytes.len;
    }
    m.data.data = (uint8_t *)(uintptr_t)b->bytes.data + b->at; /* only read */
    m.data.len = left < COX_BLOB_CHUNK_LEN ? left : COX_BLOB_CHUNK_LEN;
    b->at += m.data.len;
    coxswain__v1__put_blob_request__pack(
        &m, cox_buf_extend(&packed, coxswain__v1__put_blob_request__get_packed_size(&m)));
    b->unread_len += packed.len;
    b->steps->config.port->call_send(b->call, cox_buf_slice(&packed));
    cox_buf_fini(&packed);
}

static void send_more(struct step_blob *b)
{
    while (b->at < b->bytes.len && b->unread_len < UNREAD_LEN) {
        send_piece(b, b->at == 0);
        if (b->at == b->bytes.len)
            b->steps->config.port->call_half_close(b->call);
    }
}

static void on_stored(void *user, struct cox_slice packed)
{
    struct step_blob *b = user;

    (void)packed;
    b->answered = true;
}

static void on_read(void *user, size_t len)
{
    struct step_blob *b = user;

    b->unread_len -= len < b->unread_len ? len : b->unread_len;
    send_more(b);
}

static void on_put_closed(void *user, enum cox_code code, const char *why)
{
    struct step_blob *b = user;

    b->call = NULL;
    if (code == COX_CODE_NONE && !b->answered)
        end(b, COX_CODE_UNAVAILABLE, "no answer came");
    else
        end(b, code, why);
}

static void hash_more(struct step_blob *b)
{
    static const struct steps_call_events events = { on_stored, on_read, on_put_closed };
    size_t left = b->bytes.len - b->at;
    size_t len = left < HASHED_LEN ? left : HASHED_LEN;
    unsigned hash_len = sizeof(b->hash.b);

    COX_ASSERT(EVP_DigestUpdate(b->digest, b->bytes.data + b->at, len) == 1);
    b->at += len;
    if (b->at < b->bytes.len) {
        stir(b);
        return;
    }
    COX_ASSERT(EVP_DigestFinal_ex(b->digest, b->hash.b, &hash_len) == 1 && hash_len == sizeof(b->hash.b));
    b->at = 0;
    b->call = b->steps->config.port->call(b->steps->config.port_user, "/coxswain.v1.BlobService/PutBlob",
                                          cox_buf_slice(&b->tenant), &events, b);
    send_more(b);
}

/* ---- fetched ---- */

static void on_piece(void *user, struct cox_slice packed)
{
    struct step_blob *b = user;
    Coxswain__V1__GetBlobResponse *m =
        coxswain__v1__get_blob_response__unpack(&cox_wire_allocator, packed.len, packed.data);
    size_t len = m ? m->data.len : 0;
    bool fits = b->fetched.len + len <= b->len_max;

    if (m && fits)
        cox_buf_append(&b->fetched, m->data.data, len);
    if (m)
        coxswain__v1__get_blob_response__free_unpacked(m, &cox_wire_allocator);
    if (m && fits)
        return;
    b->steps->config.port->call_drop(b->call);
    b->call = NULL;
    end(b, m ? COX_CODE_INPUT_INVALID : COX_CODE_INTERNAL,
        m ? "it is too long for a request" : "a message that cannot be read");
}

static void on_get_closed(void *user, enum cox_code code, const char *why)
{
    struct step_blob *b = user;

    b->call = NULL;
    end(b, code, why);
}

static void ask(struct step_blob *b)
{
    static const struct steps_call_events events = { on_piece, NULL, on_get_closed };
    Coxswain__V1__GetBlobRequest m = COXSWAIN__V1__GET_BLOB_REQUEST__INIT;
    const struct steps_port *port = b->steps->config.port;
    struct cox_buf packed = { 0 };
    char name[COX_HASH_TEXT_MAX];

    cox_hash_format(&b->hash, name);
    m.hash = name;
    coxswain__v1__get_blob_request__pack(
        &m, cox_buf_extend(&packed, coxswain__v1__get_blob_request__get_packed_size(&m)));
    b->call = port->call(b->steps->config.port_user, "/coxswain.v1.BlobService/GetBlob",
                         cox_buf_slice(&b->tenant), &events, b);
    port->call_send(b->call, cox_buf_slice(&packed));
    port->call_half_close(b->call);
    cox_buf_fini(&packed);
}

/* ---- life ---- */

static void on_turn(int fd, short what, void *arg)
{
    struct step_blob *b = arg;

    (void)fd, (void)what;
    if (b->digest)
        hash_more(b);
    else
        ask(b);
}

static struct step_blob *create(struct steps *s, struct cox_slice tenant, step_blob_done *done, void *user)
{
    struct step_blob *b = COX_NEW(struct step_blob);

    b->steps = s;
    b->done = done;
    b->user = user;
    cox_buf_append_slice(&b->tenant, tenant);
    b->turn = event_new(s->config.base, -1, 0, on_turn, b);
    COX_ASSERT(b->turn);
    stir(b);
    return b;
}

struct step_blob *step_blob_put(struct steps *s, struct cox_slice tenant, struct cox_slice bytes,
                                step_blob_done *done, void *user)
{
    struct step_blob *b = create(s, tenant, done, user);

    b->bytes = bytes;
    b->digest = EVP_MD_CTX_new();
    COX_ASSERT(b->digest && EVP_DigestInit_ex(b->digest, EVP_sha256(), NULL) == 1);
    return b;
}

struct cox_hash step_blob_hash(const struct step_blob *b)
{
    return b->hash;
}

struct step_blob *step_blob_get(struct steps *s, struct cox_slice tenant, const struct cox_hash *hash,
                                size_t len_max, step_blob_done *done, void *user)
{
    struct step_blob *b = create(s, tenant, done, user);

    b->hash = *hash;
    b->len_max = len_max;
    return b;
}

struct cox_buf *step_blob_bytes(struct step_blob *b)
{
    return &b->fetched;
}

void step_blob_free(struct step_blob *b)
{
    if (!b)
        return;
    if (b->call && !b->steps->ending)
        b->steps->config.port->call_drop(b->call);
    event_free(b->turn);
    EVP_MD_CTX_free(b->digest);
    cox_buf_fini(&b->tenant);
    cox_buf_fini(&b->fetched);
    cox_free(b);
}
