/* Documents and expressions for tests. In test text a backtick stands for the double quote of JSON. */
#ifndef TASK_FIXTURE_H
#define TASK_FIXTURE_H

#include "check.h"

#include "cox/task.h"

#include <stdio.h>
#include <string.h>

/* One compilation. */
struct compiled {
    struct cox_violations violations;
    struct cox_buf image_bytes;
    struct cox_image image; /* when err is COX_OK */
    enum cox_err err;
};

static inline struct cox_buf quoted(const char *text)
{
    struct cox_buf b = { 0 };

    cox_buf_append_str(&b, text);
    for (size_t i = 0; i < b.len; i++) {
        if (b.data[i] == '`')
            b.data[i] = '"';
    }
    return b;
}

static inline void compile_source(struct compiled *c, const struct cox_task_source *source)
{
    *c = (struct compiled){ 0 };
    c->err = cox_task_compile(source, &c->image_bytes, &c->violations);
    if (c->err == COX_OK) {
        assert_int_equal(c->violations.n, 0);
        assert_int_equal(cox_image_open(&c->image, cox_buf_slice(&c->image_bytes)), COX_OK);
    } else {
        assert_int_equal(c->err, COX_ERR_INVALID);
        assert_true(c->violations.n > 0);
        assert_int_equal(c->image_bytes.len, 0);
    }
}

static inline void compile_bytes(struct compiled *c, struct cox_slice document, const char *inputs)
{
    struct cox_buf given = quoted(inputs ? inputs : "");
    const struct cox_task_source source = { .document = document, .inputs_json = cox_buf_slice(&given) };

    compile_source(c, &source);
    cox_buf_fini(&given);
}

static inline void compile(struct compiled *c, const char *document, const char *inputs)
{
    struct cox_buf text = quoted(document);

    compile_bytes(c, cox_buf_slice(&text), inputs);
    cox_buf_fini(&text);
}

static inline void compiled_fini(struct compiled *c)
{
    cox_violations_fini(&c->violations);
    cox_buf_fini(&c->image_bytes);
}

static inline void print_violations(const struct cox_violations *v)
{
    for (uint32_t i = 0; i < v->n; i++)
        print_error("  %s (line %u): %s\n", v->items[i].path, v->items[i].line, v->items[i].message);
}

static inline void must_compile(struct compiled *c, const char *document, const char *inputs)
{
    compile(c, document, inputs);
    if (c->err != COX_OK) {
        print_error("not compiled: %s\n", document);
        print_violations(&c->violations);
        fail();
    }
}

/* Exactly one violation, at this path and line, whose message holds this text. */
static inline void expect_violation(const struct compiled *c, const char *what, const char *path,
                                    uint32_t line, const char *message)
{
    const struct cox_violation *v = &c->violations.items[0];

    if (c->err == COX_OK || c->violations.n != 1 || c->violations.n_more != 0 || strcmp(v->path, path) != 0 ||
        v->line != line || !strstr(v->message, message)) {
        print_error("%s\n  expected %s (line %u): ...%s...\n  found\n", what, path, line, message);
        print_violations(&c->violations);
        fail();
    }
}

static inline void refused(const char *document, const char *inputs, const char *path, uint32_t line,
                           const char *message)
{
    struct compiled c;

    compile(&c, document, inputs);
    expect_violation(&c, document, path, line, message);
    compiled_fini(&c);
}

/* ---- evaluation ---- */

/* What the steps of a test's document have come to, by index. */
struct world {
    struct cox_eval_step steps[8];
    bool success, failure;
    enum cox_code error_code;
    const char *error_message;
    const char *item_json; /* NULL: none */
    uint64_t item_index;
    const char *args_json; /* NULL: none */
};

static inline void world_step(void *user, uint32_t index, struct cox_eval_step *ret)
{
    const struct world *w = user;

    assert_true(index < sizeof(w->steps) / sizeof(w->steps[0]));
    *ret = w->steps[index];
}

static inline struct cox_eval_env world_env(struct world *w)
{
    return (struct cox_eval_env){
        .user = w,
        .step = world_step,
        .success = w->success,
        .failure = w->failure,
        .error_code = w->error_code,
        .error_message = cox_slice_str(w->error_message),
        .item_json = w->item_json ? cox_slice_str(w->item_json) : cox_slice(NULL, 0),
        .item_index = w->item_index,
        .args_json = w->args_json ? cox_slice_str(w->args_json) : cox_slice(NULL, 0),
    };
}

/* The template's value, or "error: ..."; valid until the next call. */
static inline const char *evaluate(const struct cox_image *image, uint32_t template, struct world *w)
{
    static struct cox_buf out;
    struct cox_eval_env env = world_env(w);
    struct cox_buf error = { 0 };

    cox_buf_clear(&out);
    if (cox_eval_template(image, template, &env, &out, &error) != COX_OK) {
        assert_int_equal(out.len, 0);
        cox_buf_append_str(&out, "error: ");
        cox_buf_append_slice(&out, cox_buf_slice(&error));
    } else {
        assert_int_equal(error.len, 0);
    }
    cox_buf_fini(&error);
    return cox_buf_cstr(&out);
}

#endif
