#include "tar.h"

#include <stdio.h>
#include <string.h>

#include <zlib.h>

#define BLOCK 512
#define GZIP_LEVEL 6
#define GZIP_WINDOW (15 + 16) /* the largest, and a gzip header */

struct header {
    char name[100];
    char mode[8];
    char uid[8];
    char gid[8];
    char size[12];
    char mtime[12];
    char checksum[8];
    char type;
    char link[100];
    char magic[6];
    char version[2];
    char user[32];
    char group[32];
    char major[8];
    char minor[8];
    char prefix[155];
    char pad[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a header is one block");

/* A name beyond 100 bytes is cut at a slash: what is before it goes to the prefix. */
static bool put_name(struct header *h, const char *path)
{
    size_t len = strlen(path);

    if (len <= sizeof(h->name)) {
        memcpy(h->name, path, len);
        return true;
    }
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        size_t before = (size_t)(slash - path), after = len - before - 1;
        if (before <= sizeof(h->prefix) && after > 0 && after <= sizeof(h->name)) {
            memcpy(h->prefix, path, before);
            memcpy(h->name, slash + 1, after);
            return true;
        }
    }
    return false;
}

enum cox_err cli_tar_header(struct cox_buf *out, const char *path, char type, size_t size, bool executable,
                            const char *link)
{
    struct header h = { .type = type, .magic = "ustar", .version = { '0', '0' } };
    unsigned sum = 0;

    if (!put_name(&h, path) || (link && strlen(link) > sizeof(h.link)))
        return COX_ERR_INVALID;
    if (link)
        memcpy(h.link, link, strlen(link));
    snprintf(h.mode, sizeof(h.mode), "%07o", executable ? 0755 : 0644);
    memcpy(h.uid, "0000000", 8);
    memcpy(h.gid, "0000000", 8);
    snprintf(h.size, sizeof(h.size), "%011zo", size);
    memcpy(h.mtime, "00000000000", 12);
    memcpy(h.major, "0000000", 8);
    memcpy(h.minor, "0000000", 8);
    memset(h.checksum, ' ', sizeof(h.checksum));
    for (size_t i = 0; i < sizeof(h); i++)
        sum += ((const unsigned char *)&h)[i];
    snprintf(h.checksum, sizeof(h.checksum), "%06o", sum);
    h.checksum[7] = ' ';
    cox_buf_append(out, &h, sizeof(h));
    return COX_OK;
}

void cli_tar_pad(struct cox_buf *out, size_t size)
{
    static const char zeros[BLOCK];

    cox_buf_append(out, zeros, (BLOCK - size % BLOCK) % BLOCK);
}

void cli_tar_end(struct cox_buf *out)
{
    static const char zeros[2 * BLOCK];

    cox_buf_append(out, zeros, sizeof(zeros));
}

void cli_gzip(struct cox_buf *out, struct cox_slice data)
{
    gz_header header = { .os = 255 };
    z_stream z = { 0 };

    COX_ASSERT(deflateInit2(&z, GZIP_LEVEL, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    COX_ASSERT(deflateSetHeader(&z, &header) == Z_OK);
    size_t bound = deflateBound(&z, data.len);

    cox_buf_reserve(out, bound);
    z.next_in = (unsigned char *)(uintptr_t)data.data;
    z.avail_in = (unsigned)data.len;
    z.next_out = out->data + out->len;
    z.avail_out = (unsigned)bound;
    COX_ASSERT(deflate(&z, Z_FINISH) == Z_STREAM_END);
    out->len += bound - z.avail_out;
    deflateEnd(&z);
}
