#include "fuzz_task.h"

#include "cox/base/units.h"

#include <jansson.h>

static void give_step(void *user, uint32_t index, struct cox_eval_step *ret)
{
    *ret = (struct cox_eval_step){
        .status = index % 2 ? COX_STEP_FAILED : COX_STEP_SUCCEEDED,
        .output_json = *(const struct cox_slice *)user,
        .code = index % 2 ? COX_CODE_TIMEOUT : COX_CODE_NONE,
        .message = cox_slice_str("m\"essage"),
    };
}

/* Numbers pass through as they were written, so one may be too large for jansson. */
static void check_json(struct cox_slice text)
{
    json_error_t error;
    json_t *value = json_loadb((const char *)text.data, text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);

    COX_ASSERT(value || json_error_code(&error) == json_error_numeric_overflow ||
               json_error_code(&error) == json_error_null_byte_in_key);
    json_decref(value);
}

static void use_templates(const struct cox_image *image, const struct cox_eval_env *env, bool trusted)
{
    struct cox_buf out = { 0 }, error = { 0 };

    for (uint32_t i = 0; i < image->n_templates; i++) {
        struct cox_image_template t;

        cox_image_template(image, i, &t);
        for (uint32_t k = 0; k < t.n_steps; k++)
            COX_ASSERT(cox_image_template_step(image, i, k) < image->n_steps);
        cox_buf_clear(&out);
        cox_buf_clear(&error);
        enum cox_err err = cox_eval_template(image, i, env, &out, &error);

        COX_ASSERT(err == COX_OK ? error.len == 0 : err == COX_ERR_INVALID && error.len > 0 && out.len == 0);
        COX_ASSERT(!trusted || cox_utf8_ok(cox_buf_slice(&error)));
        if (err == COX_OK && trusted && out.len > 0) /* a condition's program leaves no text */
            check_json(cox_buf_slice(&out));
    }
    cox_buf_fini(&out);
    cox_buf_fini(&error);
}

static void use_steps(const struct cox_image *image, const struct cox_eval_env *env)
{
    struct cox_buf error = { 0 };
    bool flag;

    for (uint32_t i = 0; i < image->n_steps; i++) {
        struct cox_image_step step;
        struct cox_image_call call;
        struct cox_image_class cls;

        cox_image_step(image, i, &step);
        for (uint32_t k = 0; k < step.n_needs; k++)
            COX_ASSERT(cox_image_need(image, i, k) < image->n_steps);
        for (uint32_t k = 0; k < step.n_dependants; k++)
            COX_ASSERT(cox_image_dependant(image, i, k) < image->n_steps);
        COX_ASSERT(cox_image_find_step(image, step.name) == i);
        if (step.condition != COX_IMAGE_NONE &&
            cox_eval_condition(image, step.condition, env, &flag, &error) != COX_OK)
            COX_ASSERT(error.len > 0);
        cox_image_call(image, step.call, &call);
        cox_image_class(image, call.class_index, &cls);
        for (uint32_t k = 0; k < cls.n_requires; k++) {
            struct cox_slice label, value;

            cox_image_require(image, call.class_index, k, &label, &value, &flag);
        }
    }
    cox_buf_fini(&error);
}

void fuzz_use_image(const struct cox_image *image, struct cox_slice output, bool trusted)
{
    const struct cox_eval_env env = {
        .user = &output,
        .step = give_step,
        .success = true,
        .error_code = COX_CODE_TIMEOUT,
        .error_message = cox_slice_str("why"),
    };
    struct cox_image_task task;

    cox_image_task(image, &task);
    use_steps(image, &env);
    use_templates(image, &env, trusted);
}
