#include "trace_quarantine.h"

#include "cox/base/alloc.h"
#include "trace_state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define UNREADABLE                                                                                           \
    "{\"api_version\":\"v1\",\"name\":\"unreadable\",\"steps\":{\"s\":{\"run\":{\"argv\":[\"x\"]}}}}"

static struct left_alone *find(const struct trace *t, uint32_t task_no)
{
    for (size_t i = 0; i < t->n_left_alone; i++)
        if (t->left_alone[i].root == task_no)
            return (struct left_alone *)(uintptr_t)&t->left_alone[i];
    return NULL;
}

void quarantine(struct trace *t, uint32_t task_no)
{
    struct left_alone *l = find(t, task_no);
    if (l == NULL) {
        assert_true(t->n_left_alone < LEFT_ALONE_MAX);
        l = &t->left_alone[t->n_left_alone++];
        *l = (struct left_alone){ .root = task_no, .lifted = true };
    }
    l->unread = !l->lifted;
    l->lifted = false;
    t->leaves_alone = true;
}

void lift(struct trace *t, uint32_t task_no)
{
    struct left_alone *l = find(t, task_no);
    assert_non_null(l);
    l->lifted = true;
    t->leaves_alone = true;
    for (size_t i = 0; i < t->n_aside; i++) {
        struct aside *a = &t->aside[i];
        if (a->root != task_no || a->key.kind == 0)
            continue;
        struct cox_action save = { .kind = COX_ACT_SAVE };
        save.u.save.key = a->key;
        save.u.save.applied_seq = a->seq;
        save.u.save.bytes = cox_buf_slice(&a->bytes);
        keep_entity(t, &save);
        cox_buf_fini(&a->bytes);
        t->aside[i--] = t->aside[--t->n_aside];
    }
}

size_t n_aside(const struct trace *t, uint32_t task_no)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n_aside; i++)
        n += t->aside[i].root == task_no;
    return n;
}

bool archived_as(struct trace *t, uint32_t task_no, enum cox_task_status *ret_status, enum cox_code *ret_code,
                 char *name)
{
    const struct cox_buf *b = cox_map64_get(&t->archive, task_no);
    struct cox_task *task;
    struct cox_task_view view;
    struct cox_image_task doc;
    if (b == NULL)
        return false;
    assert_int_equal(cox_task_thaw(cox_buf_slice(b), &task), COX_OK);
    cox_task_view(task, &view);
    cox_image_task(view.image, &doc);
    *ret_status = view.status;
    *ret_code = view.code;
    snprintf(name, 64, "%.*s", (int)doc.name.len, (const char *)doc.name.data);
    cox_task_free(task);
    return true;
}

/* ---- places ---- */

static void on_place(void *user, const struct cox_place *p)
{
    struct trace_places *places = user;
    if (p->root < PLACES_ROOTS_MAX && p->phase != COX_PLACE_NONE)
        places->n[p->root][p->phase]++;
}

size_t n_places(const struct trace *t, uint32_t task_no, int phase)
{
    return t->places->n[task_no][phase];
}

void trace_quarantine_config(const struct trace *t, struct cox_engine_config *config)
{
    memset(t->places, 0, sizeof *t->places);
    config->on_place = on_place;
    config->user = t->places;
}

/* ---- recovery ---- */

void trace_quarantine_tell(const struct trace *t, struct cox_engine *e)
{
    const struct cox_task_source source = { .document = cox_slice_str(UNREADABLE) };
    struct cox_buf image = { 0 };
    struct cox_violations v = { 0 };
    assert_int_equal(cox_task_compile(&source, &image, &v), COX_OK);
    for (size_t i = 0; i < t->n_left_alone; i++) {
        const struct left_alone *l = &t->left_alone[i];
        const struct cox_quarantined q = { .root = l->root,
                                           .why = cox_slice_str("it crashed"),
                                           .unread = l->unread,
                                           .archived = cox_map64_get(&t->archive, l->root) != NULL };
        if (!l->lifted)
            cox_engine_quarantine(e, &q, cox_buf_slice(&image));
    }
    cox_buf_fini(&image);
    cox_violations_fini(&v);
}

static int by_seq(const void *a, const void *b)
{
    const struct aside *x = a, *y = b;
    return (x->seq > y->seq) - (x->seq < y->seq);
}

/* What was lifted, and the log has no more. */
void trace_quarantine_replay(const struct trace *t, struct cox_engine *e)
{
    if (t->n_aside > 0)
        qsort(t->aside, t->n_aside, sizeof t->aside[0], by_seq);
    for (size_t i = 0; i < t->n_aside; i++) {
        const struct aside *a = &t->aside[i];
        if (a->key.kind == 0 && a->seq <= t->truncated_seq && find(t, (uint32_t)a->root)->lifted)
            assert_int_equal(cox_engine_replay(e, a->seq, 1, cox_buf_slice(&a->bytes)), COX_OK);
    }
}

/* ---- what is set aside ---- */

void trace_keep_aside(struct trace *t, const struct cox_action *a)
{
    if (a->kind != COX_ACT_ASIDE)
        return;
    struct aside kept_aside = { .root = a->u.aside.root, .key = a->u.aside.key, .seq = a->u.aside.seq };
    for (size_t i = 0; i < t->n_aside && a->u.aside.key.kind == 0; i++)
        if (t->aside[i].key.kind == 0 && t->aside[i].seq == a->u.aside.seq)
            return;
    if (a->u.aside.key.kind != 0) {
        const struct saved *s = saved_of(t, a->u.aside.key);
        const struct cox_action forget = { .kind = COX_ACT_FORGET, .u.save.key = a->u.aside.key };
        kept_aside.seq = s->applied_seq;
        cox_buf_append_slice(&kept_aside.bytes, cox_buf_slice(&s->bytes));
        keep_entity(t, &forget);
    } else {
        cox_buf_append_slice(&kept_aside.bytes, a->u.aside.bytes);
    }
    t->aside = cox_realloc(t->aside, t->n_aside + 1, sizeof t->aside[0]);
    t->aside[t->n_aside++] = kept_aside;
}

void trace_truncated(struct trace *t, uint64_t seq)
{
    t->truncated_seq = seq;
    for (size_t i = 0; i < t->n_aside; i++) {
        if (!find(t, (uint32_t)t->aside[i].root)->lifted)
            continue;
        cox_buf_fini(&t->aside[i].bytes);
        t->aside[i--] = t->aside[--t->n_aside];
    }
}

void trace_quarantine_fini(struct trace *t)
{
    for (size_t i = 0; i < t->n_aside; i++)
        cox_buf_fini(&t->aside[i].bytes);
    cox_free(t->aside);
    cox_free(t->places);
}
