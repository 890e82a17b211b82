#include "recover.h"

#include "crash_note.h"

#include "cox/base/log.h"
#include "cox/base/units.h"

#include <inttypes.h>
#include <string.h>

#define NS_PER_MS 1000000LL

struct recovering {
    struct cox_engine *engine;
    struct cox_driver_recovery *found;
    bool refused; /* the engine would not take something */
};

/* What an engine shows of a task of which nothing can be read. */
static void unread_image(struct cox_buf *ret)
{
    const struct cox_task_source source = {
        .kind = COX_SOURCE_TASK,
        .document = cox_slice_str("{\"api_version\":\"v1\",\"name\":\"unreadable\","
                                  "\"steps\":{\"unreadable\":{\"run\":{\"argv\":[\"true\"]}}}}"),
    };
    struct cox_violations violations;
    enum cox_err err = cox_task_compile(&source, ret, &violations);

    COX_ASSERT(err == COX_OK);
    cox_violations_fini(&violations);
}

void cox_recover_quarantined(struct cox_engine *e, const struct cox_store_quarantined *q)
{
    const struct cox_quarantined task = {
        .root = q->root,
        .why = q->why,
        .unread = q->unread,
        .archived = q->archived,
        .deleted = q->deleted,
    };
    struct cox_buf image = { 0 };

    unread_image(&image);
    cox_engine_quarantine(e, &task, cox_buf_slice(&image));
    cox_buf_fini(&image);
}

static void on_quarantined(void *user, const struct cox_store_quarantined *q)
{
    struct recovering *r = user;

    cox_recover_quarantined(r->engine, q);
}

static enum cox_err on_entity(void *user, struct cox_entity_key key, uint64_t applied_seq,
                              struct cox_slice bytes)
{
    struct recovering *r = user;

    r->found->n_entities++;
    enum cox_err err = cox_engine_load(r->engine, key, applied_seq, bytes);

    r->refused = err != COX_OK;
    return err;
}

static enum cox_err on_batch(void *user, uint64_t first_seq, uint32_t n, struct cox_slice records)
{
    struct recovering *r = user;

    r->found->n_records += n;
    r->found->log_len += records.len;
    enum cox_err err = cox_engine_replay(r->engine, first_seq, n, records);

    r->refused = err != COX_OK;
    return err;
}

/* ---- what crashed before ---- */

static void put_place(struct cox_buf *b, const struct cox_place *p)
{
    switch (p->phase) {
    case COX_PLACE_LOAD:
        cox_buf_printf(b, "loading entity (%" PRIu32 ", %" PRIu64 ", %" PRIu32 ")", p->kind, p->at, p->sub);
        break;
    case COX_PLACE_REPLAY:
        cox_buf_printf(b, "applying record %" PRIu64 " of the log", p->at);
        break;
    case COX_PLACE_DERIVE:
        cox_buf_printf(b, "taking up step %" PRIu32 " of task %" PRIu64 " (stage %" PRIu32 ")", p->sub, p->at,
                       p->kind);
        break;
    case COX_PLACE_NONE:
    default:
        cox_buf_append_str(b, "at a place that is not known");
        break;
    }
}

static void log_crash(const struct cox_crashes *c, const char *place)
{
    char id[COX_TASK_ID_TEXT_MAX] = "";

    if (c->place.root)
        cox_task_id_format(c->place.root, id);
    cox_log(COX_LOG_WARN, "the last recovery did not come to its end", "signal",
            c->signal ? strsignal(c->signal) : "none", "place", place, "task", id, "times", COX_LOG_NUM(c->n),
            NULL);
}

/* Nothing in the log or the state depends on which tasks are left alone: those that are lost with a power cut
 * are found again. */
static enum cox_err quarantine(struct cox_store *store, struct cox_crash_note *note,
                               const struct cox_crashes *c, const char *place, struct cox_buf *error)
{
    struct cox_buf why = { 0 };
    char id[COX_TASK_ID_TEXT_MAX];

    cox_task_id_format(c->place.root, id);
    if (c->n_quarantined >= COX_QUARANTINE_MAX) {
        cox_buf_printf(
            error,
            "recovery has failed %s, and %u tasks were quarantined in a row before: this is not one "
            "task's; start another version, or give it more memory",
            place, COX_QUARANTINE_MAX);
        return COX_ERR_INTERNAL;
    }
    cox_buf_printf(&why, "quarantined: recovery failed %u times %s", c->n, place);
    if (c->signal)
        cox_buf_printf(&why, " (%s)", strsignal(c->signal));
    cox_buf_append_str(&why, "; all of it is kept, and `cox admin lift` takes it up again");
    enum cox_err err = cox_store_quarantine(store, c->place.root, cox_buf_cstr(&why), error);

    if (err == COX_OK) {
        cox_crash_note_quarantined(note);
        cox_log(COX_LOG_ERROR, "quarantined a task: it stays as it is, and recovery leaves it alone", "task",
                id, "why", cox_buf_cstr(&why), NULL);
    }
    cox_buf_fini(&why);
    return err;
}

static enum cox_err deal_with_crashes(struct cox_store *store, struct cox_crash_note *note,
                                      const struct cox_crashes *c, struct cox_buf *error)
{
    struct cox_buf place = { 0 };
    enum cox_err err = COX_OK;

    if (!c->unfinished)
        return COX_OK;
    put_place(&place, &c->place);
    log_crash(c, cox_buf_cstr(&place));
    if (c->place.phase != COX_PLACE_NONE && c->n >= COX_CRASHES_MAX) {
        if (c->place.root)
            err = quarantine(store, note, c, cox_buf_cstr(&place), error);
        else
            cox_log(COX_LOG_ERROR, "recovery fails, and no task can be quarantined for it", "place",
                    cox_buf_cstr(&place), NULL);
    }
    cox_buf_fini(&place);
    return err;
}

/* ---- recovery ---- */

static enum cox_err run(struct cox_store *store, struct recovering *r, struct cox_now *ret_now,
                        struct cox_effects *fx, struct cox_buf *error)
{
    const struct cox_store_recovery callbacks = {
        .quarantined = on_quarantined, .entity = on_entity, .batch = on_batch, .user = r
    };
    enum cox_err err = cox_store_recover(store, &callbacks, &r->found->last_seq, error);

    if (err) {
        if (r->refused && cox_engine_seq(r->engine) > 0)
            cox_buf_printf(error, "; record %" PRIu64 " was the last that could be read",
                           cox_engine_seq(r->engine));
        return err;
    }
    *ret_now = (struct cox_now){ cox_clock_mono_ns(), cox_clock_wall_ms() };
    err = cox_engine_recovered(r->engine, *ret_now, r->found->last_seq, fx);
    if (err)
        cox_buf_printf(error, "the recovered state does not fit together: %s", cox_err_text(err));
    return err;
}

enum cox_err cox_recover(struct cox_store *store, const struct cox_driver_config *config,
                         struct cox_engine **ret_engine, struct cox_now *ret_now, struct cox_effects *fx,
                         struct cox_driver_recovery *ret_found, struct cox_buf *error)
{
    int64_t from_ns = cox_clock_mono_ns();
    struct cox_crashes crashes;
    struct cox_crash_note *note =
        cox_crash_note_open(strcmp(config->store, "sqlite") == 0 ? config->data_dir : NULL, &crashes);
    const struct cox_engine_config engine_config = {
        .shard = config->shard, .seed = config->seed, .on_place = cox_crash_note_at, .user = note
    };
    enum cox_err err = deal_with_crashes(store, note, &crashes, error);

    if (err == COX_OK) {
        struct recovering r = { .engine = cox_engine_create(&engine_config), .found = ret_found };

        *ret_engine = r.engine;
        cox_crash_note_begin(note);
        err = run(store, &r, ret_now, fx, error);
        cox_crash_note_end(note, err == COX_OK ? COX_RECOVERY_DONE
                                 : r.refused   ? COX_RECOVERY_REFUSED
                                               : COX_RECOVERY_FAILED);
    }
    cox_crash_note_close(note);
    ret_found->took_ms = (cox_clock_mono_ns() - from_ns) / NS_PER_MS;
    return err;
}
