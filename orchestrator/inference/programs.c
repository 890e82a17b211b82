/* Programs: calls that belong together. Each keeps what its last prompt was, so that the next one is hashed
 * from where it differs; those that have not called for longest are forgotten first. */
#include "router_internal.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"

#include <string.h>

static void put_key(struct cox_buf *key, struct cox_slice tenant, struct cox_slice name)
{
    cox_buf_append_slice(key, tenant);
    cox_put_u8(key, 0);
    cox_buf_append_slice(key, name);
}

void programs_init(struct programs *t)
{
    *t = (struct programs){ 0 };
    cox_list_init(&t->used);
}

static void forget(struct programs *t, struct program *p)
{
    struct cox_buf key = { 0 };

    put_key(&key, cox_slice_str(p->tenant), cox_slice_str(p->name));
    (void)cox_mapb_remove(&t->by_name, cox_buf_slice(&key));
    cox_buf_fini(&key);
    cox_list_remove(&p->used);
    t->held_len -= p->held_len;
    prefix_fini(&p->prefix);
    cox_free(p->tenant);
    cox_free(p->name);
    cox_free(p);
}

void programs_fini(struct programs *t)
{
    COX_LIST_FOR_EACH (it, &t->used) {
        forget(t, COX_CONTAINER_OF(it, struct program, used));
    }
    cox_mapb_fini(&t->by_name);
}

struct program *programs_find(const struct programs *t, struct cox_slice tenant, struct cox_slice name)
{
    struct cox_buf key = { 0 };

    put_key(&key, tenant, name);
    struct program *p = cox_mapb_get(&t->by_name, cox_buf_slice(&key));

    cox_buf_fini(&key);
    return p;
}

/* Those that are busy are passed over: they are the newest in any case. */
static void make_room(struct programs *t)
{
    COX_LIST_FOR_EACH (it, &t->used) {
        if (t->by_name.len < PROGRAMS_MAX && t->held_len <= PROGRAMS_HELD_LEN_MAX)
            return;
        struct program *p = COX_CONTAINER_OF(it, struct program, used);
        if (p->n_busy == 0)
            forget(t, p);
    }
}

struct program *programs_hold(struct programs *t, const struct router_who *who)
{
    struct program *p = programs_find(t, who->tenant, who->program);

    if (!p) {
        struct cox_buf key = { 0 };

        make_room(t);
        p = COX_NEW(struct program);
        p->tenant = cox_strndup((const char *)who->tenant.data, who->tenant.len);
        p->name = cox_strndup((const char *)who->program.data, who->program.len);
        p->number = ++t->last_number;
        p->outside = who->outside;
        put_key(&key, who->tenant, who->program);
        (void)cox_mapb_set(&t->by_name, cox_buf_slice(&key), p);
        cox_buf_fini(&key);
        cox_list_init(&p->used);
    }
    cox_list_remove(&p->used);
    cox_list_push_back(&t->used, &p->used);
    p->books.last_wall_ms = cox_clock_wall_ms();
    p->n_busy++;
    return p;
}

void programs_release(struct programs *t, struct program *p)
{
    size_t len = sizeof(*p) + p->prefix.cap_blocks * sizeof(*p->prefix.blocks) +
                 p->prefix.cap_parts * (size_t)24 + p->prefix.tail.cap;

    p->n_busy--;
    t->held_len += len - p->held_len;
    p->held_len = len;
    if (t->held_len > PROGRAMS_HELD_LEN_MAX)
        make_room(t);
}

void programs_end(struct programs *t, struct placement *placement, struct program *p)
{
    placement_program_end(placement, p->number);
    if (p->n_busy == 0)
        forget(t, p);
}
