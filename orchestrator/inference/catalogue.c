#include "catalogue_text.h"
#include "discovery.h"
#include "endpoint_url.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/map.h"
#include "cox/base/plant.h"

#include <openssl/crypto.h>
#include <string.h>

static const char *const api_paths[] = { "/chat/completions", "/completions", "/embeddings", "/models" };
#define N_TARGETS (sizeof(api_paths) / sizeof(api_paths[0]))

/* A model with what is behind it. */
struct entry {
    struct model m;
    struct catalogue *catalogue;
    struct model_text text;         /* its name is the model's own */
    bool fresh;                     /* by the configuration that is being applied */
    struct cox_mapb endpoint_names; /* -> struct endpoint, of those in `m` */
    struct discovery_source *source;
    struct endpoint_text *found;
    size_t n_found;
};

struct catalogue {
    struct event_base *base;
    struct catalogue_events events;
    void *user;
    struct cox_list models;
    struct cox_mapb names; /* and aliases -> struct entry */
    struct discovery *discovery;
};

static struct entry *entry_of(struct model *m)
{
    return COX_CONTAINER_OF(m, struct entry, m);
}

/* ---- endpoints ---- */

static void wipe(char *secret)
{
    if (secret)
        OPENSSL_cleanse(secret, strlen(secret));
    cox_free(secret);
}

void endpoint_ref(struct endpoint *e)
{
    e->refs++;
}

void endpoint_unref(struct endpoint *e)
{
    if (--e->refs > 0)
        return;
    for (size_t i = 0; i < N_TARGETS; i++)
        cox_free((char *)(uintptr_t)e->targets[i].url);
    wipe(e->bearer);
    cox_free(e->ca_file);
    cox_free(e->upstream_model);
    cox_free(e->url);
    cox_free(e->name);
    model_unref(e->model);
    cox_free(e);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

/* Unlike any other of the model: names are labels of its metrics. */
static char *name_of(const struct entry *en, const struct endpoint_text *text)
{
    struct cox_buf name = { 0 };
    size_t len, n = 1;

    endpoint_url_put_name(&name, text->url);
    if (cox_mapb_get(&en->endpoint_names,
                     cox_buf_slice(&name))) /* the same URL, or http and https of a port */
        cox_buf_printf(&name, "#%s", text->upstream_model ? text->upstream_model : en->m.name);
    len = name.len;
    while (cox_mapb_get(&en->endpoint_names, cox_buf_slice(&name))) {
        name.len = len;
        cox_buf_printf(&name, "#%zu", ++n);
    }
    char *ret = cox_strdup(cox_buf_cstr(&name));

    cox_buf_fini(&name);
    return ret;
}

/* Key, CA and limit: true when the limit is another. What is under way has copied what it needs. */
static bool endpoint_set(struct endpoint *e, const struct endpoint_text *text)
{
    bool limit = e->max_in_flight != text->max_in_flight;

    if (!same_text(e->bearer, text->bearer)) {
        wipe(e->bearer);
        e->bearer = text->bearer ? cox_strdup(text->bearer) : NULL;
    }
    if (!same_text(e->ca_file, text->ca_file)) {
        cox_free(e->ca_file);
        e->ca_file = text->ca_file ? cox_strdup(text->ca_file) : NULL;
    }
    for (size_t i = 0; i < N_TARGETS; i++) {
        e->targets[i].bearer = e->bearer;
        e->targets[i].ca_file = e->ca_file;
    }
    e->max_in_flight = text->max_in_flight;
    return limit;
}

static void add_endpoint(struct catalogue *c, struct model *m, const struct endpoint_text *text)
{
    struct endpoint *e = COX_NEW(struct endpoint);

    e->refs = 1;
    e->model = m;
    model_ref(m);
    e->url = cox_strdup(text->url);
    e->upstream_model = text->upstream_model ? cox_strdup(text->upstream_model) : NULL;
    e->name = name_of(entry_of(m), text);
    (void)cox_mapb_set(&entry_of(m)->endpoint_names, cox_slice_str(e->name), e);
    for (size_t i = 0; i < N_TARGETS; i++)
        e->targets[i].url = cox_asprintf("%s%s", text->url, api_paths[i]);
    (void)endpoint_set(e, text);
    cox_list_push_back(&m->endpoints, &e->node);
    m->n_endpoints++;
    c->events.on_endpoint(c->user, e, true);
}

static void drop_endpoint(struct catalogue *c, struct endpoint *e)
{
    e->gone = true;
    cox_list_remove(&e->node);
    (void)cox_mapb_remove(&entry_of(e->model)->endpoint_names, cox_slice_str(e->name));
    e->model->n_endpoints--;
    c->events.on_endpoint(c->user, e, false);
    endpoint_unref(e);
}

static void put_key(struct cox_buf *key, const char *url, const char *upstream_model)
{
    cox_buf_clear(key);
    cox_buf_printf(key, "%s %s", url, upstream_model ? upstream_model : "");
}

/* What is found gets from its model what it does not say itself. Borrowed texts. */
static struct endpoint_text completed(const struct entry *en, const struct endpoint_text *found)
{
    struct endpoint_text t = en->text.found;

    t.url = found->url;
    t.upstream_model = found->upstream_model ? found->upstream_model : t.upstream_model;
    t.max_in_flight = found->max_in_flight ? found->max_in_flight : t.max_in_flight;
    return t;
}

/* Makes the model's endpoints those that are written and those that were found; the same ones stay. */
static void refresh(struct entry *en)
{
    size_t n = en->text.n_endpoints + en->n_found, n_wanted = 0;
    struct endpoint_text *wanted = cox_calloc(n, sizeof(*wanted));
    struct cox_mapb by_key = { 0 };
    struct cox_buf key = { 0 };
    struct catalogue *c = en->catalogue;

    for (size_t i = 0; i < n; i++) {
        struct endpoint_text t = i < en->text.n_endpoints
                                     ? en->text.endpoints[i]
                                     : completed(en, &en->found[i - en->text.n_endpoints]);
        put_key(&key, t.url, t.upstream_model);
        if (cox_mapb_get(&by_key, cox_buf_slice(&key)))
            continue;
        wanted[n_wanted] = t;
        (void)cox_mapb_set(&by_key, cox_buf_slice(&key), &wanted[n_wanted++]);
    }
    COX_LIST_FOR_EACH (it, &en->m.endpoints) {
        struct endpoint *e = COX_CONTAINER_OF(it, struct endpoint, node);

        put_key(&key, e->url, e->upstream_model);
        const struct endpoint_text *t = cox_mapb_remove(&by_key, cox_buf_slice(&key));

        if (!t || COX_PLANTED("catalogue-anew"))
            drop_endpoint(c, e);
        else if (endpoint_set(e, t) && c->events.on_endpoint_changed)
            c->events.on_endpoint_changed(c->user, e);
    }
    for (size_t i = 0; i < n_wanted; i++) {
        put_key(&key, wanted[i].url, wanted[i].upstream_model);
        if (cox_mapb_get(&by_key, cox_buf_slice(&key)) || COX_PLANTED("catalogue-anew"))
            add_endpoint(c, &en->m, &wanted[i]);
    }
    cox_buf_fini(&key);
    cox_mapb_fini(&by_key);
    cox_free(wanted);
}

static void on_found(void *user, struct endpoint_text *found, size_t n_found)
{
    struct entry *en = user;
    size_t before = en->m.n_endpoints;

    endpoints_free(en->found, en->n_found);
    en->found = found;
    en->n_found = n_found;
    refresh(en);
    if (en->m.n_endpoints != before)
        cox_log(COX_LOG_INFO, "found endpoints", "model", en->m.name, "endpoints",
                COX_LOG_NUM(en->m.n_endpoints), "before", COX_LOG_NUM(before), NULL);
}

/* ---- models ---- */

void model_ref(struct model *m)
{
    m->refs++;
}

void model_unref(struct model *m)
{
    struct entry *en = entry_of(m);

    if (--m->refs > 0)
        return;
    model_text_fini(&en->text);
    endpoints_free(en->found, en->n_found);
    cox_mapb_fini(&en->endpoint_names);
    cox_free(m->name);
    cox_free(en);
}

static bool same_names(char **a, size_t n_a, char **b, size_t n_b)
{
    for (size_t i = 0; n_a == n_b && i < n_a; i++) {
        if (strcmp(a[i], b[i]) != 0)
            return false;
    }
    return n_a == n_b;
}

static bool same_model(const struct model_text *a, const struct model_text *b)
{
    return same_names(a->aliases, a->n_aliases, b->aliases, b->n_aliases) &&
           same_names(a->fallbacks, a->n_fallbacks, b->fallbacks, b->n_fallbacks) &&
           a->context_tokens == b->context_tokens && a->price.input_micros == b->price.input_micros &&
           a->price.output_micros == b->price.output_micros &&
           a->price.cached_input_micros == b->price.cached_input_micros &&
           a->price.per_tokens == b->price.per_tokens && strcmp(a->price.currency, b->price.currency) == 0;
}

/* What was found stays while it is looked for at the same place. */
static void watch(struct entry *en, const struct model_text *before)
{
    struct catalogue *c = en->catalogue;

    if (en->text.discovery == before->discovery && same_text(en->text.source, before->source))
        return;
    discovery_unwatch(c->discovery, en->source);
    en->source = NULL;
    endpoints_free(en->found, en->n_found);
    en->found = NULL;
    en->n_found = 0;
    if (en->text.discovery == DISCOVERY_NONE)
        return;
    if (!c->discovery)
        c->discovery = discovery_create(c->base, on_found);
    en->source = discovery_watch(c->discovery, en->text.discovery, en->text.source, en);
}

/* Takes the text over. */
static void set_model(struct entry *en, struct model_text *text, bool is_new)
{
    struct model_text before = en->text;
    bool changed = is_new || !same_model(text, &before);
    struct model *m = &en->m;

    en->text = *text;
    *text = (struct model_text){ 0 };
    m->aliases = en->text.aliases;
    m->n_aliases = en->text.n_aliases;
    m->fallbacks = en->text.fallbacks;
    m->n_fallbacks = en->text.n_fallbacks;
    m->price = en->text.price;
    m->context_tokens = en->text.context_tokens;
    if (changed)
        en->catalogue->events.on_model(en->catalogue->user, m, true);
    watch(en, &before);
    refresh(en);
    model_text_fini(&before);
}

static struct entry *add_entry(struct catalogue *c, const char *name)
{
    struct entry *en = COX_NEW(struct entry);

    en->catalogue = c;
    en->m.refs = 1;
    en->m.name = cox_strdup(name);
    cox_list_init(&en->m.endpoints);
    cox_list_push_back(&c->models, &en->m.node);
    return en;
}

static void drop_entry(struct entry *en)
{
    struct catalogue *c = en->catalogue;

    COX_LIST_FOR_EACH (it, &en->m.endpoints)
        drop_endpoint(c, COX_CONTAINER_OF(it, struct endpoint, node));
    discovery_unwatch(c->discovery, en->source);
    en->source = NULL;
    cox_list_remove(&en->m.node);
    en->m.gone = true;
    c->events.on_model(c->user, &en->m, false);
    model_unref(&en->m);
}

/* ---- the whole ---- */

struct catalogue *catalogue_create(struct event_base *base, const struct catalogue_events *events, void *user)
{
    struct catalogue *c = COX_NEW(struct catalogue);

    c->base = base;
    c->events = *events;
    c->user = user;
    cox_list_init(&c->models);
    return c;
}

void catalogue_destroy(struct catalogue *c)
{
    if (!c)
        return;
    cox_mapb_fini(&c->names);
    COX_LIST_FOR_EACH (it, &c->models)
        drop_entry(entry_of(COX_CONTAINER_OF(it, struct model, node)));
    discovery_destroy(c->discovery);
    cox_free(c);
}

/* Of those that are in the configuration. */
static void put_names(struct catalogue *c)
{
    cox_mapb_fini(&c->names);
    COX_LIST_FOR_EACH (it, &c->models) {
        struct entry *en = entry_of(COX_CONTAINER_OF(it, struct model, node));

        if (!en->fresh)
            continue;
        (void)cox_mapb_set(&c->names, cox_slice_str(en->m.name), en);
        for (size_t i = 0; i < en->m.n_aliases; i++)
            (void)cox_mapb_set(&c->names, cox_slice_str(en->m.aliases[i]), en);
    }
}

static void drop_stale(struct catalogue *c)
{
    COX_LIST_FOR_EACH (it, &c->models) {
        struct entry *en = entry_of(COX_CONTAINER_OF(it, struct model, node));

        if (!en->fresh)
            drop_entry(en);
    }
}

/* What goes, goes last, when all names mean what they mean from now on: calls of a model that is no more look
 * for its fallbacks. */
void catalogue_apply(struct catalogue *c, struct catalogue_text *text)
{
    struct cox_mapb before = { 0 };

    COX_LIST_FOR_EACH (it, &c->models) {
        struct entry *en = entry_of(COX_CONTAINER_OF(it, struct model, node));

        en->fresh = false;
        (void)cox_mapb_set(&before, cox_slice_str(en->m.name), en);
    }
    for (size_t i = 0; i < text->n_models; i++) {
        struct entry *en = cox_mapb_get(&before, cox_slice_str(text->models[i].name));
        bool is_new = en == NULL;

        if (is_new)
            en = add_entry(c, text->models[i].name);
        en->fresh = true;
        cox_list_remove(&en->m.node); /* in the order of the configuration */
        cox_list_push_back(&c->models, &en->m.node);
        set_model(en, &text->models[i], is_new);
    }
    if (COX_PLANTED("reload-forgets-fallbacks")) {
        cox_mapb_fini(&c->names);
        drop_stale(c);
    }
    put_names(c);
    drop_stale(c);
    cox_mapb_fini(&before);
    catalogue_text_free(text);
}

struct model *catalogue_find(const struct catalogue *c, struct cox_slice name)
{
    struct entry *en = cox_mapb_get(&c->names, name);

    return en ? &en->m : NULL;
}

struct model *catalogue_next(const struct catalogue *c, const struct model *after)
{
    struct cox_list *next = after ? after->node.next : c->models.next;

    return next == &c->models ? NULL : COX_CONTAINER_OF(next, struct model, node);
}
