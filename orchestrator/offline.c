#include "offline.h"

#include "recover.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/base/units.h"
#include "cox/engine_stats.h"
#include "cox/store.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PROBLEMS_MAX 100 /* named; the rest are counted */

int cox_offline_restore(const char *from_dir, const char *to_dir)
{
    struct cox_buf error = { 0 };
    enum cox_err err = cox_store_restore(from_dir, to_dir, &error);

    if (err)
        fprintf(stderr, "coxd: cannot restore: %s\n", cox_buf_cstr(&error));
    else
        printf("restored %s to %s; check it with coxd --verify --data-dir %s\n", from_dir, to_dir, to_dir);
    cox_buf_fini(&error);
    return err ? EXIT_FAILURE : EXIT_SUCCESS;
}

struct tenant {
    struct tenant *next;
    char *name;
    struct cox_space space;
};

struct verify {
    struct cox_engine *engine;
    struct tenant *tenants;
    struct cox_map64 of_archived; /* struct tenant, by id */
    struct cox_effects fx;
    json_t *report;
    json_t *problems;
    uint64_t n_problems, n_entities, n_records;
};

static void problem(void *user, const char *what)
{
    struct verify *v = user;

    if (v->n_problems++ < PROBLEMS_MAX)
        (void)json_array_append_new(v->problems, json_string(what));
}

static enum cox_err on_entity(void *user, struct cox_entity_key key, uint64_t applied_seq,
                              struct cox_slice bytes)
{
    struct verify *v = user;

    v->n_entities++;
    return cox_engine_load(v->engine, key, applied_seq, bytes);
}

static enum cox_err on_batch(void *user, uint64_t first_seq, uint32_t n, struct cox_slice records)
{
    struct verify *v = user;

    v->n_records += n;
    return cox_engine_replay(v->engine, first_seq, n, records);
}

static void on_quarantined(void *user, const struct cox_store_quarantined *q)
{
    struct verify *v = user;

    cox_recover_quarantined(v->engine, q);
}

/* Kept: a digest for each of a million tasks of a few tenants would be felt. */
static struct tenant *find_tenant(struct verify *v, struct cox_slice name)
{
    struct tenant *t = v->tenants;

    while (t && !cox_slice_is(name, t->name))
        t = t->next;
    if (t)
        return t;
    t = COX_NEW(struct tenant);
    t->name = cox_strndup((const char *)name.data, name.len);
    t->space = cox_space_of(name);
    t->next = v->tenants;
    v->tenants = t;
    return t;
}

static bool on_space(void *user, uint64_t id, struct cox_space *ret)
{
    struct verify *v = user;
    const struct cox_task *live = cox_engine_find(v->engine, id);
    const struct tenant *t = cox_map64_get(&v->of_archived, id);
    struct cox_task_view view;

    if (live) {
        cox_task_view(live, &view);
        t = find_tenant(v, view.tenant);
    }
    if (t)
        *ret = t->space;
    return t != NULL;
}

static void free_tenants(struct verify *v)
{
    for (struct tenant *t = v->tenants, *next; t; t = next) {
        next = t->next;
        cox_free(t->name);
        cox_free(t);
    }
    cox_map64_fini(&v->of_archived);
}

static bool on_task(void *user, uint64_t id, struct cox_slice bytes)
{
    struct cox_task_view view;
    struct verify *v = user;
    struct cox_task *t;

    if (cox_task_thaw(bytes, &t) != COX_OK)
        return false;
    cox_task_view(t, &view);
    bool good = view.id == id;

    (void)cox_map64_set(&v->of_archived, id, find_tenant(v, view.tenant));
    cox_task_free(t);
    return good;
}

static void count(struct verify *v, const char *name, uint64_t n)
{
    (void)json_object_set_new(v->report, name, json_integer((json_int_t)n));
}

/* Everything recovery does, and the store's own check. */
static enum cox_err run(struct verify *v, struct cox_store *s, struct cox_buf *error)
{
    const struct cox_store_recovery recovery = {
        .quarantined = on_quarantined, .entity = on_entity, .batch = on_batch, .user = v
    };
    struct cox_store_check check = { .problem = problem, .task = on_task, .space = on_space, .user = v };
    struct cox_engine_stats stats;
    uint64_t last_seq = 0;
    const struct cox_now now = { cox_clock_mono_ns(), cox_clock_wall_ms() };
    enum cox_err err = cox_store_recover(s, &recovery, &last_seq, error);

    if (err == COX_OK) {
        err = cox_engine_recovered(v->engine, now, last_seq, &v->fx);
        if (err)
            cox_buf_printf(error, "the recovered state does not fit together: %s", cox_err_text(err));
    }
    if (err == COX_OK)
        err = cox_store_check(s, &check, error);
    if (err != COX_OK)
        return err;
    cox_engine_stats(v->engine, &stats);
    count(v, "last_seq", last_seq);
    count(v, "entities", v->n_entities);
    count(v, "records", v->n_records);
    count(v, "tasks_live", stats.n_live_tasks);
    count(v, "tasks_quarantined", stats.n_tasks_quarantined);
    count(v, "tasks_archived", check.n_archived);
    count(v, "payloads", check.n_payloads);
    count(v, "blobs", check.n_blobs);
    return COX_OK;
}

/* Opening makes what is missing, and here that would be all of it. */
static bool is_data_dir(const char *dir, struct cox_buf *error)
{
    char *path = NULL;
    bool is = asprintf(&path, "%s/log.db", dir) >= 0 && access(path, R_OK) == 0;

    if (!is)
        cox_buf_printf(error, "%s: no data directory: expected log.db in it", dir);
    free(path);
    return is;
}

int cox_offline_lift(const char *dir, const char *task)
{
    struct cox_buf error = { 0 };
    cox_task_id id;
    enum cox_err err = cox_task_id_parse(cox_slice_str(task), &id);

    if (err)
        cox_buf_printf(&error, "\"%s\" is not an id such as t0-00000k", task);
    else if (!is_data_dir(dir, &error))
        err = COX_ERR_NOT_FOUND;
    else if ((err = cox_store_lift(dir, id, &error)) == COX_ERR_NOT_FOUND)
        cox_buf_printf(&error, "task %s is not quarantined in %s", task, dir);
    if (err)
        fprintf(stderr, "coxd: cannot lift: %s\n", cox_buf_cstr(&error));
    else
        printf("%s is taken up again by the next coxd --data-dir %s\n", task, dir);
    cox_buf_fini(&error);
    return err ? EXIT_FAILURE : EXIT_SUCCESS;
}

int cox_offline_verify(const char *dir)
{
    const struct cox_store_config config = { .uri = "sqlite", .data_dir = dir };
    const struct cox_engine_config engine_config = { 0 };
    struct verify v = { .report = json_object(), .problems = json_array() };
    struct cox_buf error = { 0 };
    struct cox_store *s = NULL;

    v.engine = cox_engine_create(&engine_config);
    if (is_data_dir(dir, &error) && cox_store_open(&config, &s, &error) == COX_OK)
        (void)run(&v, s, &error);
    if (error.len > 0)
        problem(&v, cox_buf_cstr(&error));
    (void)json_object_set_new(v.report, "ok", json_boolean(v.n_problems == 0));
    count(&v, "n_problems", v.n_problems);
    (void)json_object_set_new(v.report, "problems", v.problems);
    char *text = json_dumps(v.report, JSON_COMPACT | JSON_PRESERVE_ORDER);

    printf("%s\n", text ? text : "{\"ok\":false}");
    free(text);
    json_decref(v.report);
    cox_store_close(s);
    cox_engine_destroy(v.engine);
    free_tenants(&v);
    cox_effects_fini(&v.fx);
    cox_buf_fini(&error);
    return v.n_problems == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
