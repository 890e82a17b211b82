/* cox_image_rebind: the same task with other inputs. Inputs are constants of the image, so a copy of it gets
 * the new text at the end of its pool, and every instruction that reads an input reads it there. */
#include "compile.h"
#include "image_layout.h"
#include "inputs.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"

#include <string.h>

struct moved { /* where the text of a value was, and is */
    struct image_str from, to;
};

struct rebind {
    const struct cox_image *img;
    struct report report;
    json_t *given;
    struct cox_buf text; /* the new inputs */
    struct moved *moved; /* [n + 1]: each input, then all of them; `to` is relative to `text` at first */
    uint32_t n;
};

static struct cox_slice input_name(const struct rebind *r, uint32_t i)
{
    return str_at(r->img, record(r->img, AT_INPUTS, i));
}

static void check_given(struct rebind *r, const struct place *at)
{
    const char *name;
    json_t *value;

    json_object_foreach(r->given, name, value)
    {
        struct place here = place_key(at, name);
        struct suggestion near = suggestion(cox_slice_str(name));
        char text[SUGGESTION_LEN];
        uint32_t i = 0;

        while (i < r->n && !cox_slice_is(input_name(r, i), name))
            i++;
        if (i < r->n) {
            const struct input_type *type = input_type(load_u32(record(r->img, AT_INPUTS, i) + 16));

            if (!(want_of(value) & type->want))
                report_found(&r->report, &here, value, type->expected);
            continue;
        }
        for (i = 0; i < r->n; i++)
            suggestion_offer(&near, input_name(r, i));
        report_at(&r->report, &here, "unknown input%s", suggestion_text(&near, text));
    }
}

static void write_inputs(struct rebind *r, const struct place *at)
{
    struct cox_image_task task;

    cox_image_task(r->img, &task);
    for (uint32_t i = 0; i < r->n; i++) {
        const uint8_t *p = record(r->img, AT_INPUTS, i);
        struct cox_slice name = input_name(r, i);
        json_t *value = json_object_getn(r->given, (const char *)name.data, name.len);

        cox_buf_append_str(&r->text, i > 0 ? "," : "{");
        cox_json_quote(&r->text, name);
        cox_put_u8(&r->text, ':');
        size_t start = r->text.len;

        if (value)
            json_put(&r->text, value);
        else
            cox_buf_append_slice(&r->text, str_at(r->img, p + 8));
        r->moved[i].from = (struct image_str){ load_u32(p + 8), load_u32(p + 12) };
        r->moved[i].to = (struct image_str){ (uint32_t)start, (uint32_t)(r->text.len - start) };
    }
    cox_buf_append_str(&r->text, r->n > 0 ? "}" : "{}");
    r->moved[r->n].from = (struct image_str){ header_u32(r->img, H_INPUTS), (uint32_t)task.inputs_json.len };
    r->moved[r->n].to = (struct image_str){ 0, (uint32_t)r->text.len };
    if (r->text.len > COX_DOCUMENT_LEN_MAX)
        report_at(&r->report, at, "found inputs of %zu bytes, expected at most %u", r->text.len,
                  COX_DOCUMENT_LEN_MAX);
}

static void set_str(struct cox_buf *b, size_t at, struct image_str s)
{
    cox_set_u32(b, at, s.at);
    cox_set_u32(b, at + 4, s.len);
}

/* Where a value that lies at `from` lies now. Values lie in the order of the inputs, so halving finds it. */
static const struct moved *find_moved(const struct rebind *r, uint32_t at, uint32_t len)
{
    const struct moved *all = &r->moved[r->n];
    uint32_t low = 0, high = r->n;

    if (at == all->from.at && len == all->from.len)
        return all;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;

        if (r->moved[mid].from.at == at)
            return r->moved[mid].from.len == len ? &r->moved[mid] : NULL;
        if (r->moved[mid].from.at < at)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

/* The bytes before `at[section]`, in the new image: what the pool grew by lies before all sections. */
static size_t section_at(const struct rebind *r, int section, uint32_t pool_end)
{
    return (size_t)r->img->at[section] - r->img->at[AT_STEPS] + pool_end;
}

static void write_image(struct rebind *r, struct cox_buf *ret)
{
    const struct cox_image *img = r->img;
    const struct moved *all = &r->moved[r->n];
    uint32_t old_end = img->at[AT_STEPS];
    /* Inputs of an earlier fork lie at the end: they are replaced, so that forks of forks do not grow. */
    uint32_t start = all->from.at + all->from.len == old_end ? all->from.at : old_end;
    uint32_t pool_end = start + (uint32_t)r->text.len;

    for (uint32_t i = 0; i <= r->n; i++)
        r->moved[i].to.at += start;
    cox_buf_clear(ret);
    cox_buf_append(ret, img->bytes.data, start);
    cox_buf_append_slice(ret, cox_buf_slice(&r->text));
    cox_buf_append(ret, img->bytes.data + old_end, img->bytes.len - old_end);
    cox_set_u32(ret, H_POOL_END, pool_end);
    set_str(ret, H_INPUTS, all->to);
    for (uint32_t i = 0; i < r->n; i++)
        set_str(ret, section_at(r, AT_INPUTS, pool_end) + (size_t)i * INPUT_LEN + 8, r->moved[i].to);
    for (uint32_t i = 0; i < image_count(img, AT_CODE); i++) {
        struct code c = code_load(record(img, AT_CODE, i));
        const struct moved *m = c.op == OP_CONST ? find_moved(r, c.at, c.n) : NULL;
        size_t at = section_at(r, AT_CODE, pool_end) + (size_t)i * CODE_LEN;

        if (!m)
            continue;
        cox_set_u32(ret, at, (uint32_t)c.op | m->to.len << 8);
        cox_set_u32(ret, at + 4, m->to.at);
    }
}

static void rebind(struct rebind *r, struct cox_slice inputs_json, struct cox_buf *ret)
{
    struct place root = { 0 }, at = place_key(&root, "inputs");
    struct cox_image opened;

    if (image_version(r->img) == VERSION_1) {
        report_at(&r->report, &at,
                  "the task was made by an older version, which kept no types of its inputs");
        return;
    }
    if (cox_json_trim(inputs_json).len > 0) {
        r->given = json_parse(&r->report, &at, inputs_json, "inputs");
        if (r->given && !json_is_object(r->given))
            report_found(&r->report, &at, r->given, "an object of inputs by name");
    }
    r->n = image_count(r->img, AT_INPUTS);
    r->moved = cox_calloc((size_t)r->n + 1, sizeof(*r->moved));
    if (json_is_object(r->given))
        check_given(r, &at);
    write_inputs(r, &at);
    if (!report_clean(&r->report))
        return;
    write_image(r, ret);
    if (cox_image_open(&opened, cox_buf_slice(ret)) != COX_OK) {
        cox_buf_clear(ret);
        report_at(&r->report, &root, "the task's image is damaged");
    }
}

enum cox_err cox_image_rebind(const struct cox_image *image, struct cox_slice inputs_json,
                              struct cox_buf *ret_image, struct cox_violations *v)
{
    struct rebind r = { .img = image, .report = { v, { 0 } } };

    *v = (struct cox_violations){ 0 };
    cox_buf_clear(ret_image);
    rebind(&r, inputs_json, ret_image);
    json_decref(r.given);
    cox_buf_fini(&r.text);
    cox_free(r.moved);
    return report_clean(&r.report) ? COX_OK : COX_ERR_INVALID;
}
