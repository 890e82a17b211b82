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

static void use_class(const struct cox_image *image, uint32_t index)
{
    struct cox_image_class cls;
    bool negated;

    cox_image_class(image, index, &cls);
    for (uint32_t k = 0; k < cls.n_requires; k++) {
        struct cox_slice label, value;

        cox_image_require(image, index, k, &label, &value, &negated);
    }
}

/* A call of step i, as the engine reads it. */
static void use_call(const struct cox_image *image, uint32_t i, uint32_t n_inner, uint32_t index)
{
    struct cox_image_call call;
    struct cox_image_step inner;

    if (index == COX_IMAGE_NONE)
        return;
    cox_image_call(image, index, &call);
    COX_ASSERT(cox_step_kind_is_leaf(call.kind) == (call.class_index != COX_IMAGE_NONE));
    COX_ASSERT(call.max_attempts >= 1);
    if (cox_step_kind_is_leaf(call.kind))
        use_class(image, call.class_index);
    if (call.kind != COX_KIND_RACE && call.wait != COX_WAIT_FOR && call.wait != COX_WAIT_SIGNAL)
        COX_ASSERT(call.spec_template < image->n_templates);
    COX_ASSERT((call.wait != COX_WAIT_NONE) == (call.kind == COX_KIND_WAIT));
    for (uint32_t k = 0, at = call.inner_first; call.kind == COX_KIND_RACE && k < call.inner_n; k++) {
        COX_ASSERT(at > i && at <= i + n_inner);
        cox_image_step(image, at, &inner);
        COX_ASSERT(inner.owner == i && !inner.is_body && inner.n_needs == 0);
        at += 1 + inner.n_inner;
    }
}

static void use_extras(const struct cox_image *image, const struct cox_image_step *step)
{
    struct cox_image_extras extras = { .affinity = COX_AFFINITY_NONE };
    struct cox_image_map map;

    if (step->map != COX_IMAGE_NONE) {
        cox_image_map(image, step->map, &map);
        COX_ASSERT(map.over < image->n_templates && map.batch >= 1 && map.batch <= COX_MAP_BATCH_MAX);
    }
    if (step->extras != COX_IMAGE_NONE)
        cox_image_extras(image, step->extras, &extras);
    for (uint32_t n = 0; extras.affinity == COX_AFFINITY_WORKSPACE || extras.affinity == COX_AFFINITY_STEP;
         n++) {
        struct cox_image_step next;

        COX_ASSERT(n < image->n_steps);
        cox_image_step(image, extras.affinity_step, &next);
        extras.affinity = COX_AFFINITY_NONE;
        if (next.extras != COX_IMAGE_NONE)
            cox_image_extras(image, next.extras, &extras);
    }
}

static void use_steps(const struct cox_image *image, const struct cox_eval_env *env)
{
    struct cox_buf error = { 0 };
    bool flag;

    for (uint32_t i = 0; i < image->n_steps; i++) {
        struct cox_image_step step;

        cox_image_step(image, i, &step);
        for (uint32_t k = 0; k < step.n_needs; k++)
            COX_ASSERT(cox_image_need(image, i, k) < image->n_steps);
        for (uint32_t k = 0; k < step.n_dependants; k++)
            COX_ASSERT(cox_image_dependant(image, i, k) < image->n_steps);
        COX_ASSERT(cox_image_find_step(image, step.name) == i);
        COX_ASSERT(step.n_inner < image->n_steps - i);
        if (step.condition != COX_IMAGE_NONE &&
            cox_eval_condition(image, step.condition, env, &flag, &error) != COX_OK)
            COX_ASSERT(error.len > 0);
        if (step.call == COX_IMAGE_NONE) {
            struct cox_image_step body;

            COX_ASSERT(step.map != COX_IMAGE_NONE && step.n_inner > 0);
            cox_image_step(image, i + 1, &body);
            COX_ASSERT(body.is_body && body.owner == i && body.call != COX_IMAGE_NONE);
        }
        use_call(image, i, step.n_inner, step.call);
        use_call(image, i, step.n_inner, step.fallback);
        use_extras(image, &step);
    }
    cox_buf_fini(&error);
}

/* Without other inputs it is the same task again. */
static void use_rebind(const struct cox_image *image, bool trusted)
{
    struct cox_violations violations;
    struct cox_buf bytes = { 0 };
    struct cox_image again;

    if (cox_image_rebind(image, cox_slice_str("{}"), &bytes, &violations) == COX_OK) {
        COX_ASSERT(cox_image_open(&again, cox_buf_slice(&bytes)) == COX_OK);
        COX_ASSERT(again.n_steps == image->n_steps && again.n_templates == image->n_templates);
    } else {
        COX_ASSERT(!trusted && bytes.len == 0 && violations.n > 0);
    }
    cox_violations_fini(&violations);
    cox_buf_fini(&bytes);
}

void fuzz_use_image(const struct cox_image *image, struct cox_slice output, bool trusted)
{
    const struct cox_eval_env env = {
        .user = &output,
        .step = give_step,
        .success = true,
        .error_code = COX_CODE_TIMEOUT,
        .error_message = cox_slice_str("why"),
        .item_json = output,
        .item_index = 7,
        .args_json = output,
    };
    struct cox_image_task task;

    cox_image_task(image, &task);
    COX_ASSERT(task.n_members >= 1 && task.n_members <= image->n_steps);
    for (uint32_t i = 0; i < cox_image_n_refs(image); i++)
        COX_ASSERT(!trusted || cox_image_ref(image, i).len > 0);
    use_rebind(image, trusted);
    use_steps(image, &env);
    use_templates(image, &env, trusted);
}
