#include "sim.h"

#include "cox/json.h"

#include <openssl/evp.h>
#include <string.h>

void render_error(struct cox_buf *out, int status, struct cox_slice message, const char *type,
                  const char *code, const char *param)
{
    (void)status;
    cox_buf_append_str(out, "{\"error\":{\"message\":");
    cox_json_quote(out, message);
    cox_buf_append_str(out, ",\"type\":");
    cox_json_quote(out, cox_slice_str(type));
    cox_buf_append_str(out, ",\"param\":");
    if (param)
        cox_json_quote(out, cox_slice_str(param));
    else
        cox_buf_append_str(out, "null");
    cox_buf_append_str(out, ",\"code\":");
    if (code)
        cox_json_quote(out, cox_slice_str(code));
    else
        cox_buf_append_str(out, "null");
    cox_buf_append_str(out, "}}");
}

/* Numbers from -1 to 1 of the text; as float32 little-endian in base64, OpenAI's other form, on demand. */
void render_float_list(struct cox_buf *out, uint64_t seed, uint64_t dimensions, bool base64)
{
    struct cox_buf bytes = { 0 };
    struct cox_rng rng;

    cox_rng_init(&rng, seed);
    cox_buf_append_str(out, base64 ? "\"" : "[");
    for (uint64_t i = 0; i < dimensions; i++) {
        float f = (float)cox_rng_below(&rng, 20001) / 10000.0f - 1.0f;
        if (base64)
            cox_buf_append(&bytes, &f, sizeof(f));
        else
            cox_buf_printf(out, "%s%.4f", i > 0 ? "," : "", (double)f);
    }
    if (base64) {
        cox_buf_reserve(out, bytes.len / 3 * 4 + 8);
        out->len += (size_t)EVP_EncodeBlock(out->data + out->len, bytes.data, (int)bytes.len);
    }
    cox_buf_append_str(out, base64 ? "\"" : "]");
    cox_buf_fini(&bytes);
}
