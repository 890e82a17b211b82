#include "cache.h"

#include "janitor.h"

#include "cox/base/alloc.h"
#include "cox/base/list.h"
#include "cox/base/map.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOOK_MS 50 /* how soon a waiting caller sees that it is cancelled */

struct cache_entry {
    struct cox_list link; /* of `idle`, while nobody holds it */
    enum cache_kind kind;
    char *key; /* TENANT/HEX */
    char *path;
    uint64_t len;
    uint32_t n_holders;
    bool filling;
};

struct cache {
    char *dirs[CACHE_KIND_NR];
    uint64_t len_max;
    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t filled;
    struct cox_mapb index[CACHE_KIND_NR];
    struct cox_list idle; /* least recently used first */
    uint64_t len;
};

struct cache *cache_create(const char *dir, uint64_t len_max)
{
    struct cache *c = COX_NEW(struct cache);

    c->dirs[CACHE_BLOB] = cox_asprintf("%s/blobs", dir);
    c->dirs[CACHE_BUNDLE] = cox_asprintf("%s/bundles", dir);
    c->len_max = len_max;
    cox_list_init(&c->idle);
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->filled, NULL);
    return c;
}

static void forget(struct cache *c, struct cache_entry *e)
{
    cox_mapb_remove(&c->index[e->kind], cox_slice_str(e->key));
    cox_list_remove(&e->link);
    c->len -= e->len;
    cox_free(e->key);
    cox_free(e->path);
    cox_free(e);
}

void cache_destroy(struct cache *c)
{
    if (!c)
        return;
    for (size_t kind = 0; kind < CACHE_KIND_NR; kind++) {
        struct cox_slice key;
        void *e;
        size_t it = 0;

        while (cox_mapb_next(&c->index[kind], &it, &key, &e)) {
            cox_free(((struct cache_entry *)e)->key);
            cox_free(((struct cache_entry *)e)->path);
            cox_free(e);
        }
        cox_mapb_fini(&c->index[kind]);
        cox_free(c->dirs[kind]);
    }
    pthread_cond_destroy(&c->filled);
    pthread_mutex_destroy(&c->mutex);
    cox_free(c);
}

void cache_tenant(char ret[CACHE_TENANT_MAX], struct cox_slice tenant)
{
    snprintf(ret, CACHE_TENANT_MAX, "%.*s", (int)tenant.len, (const char *)tenant.data);
    for (char *c = ret; *c; c++)
        *c = *c == '/' ? '_' : *c;
}

char *cache_dir(const struct cache *c, enum cache_kind kind, const char *tenant)
{
    return cox_asprintf("%s%s%s", c->dirs[kind], *tenant ? "@" : "", tenant);
}

const char *cache_path(const struct cache_entry *e)
{
    return e->path;
}

/* True when nothing fills it any more; false when cancelled. The mutex is held. */
static bool await_filled(struct cache *c, enum cache_kind kind, const char *key, const atomic_bool *cancelled)
{
    struct cache_entry *e;

    while ((e = cox_mapb_get(&c->index[kind], cox_slice_str(key))) != NULL && e->filling) {
        struct timespec until;

        if (atomic_load(cancelled))
            return false;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += LOOK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&c->filled, &c->mutex, &until);
    }
    return true;
}

/* What somebody who tidied up has taken is as if it had never been there. The mutex is held. */
static bool is_gone(const struct cache_entry *e)
{
    return access(e->path, F_OK) != 0;
}

static void begin_fill(struct cache *c, struct cache_entry *e)
{
    char *dir = cox_strndup(e->path, (size_t)(strrchr(e->path, '/') - e->path));

    (void)!mkdir(dir, 0700);
    cox_free(dir);
    c->len -= e->len;
    e->len = 0;
    e->filling = true;
}

struct cache_entry *cache_hold(struct cache *c, enum cache_kind kind, const char *tenant, const char *hex,
                               const atomic_bool *cancelled, bool *ret_fill)
{
    char *key = cox_asprintf("%s/%s", tenant, hex);
    struct cache_entry *e = NULL;

    pthread_mutex_lock(&c->mutex);
    *ret_fill = false;
    if (await_filled(c, kind, key, cancelled)) {
        e = cox_mapb_get(&c->index[kind], cox_slice_str(key));
        *ret_fill = !e || is_gone(e);
        if (!e) {
            e = COX_NEW(struct cache_entry);
            e->kind = kind;
            char *dir = cache_dir(c, kind, tenant);

            e->key = cox_strdup(key);
            e->path = cox_asprintf("%s/%s", dir, hex);
            cox_free(dir);
            cox_list_init(&e->link);
            cox_mapb_set(&c->index[kind], cox_slice_str(key), e);
        }
        if (*ret_fill)
            begin_fill(c, e);
        cox_list_remove(&e->link);
        e->n_holders++;
    }
    pthread_mutex_unlock(&c->mutex);
    cox_free(key);
    return e;
}

static void remove_files(const struct cache_entry *e)
{
    if (e->kind == CACHE_BLOB)
        unlink(e->path);
    else
        janitor_remove_now(e->path);
}

/* Until it fits. The mutex is held: who wants what goes here finds it gone, not half gone. */
static bool make_room(struct cache *c)
{
    while (c->len > c->len_max && !cox_list_empty(&c->idle)) {
        struct cache_entry *oldest = COX_CONTAINER_OF(c->idle.next, struct cache_entry, link);

        remove_files(oldest);
        forget(c, oldest);
    }
    return c->len <= c->len_max;
}

bool cache_filled(struct cache *c, struct cache_entry *e, bool ok, uint64_t len)
{
    pthread_mutex_lock(&c->mutex);
    e->filling = false;
    if (ok) {
        e->len = len;
        c->len += len;
        ok = make_room(c);
    }
    if (!ok) {
        remove_files(e);
        c->len -= e->len;
        e->len = 0;
        if (--e->n_holders == 0) /* those who held it when it was taken away still do */
            forget(c, e);
    }
    pthread_cond_broadcast(&c->filled);
    pthread_mutex_unlock(&c->mutex);
    return ok;
}

void cache_release(struct cache *c, struct cache_entry *e)
{
    pthread_mutex_lock(&c->mutex);
    if (--e->n_holders == 0) {
        cox_list_push_back(&c->idle, &e->link);
        make_room(c);
    }
    pthread_mutex_unlock(&c->mutex);
}
