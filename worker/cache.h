/* A bounded folder of things named by content: blobs, and bundles unpacked. What somebody holds stays; of the
 * rest the least recently used goes first. Thread: any. */
#ifndef COX_WORKER_CACHE_H
#define COX_WORKER_CACHE_H

#include "blobs.h"

#include <stdatomic.h>

enum cache_kind { CACHE_BLOB, CACHE_BUNDLE, CACHE_KIND_NR };

struct cache;
struct cache_entry;

#define CACHE_TENANT_MAX 64

/* A tenant as part of a path: a name without folders. */
void cache_tenant(char ret[CACHE_TENANT_MAX], struct cox_slice tenant);

/*   dir      blobs are files in dir/blobs, bundles folders in dir/bundles, named by their hex digits; those
 * of a tenant in dir/blobs@TENANT, and so on: what one may have is not there for another len_max  bytes, of
 * all entries together */
struct cache *cache_create(const char *dir, uint64_t len_max);
void cache_destroy(struct cache *c); /* NULL is allowed; the folder stays */

/* Where entries of a kind are; freed by the caller. tenant "": the default one. */
char *cache_dir(const struct cache *c, enum cache_kind kind, const char *tenant);

/* Holds the entry `hex`. When it is not there, `*ret_fill` is true and the caller makes it and says so with
 * cache_filled; others who want it wait for that, until `cancelled` is set: then NULL is returned. */
struct cache_entry *cache_hold(struct cache *c, enum cache_kind kind, const char *tenant, const char *hex,
                               const atomic_bool *cancelled, bool *ret_fill);
const char *cache_path(const struct cache_entry *e);
/* `len` bytes are there, or filling it has failed and the hold is gone. False, and the same, when they have
 * no room beside what others hold. */
bool cache_filled(struct cache *c, struct cache_entry *e, bool ok, uint64_t len);
void cache_release(struct cache *c, struct cache_entry *e);

#endif
