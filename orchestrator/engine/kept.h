/* What operators keep under a name: templates and schedules. */
#ifndef ENGINE_KEPT_H
#define ENGINE_KEPT_H

#include "state.h"

/* First in struct template and struct schedule. */
struct kept {
    struct entity entity;
    char *tenant, *name;
    uint32_t major; /* schedules: 0 */
};
void kept_init(struct kept *k, enum entity_kind kind, uint64_t id, struct cox_slice tenant,
               struct cox_slice name, uint32_t major);

/* By tenant, name, major: one of each. Where `key` is, or would be. */
uint32_t kept_place(const struct kept_index *ix, struct cox_slice tenant, struct cox_slice name,
                    uint32_t major);
struct kept *kept_find(const struct kept_index *ix, struct cox_slice tenant, struct cox_slice name,
                       uint32_t major);
void kept_insert(struct kept_index *ix, struct kept *k);
void kept_remove(struct kept_index *ix, const struct kept *k);
void kept_check(const struct kept_index *ix);

bool kept_has_room(const struct cox_engine *e, size_t n, size_t n_max, uint64_t len); /* len more bytes */

static inline struct cox_slice slice_own(struct cox_slice s)
{
    return cox_slice(s.len > 0 ? cox_strndup((const char *)s.data, s.len) : NULL, s.len);
}
static inline void slice_free(struct cox_slice s)
{
    cox_free((void *)(uintptr_t)s.data);
}

#endif
