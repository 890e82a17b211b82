/* What a snapshot is made of. Private to this folder. */
#ifndef COX_WORKER_SNAPSHOT_TREE_H
#define COX_WORKER_SNAPSHOT_TREE_H

#include "snapshot.h"

#include "cox/base/map.h"

#include <openssl/evp.h>
#include <sys/stat.h>

enum entry_kind { ENTRY_FOLDER = 1, ENTRY_FILE = 2, ENTRY_LINK = 3 }; /* values are in packs */
enum entry_flag {
    ENTRY_STEPS = 1,  /* in packs: it belongs to the user that sandboxed steps are */
    ENTRY_UNSURE = 2, /* it may have changed in the moment in which it was read: read again next time */
};
#define ENTRY_KEPT_FLAGS ENTRY_STEPS

struct entry {
    uint64_t size;
    uint64_t inode;
    int64_t changed_ns, status_ns; /* mtime, ctime */
    uint32_t path_at, path_len;    /* in `names` */
    uint32_t at, n;                /* FILE: its chunks; LINK: its target, in `names` */
    uint16_t mode;
    uint8_t kind, flags;
};

struct pack_ref {
    struct cox_hash hash;
    uint64_t len;
};

struct snapshot {
    struct snapshot_name name;
    struct cox_hash list; /* of the pieces of the list, which have times: equal: there is nothing to store */
    struct cox_buf names; /* paths and links' targets */
    struct entry *entries;
    struct cox_hash *chunks;
    size_t n, cap, n_chunks, cap_chunks;
    struct cox_mapb known; /* chunks that the packs have -> which pack, from 1 */
    struct pack_ref packs[SNAPSHOT_PACKS_MAX];
    size_t n_packs;
    struct cox_hash blobs[SNAPSHOT_PACKS_MAX];
    uint64_t packs_len;
    uint32_t n_left_out, n_moving;
    struct cox_buf first_left_out, first_moving;
};

struct cox_slice entry_path(const struct snapshot *s, const struct entry *e);
struct entry *tree_add(struct snapshot *s, struct cox_slice path);
void tree_add_chunk(struct snapshot *s, const struct cox_hash *hash);
/* The order of a walk that sorts each folder's names: "a" "a/b" "a.c". */
int path_cmp(struct cox_slice a, struct cox_slice b);

/* Appends the entry as it stands in the list, or as it counts for the tree's hash. */
void entry_encode(struct cox_buf *b, const struct snapshot *s, const struct entry *e, bool kept);
/* Adds the next one of a piece; false: it is not one that could stand here. */
bool entry_decode(struct cox_reader *r, struct snapshot *s);
/* A piece of the list ends behind this entry: from its path alone, so that a change moves no other end. */
bool entry_ends_piece(const struct snapshot *s, const struct entry *e, size_t piece_len);
#define PIECE_LEN_MAX (256u << 10)

void tree_name(struct snapshot *s); /* its tree hash, size and count, from its entries */
void hash_of(EVP_MD_CTX *digest, struct cox_slice bytes, struct cox_hash *ret);
void put_path(struct cox_buf *out, struct cox_slice path); /* printable, whatever is in it */

/* ---- packs ---- */

struct pack_writer {
    int fd; /* -1: none is open */
    uint64_t len;
    struct cox_buf table;
    uint32_t n;
};
bool pack_put(struct pack_writer *w, const struct snapshot_store *store, const struct cox_hash *hash,
              struct cox_slice chunk); /* false with errno */
bool pack_end(struct pack_writer *w, struct cox_slice root);
void pack_fini(struct pack_writer *w);

struct place {
    uint64_t at;
    uint32_t len, pack;
};
struct pack_reader {
    int fds[SNAPSHOT_PACKS_MAX];
    size_t n;
    struct cox_mapb places; /* hash -> index + 1 */
    struct place *items;
    size_t n_places, cap_places;
};
/* The pack's chunks are found from here on; takes the descriptor over. `root` (which may be NULL) gets the
 * root's bytes. False: damaged. */
bool pack_open(struct pack_reader *r, int fd, struct cox_buf *root);
/* The chunk, checked. False: it is not there, or is another. */
bool pack_get(struct pack_reader *r, EVP_MD_CTX *digest, const struct cox_hash *hash, struct cox_buf *ret);
void pack_reader_fini(struct pack_reader *r);

#endif
