/* COX_ACT_TOOLS and COX_ACT_DECIDE: fetch the values that they name, work out on the compile thread what an
 * agent's tools are or what a model's answer asks for, answer.
 *
 * What the actions borrow from their effects is copied, since fetching outlives the turn; the config is the
 * engine's and stays until the answer. */
#include "driver.h"
#include "keep.h"
#include "programs.h"

#include "cox/base/alloc.h"
#include "cox/json.h"
#include "cox/turn.h"

struct value {
    struct cox_fetch fetch;
    struct turn *of;
    struct cox_buf bytes;
};

struct turn {
    struct cox_work work;
    struct cox_driver *driver;
    struct cox_space space;
    struct cox_slice config;
    uint64_t ticket;
    struct value *values; /* TOOLS: the lists. DECIDE: the tools, the answer */
    size_t n_values, n_missing;
    uint32_t n_reasks;
    bool is_decision, is_lost; /* lost: a value cannot be read */
    enum cox_err err;
    struct cox_buf out, error;
    struct cox_buf description, schema; /* of the program that was asked for last */
    struct cox_payload kept;
};

/* ---- compile thread ---- */

static bool find_program(void *user, struct cox_slice name_at_major, struct cox_turn_program *ret)
{
    struct turn *t = user;

    cox_buf_clear(&t->description);
    cox_buf_clear(&t->schema);
    if (!cox_programs_find(cox_driver_programs(t->driver), name_at_major, &t->description, &t->schema))
        return false;
    *ret = (struct cox_turn_program){ .description = cox_buf_slice(&t->description),
                                      .input_schema = cox_buf_slice(&t->schema) };
    return true;
}

static void keep(struct turn *t, struct cox_slice value)
{
    t->err = cox_keep(cox_driver_store(t->driver), &t->space, value, &t->kept, &t->error);
}

static void work_out_tools(struct turn *t)
{
    const struct cox_turn_programs programs = { .find = find_program, .user = t };
    struct cox_slice *lists = cox_calloc(t->n_values + 1, sizeof(*lists));

    for (size_t i = 0; i < t->n_values; i++)
        lists[i] = cox_buf_slice(&t->values[i].bytes);
    t->err = cox_turn_tools(t->config, lists, t->n_values, &programs, &t->out, &t->error);
    if (!t->err)
        keep(t, cox_buf_slice(&t->out));
    cox_free(lists);
}

static void work_out_decision(struct turn *t)
{
    struct cox_slice output;

    cox_turn_decide(&(struct cox_turn){ .config = t->config,
                                        .tools = cox_buf_slice(&t->values[0].bytes),
                                        .answer = cox_buf_slice(&t->values[1].bytes),
                                        .n_reasks = t->n_reasks },
                    &t->out);
    if (cox_json_member(cox_buf_slice(&t->out), "output", &output))
        keep(t, output);
}

static void work(struct cox_work *w)
{
    struct turn *t = COX_CONTAINER_OF(w, struct turn, work);

    if (t->is_lost) {
        t->err = COX_ERR_IO;
        cox_buf_append_str(&t->error, "what was said before cannot be read from the store");
    } else if (t->is_decision) {
        work_out_decision(t);
    } else {
        work_out_tools(t);
    }
}

/* ---- engine's thread ---- */

static void turn_free(struct turn *t)
{
    for (size_t i = 0; i < t->n_values; i++)
        cox_buf_fini(&t->values[i].bytes);
    cox_free(t->values);
    cox_buf_fini(&t->out);
    cox_buf_fini(&t->error);
    cox_buf_fini(&t->description);
    cox_buf_fini(&t->schema);
    cox_free(t);
}

static void done(struct cox_work *w)
{
    struct turn *t = COX_CONTAINER_OF(w, struct turn, work);
    struct cox_input in = { .kind = t->is_decision ? COX_IN_DECIDED : COX_IN_TOOLS };

    if (t->is_decision)
        in.u.decided = (struct cox_in_decided){ .ticket = t->ticket,
                                                .ok = t->err == COX_OK,
                                                .decision = cox_buf_slice(&t->out),
                                                .output = t->kept,
                                                .error = cox_buf_slice(&t->error) };
    else
        in.u.evaluated = (struct cox_in_evaluated){ .ticket = t->ticket,
                                                    .ok = t->err == COX_OK,
                                                    .value = t->kept,
                                                    .error = cox_buf_slice(&t->error),
                                                    .later = t->err == COX_ERR_NOT_FOUND };
    cox_driver_step(t->driver, &in);
    turn_free(t);
}

static void submit(struct turn *t)
{
    for (size_t i = 0; i < t->n_values; i++)
        t->work.len += t->values[i].bytes.len;
    cox_compile_submit(cox_driver_compile(t->driver), &t->work);
}

static void on_value(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes)
{
    struct value *v = COX_CONTAINER_OF(f, struct value, fetch);

    v->of->is_lost |= err != COX_OK;
    if (!err)
        cox_buf_append_slice(&v->bytes, cox_buf_slice(bytes));
    if (--v->of->n_missing == 0)
        submit(v->of);
}

static struct turn *begin(struct cox_driver *d, uint64_t ticket, cox_task_id root, struct cox_slice config,
                          size_t n_values)
{
    struct turn *t = COX_NEW(struct turn);

    t->work = (struct cox_work){ .work = work, .done = done };
    t->driver = d;
    t->space = cox_driver_space(d, root);
    t->config = config;
    t->ticket = ticket;
    t->n_values = n_values;
    t->values = cox_calloc(n_values + 1, sizeof(*t->values));
    return t;
}

static void take(struct turn *t, size_t i, const struct cox_payload *p)
{
    struct value *v = &t->values[i];

    v->of = t;
    if (p->kind == COX_PAYLOAD_INLINE) {
        cox_buf_append_slice(&v->bytes, p->bytes);
    } else if (p->kind == COX_PAYLOAD_STORED) {
        v->fetch = (struct cox_fetch){ .hash = p->hash, .space = t->space, .fn = on_value };
        t->n_missing++;
    }
}

static void fetch_or_submit(struct turn *t)
{
    if (t->n_missing == 0) {
        submit(t);
        return;
    }
    for (size_t i = 0; i < t->n_values; i++)
        if (t->values[i].fetch.fn)
            cox_driver_fetch(t->driver, &t->values[i].fetch);
}

void cox_tools_start(struct cox_driver *d, const struct cox_act_tools *act)
{
    struct turn *t = begin(d, act->ticket, act->root, act->config, act->n_lists);

    for (size_t i = 0; i < act->n_lists; i++)
        take(t, i, &act->lists[i]);
    fetch_or_submit(t);
}

void cox_decide_start(struct cox_driver *d, const struct cox_act_decide *act)
{
    struct turn *t = begin(d, act->ticket, act->root, act->config, 2);

    t->is_decision = true;
    t->n_reasks = act->n_reasks;
    take(t, 0, &act->tools);
    take(t, 1, &act->answer);
    fetch_or_submit(t);
}
