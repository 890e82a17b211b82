/* Keys of values within their spaces (cox/store.h). What state and blobs are named by is the key: the hash
 * itself in the default space, which all data of earlier versions is in; elsewhere a hash of space and hash,
 * so that no row and no file of one tenant is ever found by a request of another. */
#ifndef COX_STORE_SPACE_H
#define COX_STORE_SPACE_H

#include "cox/base/plant.h"
#include "cox/store.h"

bool store_space_is_default(const struct cox_space *space);
struct cox_hash store_space_key(const struct cox_space *space, const struct cox_hash *hash);

#endif
