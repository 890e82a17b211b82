/* A pack: what its name says, the chunks, the table (32 bytes of hash, u64 where, u32 how long), the root,
 * and at the end u64 where the table is, u32 how many are in it, u64 where the root is, u32 how long, and a
 * mark. */
#include "tree.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define BEGIN "COXPACK1"
#define END "COXENDS1"
#define MARK_LEN 8u
#define TRAILER_LEN (8u + 4u + 8u + 4u + MARK_LEN)
#define ROW_LEN (32u + 8u + 4u)
#define CHUNK_LEN_MAX                                                                                        \
    (SNAPSHOT_CHUNK_LEN + PIECE_LEN_MAX) /* a piece of the list may be a file's entry longer */
#define ROWS_MAX (SNAPSHOT_FILES_MAX * 4u)
#define ROOT_LEN_MAX (1u << 20)

static bool write_all(struct pack_writer *w, struct cox_slice bytes)
{
    while (bytes.len > 0) {
        ssize_t n = write(w->fd, bytes.data, bytes.len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        bytes = cox_slice(bytes.data + n, bytes.len - (size_t)n);
        w->len += (uint64_t)n;
    }
    return true;
}

bool pack_put(struct pack_writer *w, const struct snapshot_store *store, const struct cox_hash *hash,
              struct cox_slice chunk)
{
    if (w->fd < 0) {
        w->fd = store->scratch(store->user);
        if (w->fd < 0 || !write_all(w, cox_slice_str(BEGIN)))
            return false;
    }
    cox_buf_append(&w->table, hash->b, sizeof(hash->b));
    cox_put_u64(&w->table, w->len);
    cox_put_u32(&w->table, (uint32_t)chunk.len);
    w->n++;
    return write_all(w, chunk);
}

bool pack_end(struct pack_writer *w, struct cox_slice root)
{
    struct cox_buf end = { 0 };
    uint64_t table_at = w->len, root_at = w->len + w->table.len;
    bool ok;

    cox_buf_append_slice(&end, root);
    cox_put_u64(&end, table_at);
    cox_put_u32(&end, w->n);
    cox_put_u64(&end, root_at);
    cox_put_u32(&end, (uint32_t)root.len);
    cox_buf_append_str(&end, END);
    ok = write_all(w, cox_buf_slice(&w->table)) && write_all(w, cox_buf_slice(&end));
    cox_buf_fini(&end);
    return ok;
}

void pack_fini(struct pack_writer *w)
{
    if (w->fd >= 0)
        close(w->fd);
    cox_buf_fini(&w->table);
    *w = (struct pack_writer){ .fd = -1 };
}

static bool read_at(int fd, uint64_t at, uint8_t *to, size_t len)
{
    while (len > 0) {
        ssize_t n = pread(fd, to, len, (off_t)at);

        if (n <= 0 && !(n < 0 && errno == EINTR))
            return false;
        n = n > 0 ? n : 0;
        to += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return true;
}

static bool take_rows(struct pack_reader *r, struct cox_slice table, uint64_t len)
{
    struct cox_reader in = cox_reader(table);

    while (cox_reader_left(&in) > 0) {
        struct cox_slice hash = cox_get_raw(&in, 32);
        struct place p = { .at = cox_get_u64(&in), .len = cox_get_u32(&in), .pack = (uint32_t)r->n };

        if (in.bad || p.len > CHUNK_LEN_MAX || p.at > len || p.len > len - p.at)
            return false;
        if (r->n_places == r->cap_places) {
            r->cap_places = r->cap_places ? r->cap_places * 2 : 64;
            r->items = cox_realloc(r->items, r->cap_places, sizeof(*r->items));
        }
        r->items[r->n_places++] = p;
        cox_mapb_set(&r->places, hash, (void *)(uintptr_t)r->n_places);
    }
    return true;
}

static bool open_pack(struct pack_reader *r, int fd, struct cox_buf *root)
{
    uint8_t trailer[TRAILER_LEN], mark[MARK_LEN];
    struct cox_reader in = cox_reader(cox_slice(trailer, sizeof(trailer)));
    struct cox_buf table = { 0 };
    struct stat st;
    uint64_t len, table_at, root_at;
    uint32_t n, root_len;
    bool ok;

    if (fstat(fd, &st) != 0 || st.st_size < (off_t)(MARK_LEN + TRAILER_LEN) ||
        !read_at(fd, 0, mark, MARK_LEN) || memcmp(mark, BEGIN, MARK_LEN) != 0 ||
        !read_at(fd, (uint64_t)st.st_size - TRAILER_LEN, trailer, TRAILER_LEN) ||
        memcmp(trailer + TRAILER_LEN - MARK_LEN, END, MARK_LEN) != 0)
        return false;
    len = (uint64_t)st.st_size - TRAILER_LEN;
    table_at = cox_get_u64(&in);
    n = cox_get_u32(&in);
    root_at = cox_get_u64(&in);
    root_len = cox_get_u32(&in);
    if (n > ROWS_MAX || root_len > ROOT_LEN_MAX || table_at > len || root_at > len ||
        (uint64_t)n * ROW_LEN > len - table_at || root_len > len - root_at)
        return false;
    ok = read_at(fd, table_at, cox_buf_extend(&table, (size_t)n * ROW_LEN), (size_t)n * ROW_LEN) &&
         take_rows(r, cox_buf_slice(&table), len);
    if (ok && root)
        ok = read_at(fd, root_at, cox_buf_extend(root, root_len), root_len);
    cox_buf_fini(&table);
    return ok;
}

bool pack_open(struct pack_reader *r, int fd, struct cox_buf *root)
{
    bool ok = r->n < SNAPSHOT_PACKS_MAX && open_pack(r, fd, root);

    if (ok)
        r->fds[r->n++] = fd;
    else
        close(fd);
    return ok;
}

bool pack_get(struct pack_reader *r, EVP_MD_CTX *digest, const struct cox_hash *hash, struct cox_buf *ret)
{
    uintptr_t found = (uintptr_t)cox_mapb_get(&r->places, cox_slice(hash->b, sizeof(hash->b)));
    const struct place *p = found ? &r->items[found - 1] : NULL;
    struct cox_hash is;

    cox_buf_clear(ret);
    if (!p || !read_at(r->fds[p->pack], p->at, cox_buf_extend(ret, p->len), p->len))
        return false;
    hash_of(digest, cox_buf_slice(ret), &is);
    return memcmp(&is, hash, sizeof(is)) == 0 || COX_PLANTED("chunk-unverified");
}

void pack_reader_fini(struct pack_reader *r)
{
    for (size_t i = 0; i < r->n; i++)
        close(r->fds[i]);
    cox_mapb_fini(&r->places);
    cox_free(r->items);
}
