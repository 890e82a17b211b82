#include "trace_state.h"

#include "cox/base/alloc.h"
#include "cox/json.h"
#include "trace_kept.h"
#include "trace_quarantine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- life ---- */

static struct cox_engine *fresh(const struct trace *t)
{
    struct cox_engine_config config = { .shard = 0, .seed = 1, .live_steps_max = t->live_steps_max };
    trace_quarantine_config(t, &config);
    return cox_engine_create(&config);
}

struct trace *trace_begin(void)
{
    return trace_begin_with(0);
}

struct trace *trace_begin_with(uint32_t live_steps_max)
{
    struct trace *t = COX_NEW(struct trace);
    t->live_steps_max = live_steps_max;
    t->check_every = 1;
    t->places = COX_NEW(struct trace_places);
    t->engine = fresh(t);
    assert_int_equal(cox_engine_recovered(t->engine, now(t), 0, &t->fx), COX_OK);
    absorb(t);
    return t;
}

void check_every(struct trace *t, uint64_t n_inputs)
{
    t->check_every = n_inputs;
}

static void seek_tail(const struct trace *t, uint64_t after_seq, struct cox_slice *ret)
{
    struct cox_reader in = cox_reader(cox_buf_slice(&t->log));
    struct record r;
    for (uint64_t seq = 1; seq <= after_seq; seq++)
        assert_true(record_decode(&in, &r));
    *ret = cox_slice(in.p, (size_t)(in.end - in.p));
}

/* An engine as recovery would make it, from the saved entities and the log after `after_seq`. */
static struct cox_engine *rebuild(const struct trace *t, bool from_checkpoint)
{
    struct cox_engine *e = fresh(t);
    struct cox_slice tail;
    uint64_t after = from_checkpoint ? t->truncated_seq : 0;
    trace_quarantine_tell(t, e);
    for (int kind = 1; from_checkpoint && kind < 10; kind++)
        for (size_t i = 0; i < t->n_saved; i++)
            if (t->saved[i].key.kind == kind)
                assert_int_equal(cox_engine_load(e, t->saved[i].key, t->saved[i].applied_seq,
                                                 cox_buf_slice(&t->saved[i].bytes)),
                                 COX_OK);
    if (from_checkpoint)
        trace_quarantine_replay(t, e);
    seek_tail(t, after, &tail);
    assert_int_equal(cox_engine_replay(e, after + 1, (uint32_t)(t->n_records - after), tail), COX_OK);
    return e;
}

static int by_key(const void *a, const void *b)
{
    const struct saved *x = a, *y = b;
    if (x->key.kind != y->key.kind)
        return x->key.kind < y->key.kind ? -1 : 1;
    if (x->key.id != y->key.id)
        return x->key.id < y->key.id ? -1 : 1;
    return x->key.sub < y->key.sub ? -1 : x->key.sub > y->key.sub;
}

static void sort_saved(struct trace *t)
{
    if (t->n_saved > 0)
        qsort(t->saved, t->n_saved, sizeof t->saved[0], by_key);
}

static void check_hashes(struct trace *t)
{
    uint64_t live = cox_engine_hash(t->engine);
    for (int from_checkpoint = 0; from_checkpoint < 2; from_checkpoint++) {
        sort_saved(t);
        struct cox_engine *e = rebuild(t, from_checkpoint);
        assert_int_equal(cox_engine_hash(e), live);
        cox_engine_destroy(e);
    }
}

void trace_end(struct trace *t)
{
    expect_nothing(t);
    check_hashes(t);
    checkpoint(t);
    check_hashes(t);
    cox_engine_destroy(t->engine);
    for (size_t i = 0; i < COMPILES_MAX; i++) {
        cox_buf_fini(&t->compiles[i].document);
        cox_buf_fini(&t->compiles[i].inputs);
        cox_buf_fini(&t->compiles[i].allow);
    }
    cox_effects_fini(&t->fx);
    trace_archive_fini(t);
    trace_turns_fini(t);
    trace_quarantine_fini(t);
    cox_buf_fini(&t->log);
    cox_buf_fini(&t->listed);
    for (size_t i = 0; i < t->n_parties; i++)
        cox_free(t->parties[i].id);
    for (size_t i = 0; i < t->n_saved; i++)
        cox_buf_fini(&t->saved[i].bytes);
    cox_free(t->saved);
    cox_free(t->owned);
    size_t it = 0;
    struct cox_slice key;
    void *b;
    while (cox_mapb_next(&t->payloads, &it, &key, &b)) {
        cox_buf_fini(b);
        cox_free(b);
    }
    cox_mapb_fini(&t->payloads);
    for (size_t i = 0; i < t->n_composes; i++)
        cox_free(t->composes[i].parts);
    cox_buf_fini(&t->last_output);
    cox_buf_fini(&t->last_continuation);
    cox_free(t);
}

void checkpoint(struct trace *t)
{
    uint64_t before = t->truncated_seq, target = cox_engine_seq(t->engine);
    while (t->truncated_seq == before && before != target)
        step(t, &(struct cox_input){ .kind = COX_IN_CHECKPOINT, .u.checkpoint.max_bytes = 300 });
}

void checkpoint_some(struct trace *t)
{
    step(t, &(struct cox_input){ .kind = COX_IN_CHECKPOINT, .u.checkpoint.max_bytes = 1 });
}

static bool is_listed(struct trace *t, uint32_t task_no)
{
    char row[32];
    size_t len = (size_t)snprintf(row, sizeof row, "%u live ", task_no);
    const char *at = listed(t);
    while (at != NULL && strncmp(at, row, len) != 0)
        at = (at = strchr(at, '\n')) != NULL ? at + 1 : NULL;
    return at != NULL;
}

/* Rows of live tasks die with the process. */
static void check_listed(struct trace *t)
{
    for (uint32_t no = 1; no <= 100; no++) {
        const struct cox_task *task = cox_engine_find(t->engine, no);
        struct cox_task_view v = { .status = COX_TASK_WAITING };
        if (task != NULL)
            cox_task_view(task, &v);
        bool lives = task != NULL ? v.parent == 0 && !cox_task_status_final(v.status)
                                  : cox_engine_asleep(t->engine, no);
        if (lives && !is_listed(t, no))
            fail_msg("task %u is in no list after a crash", no);
    }
}

void crash(struct trace *t)
{
    if (!t->leaves_alone) /* else what comes back is another state, and meant to be */
        check_hashes(t);
    t->leaves_alone = false;
    sort_saved(t);
    struct cox_engine *e = rebuild(t, true);
    cox_engine_destroy(t->engine);
    t->n_done_compiles = t->n_compiles; /* what was asked died with the engine */
    t->n_done_turns = t->n_turns;
    t->engine = e;
    for (size_t i = 0; i < t->n_parties; i++)
        t->parties[i].session = 0;
    t->n_done_composes = t->n_composes; /* what was asked died with the engine */
    t->n_done_fetches = t->n_fetches;
    t->n_done_calls = t->n_calls;
    cox_buf_clear(&t->listed);
    assert_int_equal(cox_engine_recovered(e, now(t), t->n_records, &t->fx), COX_OK);
    absorb(t);
    check_listed(t);
}

void trace_step(struct trace *t, struct cox_input *in)
{
    step(t, in);
}

const struct cox_engine *trace_engine(const struct trace *t)
{
    return t->engine;
}

int64_t wake_in_ms(const struct trace *t)
{
    int64_t wake_ms = (t->fx.wake_mono_ns + 999999) / 1000000;
    return t->fx.wake_mono_ns == INT64_MAX ? INT64_MAX : wake_ms - t->mono_ms;
}

void away_ms(struct trace *t, int64_t ms)
{
    t->mono_ms += ms;
}

/* ---- looking ---- */

struct cox_task_view view_of(struct trace *t, uint32_t task_no)
{
    struct cox_task_view view;
    cox_task_view(cox_engine_find(t->engine, task_no), &view);
    return view;
}

static struct cox_step_view step_of(struct trace *t, uint32_t task_no, const char *name)
{
    const struct cox_task_view view = view_of(t, task_no);
    const struct cox_task *task = cox_engine_find(t->engine, task_no);
    uint32_t index = cox_image_find_step(view.image, cox_slice_str(name));
    struct cox_step_view sv;
    uint64_t item;
    if (index == COX_IMAGE_NONE) /* what a frame of it runs */
        task = cox_engine_find_step(t->engine, task, cox_slice_str(name), &index, &item);
    assert_non_null(task);
    cox_step_view(t->engine, task, index, &sv);
    return sv;
}

enum cox_step_status status_of(struct trace *t, uint32_t task_no, const char *name)
{
    return step_of(t, task_no, name).status;
}

bool is_live(struct trace *t, uint32_t task_no)
{
    return cox_engine_find(t->engine, task_no) != NULL;
}

uint32_t n_attempts_of(struct trace *t, uint32_t task_no, const char *name)
{
    return step_of(t, task_no, name).n_attempts;
}

const char *reason_of(struct trace *t, uint32_t task_no, const char *name)
{
    static const char *const texts[] = {
        "",           "dependencies", "backoff",     "no worker", "no capacity", "evaluating", "worker away",
        "cancelling", "paused",       "concurrency", "rate",      "affinity",    "version",    "timer",
        "signal",     "approval",     "children",    "items",     "expanding",   "budget"
    };
    return texts[step_of(t, task_no, name).reason];
}

struct cox_step_why why_of(struct trace *t, uint32_t task_no, const char *name)
{
    const struct cox_task_view view = view_of(t, task_no);
    struct cox_step_why why;
    cox_step_why(t->engine, cox_engine_find(t->engine, task_no),
                 cox_image_find_step(view.image, cox_slice_str(name)), &why);
    return why;
}

struct cox_engine_stats stats_of(struct trace *t)
{
    struct cox_engine_stats stats;
    cox_engine_stats(t->engine, &stats);
    return stats;
}

uint64_t queued(struct trace *t, enum cox_step_reason reason)
{
    struct cox_queue_view v;
    uint64_t n = 0;
    for (size_t it = 0; cox_engine_next_queue(t->engine, &it, &v);)
        n += v.reason == reason ? v.n : 0;
    return n;
}

struct cox_zone_view zone(struct trace *t, const char *name)
{
    struct cox_zone_view v;
    for (size_t it = 0; cox_engine_next_zone(t->engine, &it, &v);)
        if (cox_slice_is(v.name, name))
            return v;
    return (struct cox_zone_view){ .n_slots = 0 };
}

void ignore(struct trace *t)
{
    for (size_t i = 0; i < t->n_lines; i++)
        cox_free(t->lines[i]);
    t->n_lines = 0;
}

void expect_lines(struct trace *t, const char *file, int line, const char *const *lines, size_t n)
{
    bool same = n == t->n_lines;
    for (size_t i = 0; same && i < n; i++)
        same = strcmp(lines[i], t->lines[i]) == 0;
    if (!same) {
        print_error("%s:%d: expected:\n", file, line);
        for (size_t i = 0; i < n; i++)
            print_error("    \"%s\",\n", lines[i]);
        print_error("but the engine did:\n");
        for (size_t i = 0; i < t->n_lines; i++)
            print_error("    \"%s\",\n", t->lines[i]);
    }
    ignore(t);
    if (!same)
        _fail(file, line);
}
