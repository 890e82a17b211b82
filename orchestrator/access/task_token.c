#include "task_token.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define VERSION 1u
#define MAC_LEN 32u
#define FIXED_LEN 17u /* version, task, expiry */

/* ---- the key ---- */

static bool sync_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash ? cox_strndup(path, (size_t)(slash - path) + 1) : cox_strdup(".");
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;

    if (fd >= 0)
        (void)close(fd);
    cox_free(dir);
    return ok;
}

/* Under another name first: half a key would be a key. */
static enum cox_err key_make(const char *path, struct task_token_key *ret)
{
    char *new = cox_asprintf("%s.new", path);
    int fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool ok = fd >= 0 && write(fd, ret->b, sizeof(ret->b)) == (ssize_t)sizeof(ret->b) && fsync(fd) == 0 &&
              rename(new, path) == 0 && sync_parent(path);

    if (fd >= 0)
        (void)close(fd);
    cox_free(new);
    return ok ? COX_OK : COX_ERR_IO;
}

enum cox_err task_token_key_load(const char *path, struct task_token_key *ret, struct cox_buf *error)
{
    uint8_t bytes[sizeof(ret->b) + 1];
    enum cox_err err = COX_OK;

    COX_ASSERT(RAND_bytes(ret->b, sizeof(ret->b)) == 1);
    if (!path)
        return COX_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT) {
        err = key_make(path, ret);
    } else if (fd < 0) {
        err = COX_ERR_IO;
    } else {
        ssize_t n = read(fd, bytes, sizeof(bytes));

        err = n < 0 ? COX_ERR_IO : n == (ssize_t)sizeof(ret->b) ? COX_OK : COX_ERR_INVALID;
        if (!err)
            memcpy(ret->b, bytes, sizeof(ret->b));
        (void)close(fd);
    }
    if (err)
        cox_buf_printf(error, "%s: %s", path,
                       err == COX_ERR_INVALID ? "not a key of 32 bytes; take it away, and a new one is made"
                                              : strerrordesc_np(errno));
    return err;
}

/* ---- tokens ---- */

static bool read_hex(struct cox_slice hex, struct cox_buf *out)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i + 1 < hex.len; i += 2) {
        const char *high = memchr(digits, hex.data[i], 16), *low = memchr(digits, hex.data[i + 1], 16);

        if (!high || !low)
            return false;
        cox_put_u8(out, (uint8_t)((high - digits) << 4 | (low - digits)));
    }
    return hex.len % 2 == 0;
}

/* What the key signs has a name before it, so that no other use of the key could be taken for a token. */
static void mac_of(const struct task_token_key *key, struct cox_slice payload, uint8_t ret[MAC_LEN])
{
    struct cox_buf text = { 0 };
    unsigned len = MAC_LEN;

    cox_buf_append_str(&text, "coxswain task token");
    cox_put_bytes(&text, payload);
    COX_ASSERT(HMAC(EVP_sha256(), key->b, sizeof(key->b), text.data, text.len, ret, &len) && len == MAC_LEN);
    cox_buf_fini(&text);
}

void task_token_sign(const struct task_token_key *key, const struct task_token *t, struct cox_buf *out)
{
    struct cox_buf payload = { 0 };
    uint8_t mac[MAC_LEN];

    cox_put_u8(&payload, VERSION);
    cox_put_u64(&payload, t->task);
    cox_put_i64(&payload, t->expires_wall_ms);
    cox_buf_append_str(&payload, t->tenant);
    mac_of(key, cox_buf_slice(&payload), mac);
    cox_buf_append_str(out, TASK_TOKEN_PREFIX);
    cox_buf_append_hex(out, payload.data, payload.len);
    cox_put_u8(out, '.');
    cox_buf_append_hex(out, mac, sizeof(mac));
    cox_buf_fini(&payload);
}

static bool read_payload(struct cox_slice payload, struct task_token *ret)
{
    struct cox_reader r = cox_reader(payload);
    unsigned version = cox_get_u8(&r);

    ret->task = cox_get_u64(&r);
    ret->expires_wall_ms = cox_get_i64(&r);
    struct cox_slice tenant = cox_slice(payload.data + FIXED_LEN, payload.len - FIXED_LEN);

    if (version != VERSION || ret->task == 0 || !access_tenant_ok(tenant))
        return false;
    memcpy(ret->tenant, tenant.data, tenant.len);
    ret->tenant[tenant.len] = '\0';
    return true;
}

bool task_token_verify(const struct task_token_key *key, struct cox_slice text, struct task_token *ret)
{
    const size_t prefix = strlen(TASK_TOKEN_PREFIX);
    const uint8_t *dot = text.len > prefix ? memchr(text.data, '.', text.len) : NULL;
    struct cox_buf payload = { 0 }, mac = { 0 };
    uint8_t expected[MAC_LEN];
    bool ok = dot && (size_t)(dot - text.data) > prefix && memcmp(text.data, TASK_TOKEN_PREFIX, prefix) == 0;

    if (ok) {
        size_t at = (size_t)(dot - text.data);

        ok = read_hex(cox_slice(text.data + prefix, at - prefix), &payload) &&
             read_hex(cox_slice(dot + 1, text.len - at - 1), &mac) && mac.len == MAC_LEN &&
             payload.len > FIXED_LEN;
    }
    if (ok) {
        mac_of(key, cox_buf_slice(&payload), expected);
        ok = (CRYPTO_memcmp(mac.data, expected, MAC_LEN) == 0 || COX_PLANTED("task-token-unsigned")) &&
             read_payload(cox_buf_slice(&payload), ret);
    }
    cox_buf_fini(&payload);
    cox_buf_fini(&mac);
    return ok;
}
