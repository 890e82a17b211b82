#include "cox/base/map.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"

#include <string.h>

#define CAP_MIN ((size_t)16)

/* A slot's value tells its state: NULL is free, TOMB was removed, all else is taken. */
static char tomb;
#define TOMB ((void *)&tomb)

struct cox_map64_slot {
    uint64_t key;
    void *value;
};

struct cox_mapb_slot {
    uint8_t *key;
    size_t key_len;
    uint64_t hash;
    void *value;
};

static bool taken(const void *value)
{
    return value && value != TOMB;
}

/* The finalizer of MurmurHash3 (Appleby): every input bit reaches every output bit. */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ULL;
    x ^= x >> 33;
    return x;
}

uint64_t cox_hash64(const void *data, size_t len)
{
    struct cox_reader r = cox_reader(cox_slice(data, len));
    uint64_t h = 0x9e3779b97f4a7c15ULL ^ len;

    while (cox_reader_left(&r) >= 8)
        h = mix(h ^ cox_get_u64(&r)) + 0x9e3779b97f4a7c15ULL;
    for (unsigned shift = 0; cox_reader_left(&r) > 0; shift += 8)
        h ^= (uint64_t)cox_get_u8(&r) << shift;
    return mix(h);
}

/* The capacity after which one more key fits: 0 when it fits now. Tombs count as load, since a probe walks
 * over them; when they are what fills the table, it is rebuilt at its size. */
static size_t grown_cap(size_t len, size_t n_tombs, size_t cap)
{
    if ((len + n_tombs + 1) * 4 <= cap * 3)
        return 0;
    if (cap == 0)
        return CAP_MIN;
    return (len + 1) * 2 > cap ? cap * 2 : cap;
}

/* The key's slot, or the free slot that ends its probe. The table has a free slot. */
static struct cox_map64_slot *find64(const struct cox_map64 *m, uint64_t key)
{
    size_t i = (size_t)mix(key) & (m->cap - 1);

    while (m->slots[i].value && (m->slots[i].value == TOMB || m->slots[i].key != key))
        i = (i + 1) & (m->cap - 1);
    return &m->slots[i];
}

static void grow64(struct cox_map64 *m)
{
    size_t cap = grown_cap(m->len, m->n_tombs, m->cap);

    if (cap == 0)
        return;
    struct cox_map64 bigger = { .len = m->len, .cap = cap };

    bigger.slots = cox_calloc(cap, sizeof(*bigger.slots));
    for (size_t i = 0; i < m->cap; i++) {
        if (taken(m->slots[i].value))
            *find64(&bigger, m->slots[i].key) = m->slots[i];
    }
    cox_free(m->slots);
    *m = bigger;
}

void cox_map64_fini(struct cox_map64 *m)
{
    cox_free(m->slots);
    *m = (struct cox_map64){ 0 };
}

void *cox_map64_get(const struct cox_map64 *m, uint64_t key)
{
    return m->cap > 0 ? find64(m, key)->value : NULL;
}

void *cox_map64_set(struct cox_map64 *m, uint64_t key, void *value)
{
    COX_ASSERT(value);
    grow64(m);
    struct cox_map64_slot *s = find64(m, key);
    void *old = s->value;

    if (!old)
        m->len++;
    s->key = key;
    s->value = value;
    return old;
}

void *cox_map64_remove(struct cox_map64 *m, uint64_t key)
{
    struct cox_map64_slot *s = m->cap > 0 ? find64(m, key) : NULL;

    if (!s || !s->value)
        return NULL;
    void *old = s->value;

    s->value = TOMB;
    m->len--;
    m->n_tombs++;
    return old;
}

bool cox_map64_next(const struct cox_map64 *m, size_t *it, uint64_t *key, void **value)
{
    while (*it < m->cap) {
        const struct cox_map64_slot *s = &m->slots[(*it)++];
        if (taken(s->value)) {
            *key = s->key;
            *value = s->value;
            return true;
        }
    }
    return false;
}

static bool is_key(const struct cox_mapb_slot *s, struct cox_slice key, uint64_t hash)
{
    return s->hash == hash && cox_slice_eq(cox_slice(s->key, s->key_len), key);
}

static struct cox_mapb_slot *findb(const struct cox_mapb *m, struct cox_slice key, uint64_t hash)
{
    size_t i = (size_t)hash & (m->cap - 1);

    while (m->slots[i].value && (m->slots[i].value == TOMB || !is_key(&m->slots[i], key, hash)))
        i = (i + 1) & (m->cap - 1);
    return &m->slots[i];
}

static void growb(struct cox_mapb *m)
{
    size_t cap = grown_cap(m->len, m->n_tombs, m->cap);

    if (cap == 0)
        return;
    struct cox_mapb bigger = { .len = m->len, .cap = cap };

    bigger.slots = cox_calloc(cap, sizeof(*bigger.slots));
    for (size_t i = 0; i < m->cap; i++) {
        const struct cox_mapb_slot *s = &m->slots[i];
        if (taken(s->value))
            *findb(&bigger, cox_slice(s->key, s->key_len), s->hash) = *s;
    }
    cox_free(m->slots);
    *m = bigger;
}

void cox_mapb_fini(struct cox_mapb *m)
{
    for (size_t i = 0; i < m->cap; i++)
        cox_free(m->slots[i].key);
    cox_free(m->slots);
    *m = (struct cox_mapb){ 0 };
}

void *cox_mapb_get(const struct cox_mapb *m, struct cox_slice key)
{
    return m->cap > 0 ? findb(m, key, cox_hash64(key.data, key.len))->value : NULL;
}

void *cox_mapb_set(struct cox_mapb *m, struct cox_slice key, void *value)
{
    COX_ASSERT(value);
    growb(m);
    uint64_t hash = cox_hash64(key.data, key.len);
    struct cox_mapb_slot *s = findb(m, key, hash);
    void *old = s->value;

    if (!old) {
        *s = (struct cox_mapb_slot){ .key_len = key.len, .hash = hash };
        s->key = (uint8_t *)cox_strndup((const char *)key.data, key.len);
        m->len++;
    }
    s->value = value;
    return old;
}

void *cox_mapb_remove(struct cox_mapb *m, struct cox_slice key)
{
    struct cox_mapb_slot *s = m->cap > 0 ? findb(m, key, cox_hash64(key.data, key.len)) : NULL;

    if (!s || !s->value)
        return NULL;
    void *old = s->value;

    cox_free(s->key);
    *s = (struct cox_mapb_slot){ .value = TOMB };
    m->len--;
    m->n_tombs++;
    return old;
}

bool cox_mapb_next(const struct cox_mapb *m, size_t *it, struct cox_slice *key, void **value)
{
    while (*it < m->cap) {
        const struct cox_mapb_slot *s = &m->slots[(*it)++];
        if (taken(s->value)) {
            *key = cox_slice(s->key, s->key_len);
            *value = s->value;
            return true;
        }
    }
    return false;
}
