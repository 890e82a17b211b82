/* Evaluates expressions of tasks for cel.sh: a JSON object {"expr": "...", "inputs": {...}} a line on
 * standard input, a line on standard output: "value JSON", "error MESSAGE" (of evaluating) or "refused
 * MESSAGE" (of compiling). */
#include "cox/json.h"
#include "cox/task.h"

#include <stdio.h>
#include <stdlib.h>

static void no_step(void *user, uint32_t index, struct cox_eval_step *ret)
{
    (void)user, (void)index;
    *ret = (struct cox_eval_step){ .status = COX_STEP_BLOCKED };
}

/* One step whose input is the expression. */
static void put_steps(struct cox_buf *steps, struct cox_slice expr_raw)
{
    struct cox_buf expr = { 0 }, text = { 0 };

    cox_json_unquote(&expr, expr_raw);
    cox_buf_append_str(&text, "${{ ");
    cox_buf_append_slice(&text, cox_buf_slice(&expr));
    cox_buf_append_str(&text, " }}");
    cox_buf_append_str(steps, "{\"a\":{\"uses\":\"x@1\",\"with\":{\"v\":");
    cox_json_quote(steps, cox_buf_slice(&text));
    cox_buf_append_str(steps, "}}}");
    cox_buf_fini(&expr);
    cox_buf_fini(&text);
}

static void print_value(const struct cox_image *image)
{
    const struct cox_eval_env env = { .step = no_step };
    struct cox_buf out = { 0 }, error = { 0 };
    struct cox_image_step step;
    struct cox_image_call call;
    struct cox_slice value;

    cox_image_step(image, 0, &step);
    cox_image_call(image, step.call, &call);
    if (cox_eval_template(image, call.spec_template, &env, &out, &error) != COX_OK)
        printf("error %s\n", cox_buf_cstr(&error));
    else if (cox_json_member(cox_buf_slice(&out), "v", &value))
        printf("value %.*s\n", (int)value.len, (const char *)value.data);
    cox_buf_fini(&out);
    cox_buf_fini(&error);
}

static void evaluate_line(struct cox_slice line)
{
    struct cox_buf steps = { 0 }, bytes = { 0 };
    struct cox_slice expr, inputs;
    struct cox_violations v;
    struct cox_image image;

    if (!cox_json_member(line, "expr", &expr) || !cox_json_member(line, "inputs", &inputs)) {
        printf("refused no expression in this line\n");
        return;
    }
    put_steps(&steps, expr);
    const struct cox_task_source source = { .kind = COX_SOURCE_STEPS,
                                            .document = cox_buf_slice(&steps),
                                            .inputs_json = inputs };

    if (cox_task_compile(&source, &bytes, &v) != COX_OK)
        printf("refused %s\n", v.items[0].message);
    else if (cox_image_open(&image, cox_buf_slice(&bytes)) == COX_OK)
        print_value(&image);
    cox_violations_fini(&v);
    cox_buf_fini(&steps);
    cox_buf_fini(&bytes);
}

int main(void)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;

    while ((len = getline(&line, &cap, stdin)) > 0) {
        evaluate_line(cox_slice(line, (size_t)len));
        fflush(stdout);
    }
    free(line);
    return 0;
}
