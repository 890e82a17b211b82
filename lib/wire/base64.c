#include "cox/wire.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void cox_wire_put_base64(struct cox_buf *out, struct cox_slice bytes)
{
    for (size_t i = 0; i < bytes.len; i += 3) {
        size_t n = bytes.len - i < 3 ? bytes.len - i : 3;
        uint32_t v = 0;
        for (size_t k = 0; k < 3; k++)
            v = v << 8 | (k < n ? bytes.data[i + k] : 0u);
        for (size_t k = 0; k < 4; k++)
            cox_put_u8(out, k <= n ? (uint8_t)digits[v >> (18 - 6 * k) & 63] : '=');
    }
}

static int digit_value(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

enum cox_err cox_wire_parse_base64(struct cox_buf *out, struct cox_slice text)
{
    size_t before = out->len;
    uint32_t v = 0;
    unsigned bits = 0;

    if (text.len % 4 == 0) {
        for (int pad = 0; pad < 2 && text.len > 0 && text.data[text.len - 1] == '='; pad++)
            text.len--;
    }
    for (size_t i = 0; i < text.len; i++) {
        int d = digit_value(text.data[i]);
        if (d < 0)
            goto bad;
        v = v << 6 | (uint32_t)d;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            cox_put_u8(out, (uint8_t)(v >> bits));
        }
    }
    if (bits < 6 && (v & ((1u << bits) - 1)) == 0)
        return COX_OK;
bad:
    out->len = before;
    return COX_ERR_INVALID;
}
