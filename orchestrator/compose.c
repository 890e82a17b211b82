/* COX_ACT_COMPOSE: a map's pages, read from the state one after the other, become the list of its outputs and
 * the list of its failures. No more than one page and what a value may have beside the log is in memory. */
#include "driver.h"
#include "keep.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include <string.h>

struct composing {
    struct cox_work work;
    struct cox_fetch fetch;
    struct cox_driver *driver;
    uint64_t ticket;
    struct cox_entity_key *parts;
    size_t n_parts;
    size_t n_read;       /* pages that have come */
    struct cox_buf page; /* read, to be worked on */
    struct cox_keeper outputs, errors;
    size_t n_errors_left; /* failures beyond what is kept */
    struct cox_payload value, failures;
    struct cox_buf error;
};

static void composing_free(struct composing *c)
{
    cox_keeper_fini(&c->outputs);
    cox_keeper_fini(&c->errors);
    cox_buf_fini(&c->page);
    cox_buf_fini(&c->error);
    cox_free(c->parts);
    cox_free(c);
}

static void answer(struct composing *c)
{
    struct cox_input in = { .kind = COX_IN_COMPOSED };

    in.u.evaluated.ticket = c->ticket;
    in.u.evaluated.ok = c->error.len == 0;
    in.u.evaluated.error = cox_buf_slice(&c->error);
    in.u.evaluated.value = c->value;
    in.u.evaluated.errors = c->failures;
    cox_driver_step(c->driver, &in);
    composing_free(c);
}

/* A value's list: "[", then pieces with commas between them, then "]". */
static void add_piece(struct cox_keeper *k, struct cox_slice piece)
{
    cox_keeper_add(k, cox_slice_str(k->size == 0 ? "[" : ","));
    cox_keeper_add(k, piece);
}

/* Failures are for people and for expressions, and neither wants a million: a megabyte of them is kept. */
static void add_failures(struct composing *c, struct cox_slice failures)
{
    struct cox_buf list = { 0 };

    cox_put_u8(&list, '[');
    cox_buf_append_slice(&list, failures);
    cox_put_u8(&list, ']');
    struct cox_json_walk w = cox_json_walk(cox_buf_slice(&list));

    while (cox_json_next(&w)) {
        if (c->n_errors_left > 0 || c->errors.size + w.value.len + 64 > COX_LOGGED_PAYLOAD_LEN_MAX)
            c->n_errors_left++;
        else
            add_piece(&c->errors, w.value);
    }
    cox_buf_fini(&list);
}

static void finish(struct composing *c)
{
    if (c->n_errors_left > 0) {
        struct cox_buf text = { 0 };
        cox_buf_printf(&text, "{\"more\":%zu}", c->n_errors_left);
        add_piece(&c->errors, cox_buf_slice(&text));
        cox_buf_fini(&text);
    }
    cox_keeper_add(&c->outputs, cox_slice_str("]"));
    if (cox_keeper_done(&c->outputs, &c->value, &c->error) || c->errors.size == 0)
        return;
    cox_keeper_add(&c->errors, cox_slice_str("]"));
    (void)cox_keeper_done(&c->errors, &c->failures, &c->error);
}

static void work(struct cox_work *w)
{
    struct composing *c = COX_CONTAINER_OF(w, struct composing, work);
    struct cox_buf outputs = { 0 }, failures = { 0 };
    const struct cox_entity_key *key = &c->parts[c->n_read - 1];
    enum cox_err err = cox_map_part_outputs(*key, cox_buf_slice(&c->page), &outputs, &failures);

    if (err) {
        cox_buf_printf(&c->error, "page %u of the map's items is damaged: %s", key->sub, cox_err_text(err));
    } else {
        add_piece(&c->outputs, cox_buf_slice(&outputs));
        add_failures(c, cox_buf_slice(&failures));
        if (c->n_read == c->n_parts)
            finish(c);
    }
    cox_buf_fini(&c->page);
    cox_buf_fini(&outputs);
    cox_buf_fini(&failures);
}

static void read_next(struct composing *c);

static void done(struct cox_work *w)
{
    struct composing *c = COX_CONTAINER_OF(w, struct composing, work);

    if (c->error.len > 0 || c->n_read == c->n_parts)
        answer(c);
    else
        read_next(c);
}

static void on_page(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes)
{
    struct composing *c = COX_CONTAINER_OF(f, struct composing, fetch);

    if (err) {
        /* Not an error worth a line in the log when the map was stopped meanwhile: its pages are gone. */
        cox_buf_printf(&c->error, "page %u of the map's items cannot be read: %s", c->parts[c->n_read].sub,
                       cox_err_text(err));
        answer(c);
        return;
    }
    c->n_read++;
    c->page = *bytes;
    memset(bytes, 0, sizeof(*bytes));
    c->work.len = c->page.len;
    cox_compile_submit(cox_driver_compile(c->driver), &c->work);
}

static void read_next(struct composing *c)
{
    c->fetch = (struct cox_fetch){ .entity = c->parts[c->n_read], .fn = on_page };
    cox_driver_fetch(c->driver, &c->fetch);
}

void cox_compose_start(struct cox_driver *d, const struct cox_act_compose *act)
{
    struct composing *c = COX_NEW(struct composing);

    c->driver = d;
    c->work.work = work;
    c->work.done = done;
    c->ticket = act->ticket;
    c->n_parts = act->n_parts;
    c->parts = cox_calloc(act->n_parts, sizeof(*c->parts));
    memcpy(c->parts, act->parts, act->n_parts * sizeof(*c->parts));
    c->outputs.store = c->errors.store = cox_driver_store(d);
    c->outputs.space = c->errors.space = cox_driver_space(d, act->root);
    read_next(c);
}
