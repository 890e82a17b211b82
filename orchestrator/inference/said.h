/* Texts of conversations (conversation.h), kept by what they were made of: a turn finds what turns before it
 * have rendered. A tenant's are its own. Least recently used first, those that nobody uses are forgotten when
 * there is no room. Thread: one. */
#ifndef COX_ORCHESTRATOR_INFERENCE_SAID_H
#define COX_ORCHESTRATOR_INFERENCE_SAID_H

#include "conversation.h"

#include "cox/base/list.h"
#include "cox/base/map.h"

struct said_cache {
    struct cox_mapb by_key;
    struct cox_list by_use;
    size_t len, len_max; /* bytes */
};
void said_cache_init(struct said_cache *c, size_t len_max);
void said_cache_fini(struct said_cache *c); /* nobody uses any */

struct said {
    struct conversation_text text;
    /* private */
    struct cox_list node;
    struct cox_buf key;
    size_t len;
    uint32_t n_users;
    bool cached;
};
/* NULL: it has none. The caller uses it until said_release. O(1). */
struct said *said_find(struct said_cache *c, struct cox_slice tenant, const struct conversation_part *part);
/* Takes the text over. What there is no room for, and what is short and stands in the conversation itself,
 * lives only until it is released; a request never counts as short. */
struct said *said_add(struct said_cache *c, struct cox_slice tenant, const struct conversation_part *part,
                      struct conversation_text *text);
void said_release(struct said_cache *c, struct said *s); /* NULL is allowed */

#endif
