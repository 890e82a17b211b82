/* Images from a damaged file: refused, or harmless. Meant to be run under AddressSanitizer too. */
#include "task_fixture.h"
#include "task_image_v1.h"

#include "cox/base/rng.h"

#include <stdlib.h>

static const char document[] =
    "{`api_version`: `v1`, `name`: `t`, `labels`: {`l`: `m`},"
    " `bundle`: `sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef`,"
    " `inputs`: {`n`: {`type`: `integer`, `default`: 3}, `o`: {`type`: `object`, `default`: {`k`: [1, {`x`: "
    "`y`}]}}},"
    " `steps`: {"
    "  `a`: {`run`: {`argv`: [`x`, `${{ inputs.o.k[1].x }}`]}, `requires`: `p == q`, `retry`: {}},"
    "  `b`: {`uses`: `x@1`, `with`: {`v`: `${{ [inputs.n, size(steps.a.output.list)] }}`,"
    "        `m`: `${{ steps.a.output.s.matches('^(a|b)+$') || 'x' in steps.a.output.list }}`},"
    "        `if`: `${{ steps.a.output.n > 1 && success() ? true : inputs.n == 3 }}`,"
    "        `fallback`: {`run`: {`argv`: [`y`, `why: ${{ error.message }}`]}}},"
    "  `c`: {`uses`: `x@1`, `needs`: [`a`, `b`], `map`: {`over`: `${{ inputs.o.k }}`, `batch`: 7},"
    "        `with`: {`i`: `${{ [item, index] }}`}},"
    "  `d`: {`race`: [{`uses`: `./x`}, {`race`: [{`http`: {`url`: `http://x`}}, {`jq`: {`program`: `.`}}]}],"
    "        `map`: {`over`: [1], `tolerate_failures`: `1%`},"
    "        `fallback`: {`race`: [{`wait`: {`for`: `1s`}}, {`task`: {`ref`: `t@1`}}]}},"
    "  `e`: {`approval`: {`prompt`: `${{ steps.d.errors }}`, `approvers`: [`role:x`]}},"
    "  `f`: {`wait`: {`signal`: `go`}, `if`: `${{ true || false }}`},"
    "  `g`: {`wait`: {`until`: `${{ steps.f.output }}`}},"
    "  `h`: {`uses`: `x@1`, `affinity`: {`workspace`: `a`}, `concurrency`: {`key`: `k`, `limit`: 1},"
    "        `rate`: {`key`: `${{ inputs.n }}`, `per_minute`: 1}, `artifacts`: {`p`: `q`}},"
    "  `i`: {`uses`: `x@1`, `affinity`: {`step`: `h`}}},"
    " `outputs`: {`o`: `${{ toJSON(steps.c.output) + fromJSON('\\`z\\`') }}`}}";

static void give_step(void *user, uint32_t index, struct cox_eval_step *ret)
{
    (void)user;
    *ret = (struct cox_eval_step){
        .status = COX_STEP_SUCCEEDED,
        .output_json = cox_slice_str("{\"n\": 2, \"s\": \"abab\", \"list\": [\"x\", 1, null, {\"y\": []}]}"),
        .code = index % 2 ? COX_CODE_TIMEOUT : COX_CODE_NONE,
    };
}

static uint64_t use_call(const struct cox_image *img, const struct cox_image_step *step, uint32_t index,
                         uint32_t call_index)
{
    struct cox_image_call call;
    uint64_t n = 0;

    if (call_index == COX_IMAGE_NONE)
        return 0;
    cox_image_call(img, call_index, &call);
    if (cox_step_kind_is_leaf(call.kind))
        assert_true(call.class_index < img->n_classes && call.spec_template < img->n_templates);
    else
        assert_int_equal(call.class_index, COX_IMAGE_NONE);
    if (call.kind == COX_KIND_TASK || call.kind == COX_KIND_APPROVAL || call.wait == COX_WAIT_UNTIL)
        assert_true(call.spec_template < img->n_templates);
    assert_true(call.approvers == COX_IMAGE_NONE || call.approvers < img->n_templates);
    for (uint32_t i = call.inner_first; call.kind == COX_KIND_RACE && n < call.inner_n; n++) {
        struct cox_image_step inner;

        assert_true(i > index && i <= index + step->n_inner);
        cox_image_step(img, i, &inner);
        assert_int_equal(inner.owner, index);
        i += 1 + inner.n_inner;
    }
    return n + cox_slice_is(call.ref, "x");
}

static uint64_t use_step(const struct cox_image *img, uint32_t i)
{
    struct cox_image_extras extras;
    struct cox_image_step step;
    struct cox_image_map map;
    uint64_t sum = 0;

    cox_image_step(img, i, &step);
    sum += (uint64_t)cox_step_kind_text(step.kind)[0];
    for (uint32_t k = 0; k < step.n_needs; k++)
        assert_true(cox_image_need(img, i, k) < img->n_steps);
    for (uint32_t k = 0; k < step.n_dependants; k++)
        assert_true(cox_image_dependant(img, i, k) < img->n_steps);
    assert_int_equal(cox_image_find_step(img, step.name), i);
    assert_true(step.owner == COX_IMAGE_NONE || step.owner < i);
    assert_true(step.n_inner < img->n_steps - i);
    assert_true(step.call != COX_IMAGE_NONE || step.n_inner > 0);
    sum += use_call(img, &step, i, step.call) + use_call(img, &step, i, step.fallback);
    if (step.map != COX_IMAGE_NONE) {
        cox_image_map(img, step.map, &map);
        assert_true(map.over < img->n_templates && map.batch >= 1);
    }
    if (step.extras != COX_IMAGE_NONE) {
        uint32_t n = 0;

        for (uint32_t at = i; at != COX_IMAGE_NONE; n++) { /* comes to an end */
            cox_image_step(img, at, &step);
            extras.affinity = COX_AFFINITY_NONE;
            if (step.extras != COX_IMAGE_NONE)
                cox_image_extras(img, step.extras, &extras);
            at = extras.affinity == COX_AFFINITY_WORKSPACE || extras.affinity == COX_AFFINITY_STEP
                     ? extras.affinity_step
                     : COX_IMAGE_NONE;
        }
        assert_true(n <= img->n_steps);
    }
    return sum;
}

/* Reads everything an image has, and runs all its programs. */
static void use_all(const struct cox_image *img)
{
    const struct cox_eval_env env = { .step = give_step,
                                      .success = true,
                                      .error_code = COX_CODE_TIMEOUT,
                                      .item_json = cox_slice_str("{\"x\": 1}") };
    struct cox_buf out = { 0 }, error = { 0 };
    struct cox_slice name, value;
    struct cox_image_task task;
    uint64_t sum = 0; /* so that reads are not optimised away */
    bool flag;

    cox_image_task(img, &task);
    sum +=
        cox_slice_is(task.name, "t") || cox_slice_is(task.inputs_json, "t") || cox_slice_is(task.bundle, "t");
    assert_true(task.n_members <= img->n_steps);
    for (uint32_t i = 0; i < cox_image_n_refs(img); i++)
        sum += cox_slice_is(cox_image_ref(img, i), "t@1");
    for (uint32_t i = 0; i < img->n_labels; i++) {
        cox_image_label(img, i, &name, &value);
        sum += cox_slice_cmp(name, value) > 0;
    }
    for (uint32_t i = 0; i < img->n_steps; i++) {
        struct cox_image_step step;

        sum += use_step(img, i);
        cox_image_step(img, i, &step);
        if (step.condition != COX_IMAGE_NONE &&
            cox_eval_condition(img, step.condition, &env, &flag, &error) == COX_OK)
            sum += flag;
    }
    for (uint32_t i = 0; i < img->n_calls; i++) {
        struct cox_image_call call;

        cox_image_call(img, i, &call);
        sum += call.max_attempts;
    }
    for (uint32_t i = 0; i < img->n_classes; i++) {
        struct cox_image_class cls;

        cox_image_class(img, i, &cls);
        sum += cox_slice_cmp(cls.key, cls.handler) > 0;
        for (uint32_t k = 0; k < cls.n_requires; k++) {
            cox_image_require(img, i, k, &name, &value, &flag);
            sum += cox_slice_cmp(name, value) > 0;
        }
    }
    for (uint32_t i = 0; i < img->n_templates; i++) {
        struct cox_image_template t;

        cox_image_template(img, i, &t);
        for (uint32_t k = 0; k < t.n_steps; k++)
            assert_true(cox_image_template_step(img, i, k) < img->n_steps);
        cox_buf_clear(&error);
        if (cox_eval_template(img, i, &env, &out, &error) != COX_OK)
            assert_true(error.len > 0);
        cox_buf_clear(&out);
    }
    assert_true(sum != UINT64_MAX);
    cox_buf_fini(&out);
    cox_buf_fini(&error);
}

/* Opens a copy that ends where its allocation ends, so that a read beyond it is seen. */
static bool try_bytes(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    struct cox_image img;

    assert_non_null(copy);
    memcpy(copy, data, len);
    bool opened = cox_image_open(&img, cox_slice(copy, len)) == COX_OK;

    if (opened)
        use_all(&img);
    free(copy);
    return opened;
}

static void test_a_whole_image(void **state)
{
    struct compiled c;

    (void)state;
    must_compile(&c, document, NULL);
    assert_true(try_bytes(c.image_bytes.data, c.image_bytes.len));
    compiled_fini(&c);
}

static void test_every_truncation_is_refused(void **state)
{
    struct compiled c;

    (void)state;
    must_compile(&c, document, NULL);
    for (size_t len = 0; len < c.image_bytes.len; len++)
        assert_false(try_bytes(c.image_bytes.data, len));
    cox_put_u8(&c.image_bytes, 0); /* and so is a byte too many */
    assert_false(try_bytes(c.image_bytes.data, c.image_bytes.len));
    compiled_fini(&c);
}

static void test_every_bit_flip_is_refused_or_harmless(void **state)
{
    size_t n_refused = 0;
    struct compiled c;

    (void)state;
    must_compile(&c, document, NULL);
    for (size_t bit = 0; bit < c.image_bytes.len * 8; bit++) {
        c.image_bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        n_refused += !try_bytes(c.image_bytes.data, c.image_bytes.len);
        c.image_bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_true(n_refused > c.image_bytes.len); /* the checks do refuse: of strings they need not */
    compiled_fini(&c);
}

static void test_every_word_set_to_an_extreme(void **state)
{
    static const uint32_t extremes[] = { 0, 1, 0x7fffffff, 0x80000000, 0xffffffff };
    struct compiled c;

    (void)state;
    must_compile(&c, document, NULL);
    for (size_t at = 0; at + 4 <= c.image_bytes.len; at++) {
        uint8_t kept[4];

        memcpy(kept, c.image_bytes.data + at, 4);
        for (size_t i = 0; i < ARRAY_LEN(extremes); i++) {
            cox_set_u32(&c.image_bytes, at, extremes[i]);
            try_bytes(c.image_bytes.data, c.image_bytes.len);
        }
        memcpy(c.image_bytes.data + at, kept, 4);
    }
    compiled_fini(&c);
}

static void test_random_damage(void **state)
{
    struct cox_buf bytes = { 0 };
    struct cox_rng rng;
    struct compiled c;

    (void)state;
    must_compile(&c, document, NULL);
    cox_rng_init(&rng, 1);
    for (int round = 0; round < 20000; round++) {
        cox_buf_clear(&bytes);
        cox_buf_append_slice(&bytes, cox_buf_slice(&c.image_bytes));
        for (uint64_t n = 1 + cox_rng_below(&rng, 4); n > 0; n--)
            bytes.data[cox_rng_below(&rng, bytes.len)] = (uint8_t)cox_rng_u64(&rng);
        try_bytes(bytes.data, bytes.len);
    }
    cox_buf_fini(&bytes);
    compiled_fini(&c);
}

static void test_another_version_is_refused(void **state)
{
    struct compiled c;

    (void)state;
    must_compile(&c, document, NULL);
    cox_set_u32(&c.image_bytes, 8, 4);
    assert_false(try_bytes(c.image_bytes.data, c.image_bytes.len));
    cox_set_u32(&c.image_bytes, 8, 0);
    assert_false(try_bytes(c.image_bytes.data, c.image_bytes.len));
    compiled_fini(&c);
}

/* Images of version 1 are in logs: this one was made on the day of the layout, and opens for ever. */
static void test_an_old_image_is_read_as_ever(void **state)
{
    struct world w = { .error_message = "" };
    struct cox_image_step step;
    struct cox_image_call call;
    struct cox_image_task task;
    struct cox_image img;

    (void)state;
    assert_int_equal(cox_image_open(&img, cox_slice(task_image_v1, sizeof(task_image_v1))), COX_OK);
    cox_image_task(&img, &task);
    assert_true(cox_slice_is(task.name, "old"));
    assert_true(cox_slice_is(task.inputs_json, "{\"n\":[1,2]}"));
    assert_int_equal(task.deadline_ms, 1000);
    cox_image_step(&img, 1, &step);
    assert_true(cox_slice_is(step.name, "b"));
    assert_int_equal(cox_image_need(&img, 1, 0), 0);
    cox_image_call(&img, step.call, &call);
    assert_int_equal(call.timeout_ms, COX_TIMEOUT_DEFAULT_MS);
    w.steps[0].output_json = cox_slice_str("{\"k\": \"abc\"}");
    assert_string_equal(evaluate(&img, call.spec_template, &w),
                        "{\"argv\":[\"x\",\"<4>\",\"abc\"],\"stdin\":\"true\"}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_whole_image),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_every_bit_flip_is_refused_or_harmless),
        cmocka_unit_test(test_every_word_set_to_an_extreme),
        cmocka_unit_test(test_random_damage),
        cmocka_unit_test(test_another_version_is_refused),
        cmocka_unit_test(test_an_old_image_is_read_as_ever),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
