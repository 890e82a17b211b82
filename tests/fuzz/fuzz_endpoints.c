/* Any bytes as a file of endpoints; after an 'F' as the value of --model, after an 'M' as `models` of the
 * configuration (well-formed JSON: it comes from YAML). Refused with words, or every URL is in its one
 * spelling, which reads back as itself. */
#include "fuzz.h"

#include "catalogue_text.h"
#include "endpoint_url.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include <string.h>

static void check_url(const char *url)
{
    struct cox_buf again = { 0 }, name = { 0 };

    COX_ASSERT(endpoint_url_read(cox_slice_str(url), &again));
    COX_ASSERT(cox_slice_is(cox_buf_slice(&again), url));
    endpoint_url_put_name(&name, url);
    COX_ASSERT(name.len > 0);
    cox_buf_fini(&again);
    cox_buf_fini(&name);
}

static void check_text(struct catalogue_text *t)
{
    for (size_t i = 0; i < t->n_models; i++) {
        const struct model_text *m = &t->models[i];
        COX_ASSERT(m->name && (m->n_endpoints > 0 || m->discovery != DISCOVERY_NONE));
        for (size_t k = 0; k < m->n_endpoints; k++)
            check_url(m->endpoints[k].url);
        (void)model_cost_micros(&m->price, UINT64_MAX, 7, UINT64_MAX);
    }
    catalogue_text_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cox_slice rest = cox_slice(data + (size > 0), size > 0 ? size - 1 : 0);
    struct endpoint_text *found = NULL;
    struct catalogue_text *t = NULL;
    struct cox_buf error = { 0 };
    enum cox_err err = COX_ERR_INVALID;
    size_t n = 0;

    if (size > 0 && data[0] == 'F') {
        char *flag = cox_strndup((const char *)rest.data, rest.len);
        err = catalogue_parse((const char *const *)&flag, 1, cox_slice(NULL, 0), &t, &error);
        cox_free(flag);
    } else if (size > 0 && data[0] == 'M') {
        if (memmem(data, size, "_file", 5) || memmem(data, size, "\\u", 2) || cox_json_check(rest, NULL))
            return 0; /* it would read files of this host */
        err = catalogue_parse(NULL, 0, rest, &t, &error);
    } else {
        err = endpoints_parse(cox_slice(data, size), &found, &n, &error);
    }
    COX_ASSERT((err != COX_OK) == (error.len > 0));
    for (size_t i = 0; i < n; i++)
        check_url(found[i].url);
    endpoints_free(found, n);
    if (t)
        check_text(t);
    cox_buf_fini(&error);
    return 0;
}
