#include "said.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

void said_cache_init(struct said_cache *c, size_t len_max)
{
    *c = (struct said_cache){ .len_max = len_max };
    cox_list_init(&c->by_use);
}

static void destroy(struct said *s)
{
    cox_buf_fini(&s->text.bytes);
    cox_buf_fini(&s->key);
    cox_free(s);
}

static void forget(struct said_cache *c, struct said *s)
{
    cox_list_remove(&s->node);
    (void)cox_mapb_remove(&c->by_key, cox_buf_slice(&s->key));
    c->len -= s->len;
    destroy(s);
}

void said_cache_fini(struct said_cache *c)
{
    while (!cox_list_empty(&c->by_use))
        forget(c, COX_CONTAINER_OF(c->by_use.next, struct said, node));
    cox_mapb_fini(&c->by_key);
}

/* A request may stand in its conversation and refer to what is long all the same. */
static bool is_worth(const struct conversation_part *part)
{
    return part->is_kept || part->place == CONVERSATION_REQUEST;
}

static struct cox_buf key_of(struct cox_slice tenant, const struct conversation_part *part)
{
    struct cox_buf key = { 0 };

    cox_buf_printf(&key, "%d%c", (int)part->place, part->is_kept ? 'k' : 'v');
    if (!COX_PLANTED("said-to-all"))
        cox_buf_append_slice(&key, tenant);
    cox_buf_append(&key, "", 1);
    if (part->is_kept)
        cox_buf_append(&key, part->hash.b, sizeof(part->hash.b));
    else
        cox_buf_append_slice(&key, part->value);
    return key;
}

struct said *said_find(struct said_cache *c, struct cox_slice tenant, const struct conversation_part *part)
{
    struct cox_buf key = { 0 };
    struct said *s;

    if (!is_worth(part))
        return NULL;
    key = key_of(tenant, part);
    s = cox_mapb_get(&c->by_key, cox_buf_slice(&key));
    cox_buf_fini(&key);
    if (!s)
        return NULL;
    s->n_users++;
    cox_list_remove(&s->node);
    cox_list_push_back(&c->by_use, &s->node);
    return s;
}

#define USED_SEEN_MAX 64u /* in the way of room, before it is given up: they were used a moment ago */

static bool make_room(struct said_cache *c, size_t len)
{
    unsigned n_used = 0;

    if (len > c->len_max)
        return false;
    COX_LIST_FOR_EACH (it, &c->by_use) {
        struct said *s = COX_CONTAINER_OF(it, struct said, node);

        if (c->len + len <= c->len_max || n_used == USED_SEEN_MAX)
            break;
        if (s->n_users == 0)
            forget(c, s);
        else
            n_used++;
    }
    return c->len + len <= c->len_max;
}

struct said *said_add(struct said_cache *c, struct cox_slice tenant, const struct conversation_part *part,
                      struct conversation_text *text)
{
    struct said *s = COX_NEW(struct said);

    s->text = *text;
    *text = (struct conversation_text){ 0 };
    s->n_users = 1;
    cox_list_init(&s->node);
    if (!is_worth(part))
        return s;
    s->key = key_of(tenant, part);
    s->len = s->text.bytes.cap + 2 * s->key.len + sizeof(*s);
    s->cached = !cox_mapb_get(&c->by_key, cox_buf_slice(&s->key)) && make_room(c, s->len);
    if (!s->cached)
        return s;
    (void)cox_mapb_set(&c->by_key, cox_buf_slice(&s->key), s);
    cox_list_push_back(&c->by_use, &s->node);
    c->len += s->len;
    return s;
}

void said_release(struct said_cache *c, struct said *s)
{
    (void)c;
    if (s && --s->n_users == 0 && !s->cached)
        destroy(s);
}
