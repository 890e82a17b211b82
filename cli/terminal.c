#include "terminal.h"

#include "cox/base/plant.h"

#define ESC 0x1b
#define C1_LEAD 0xc2 /* of U+0080 to U+00BF in UTF-8, the first half of which are controls too */

static bool is_control(uint8_t b)
{
    return (b < 0x20 && b != '\n' && b != '\t' && b != '\r') || b == 0x7f;
}

static void put_text(struct cox_buf *out, uint8_t b)
{
    cox_put_u8(out, is_control(b) && !COX_PLANTED("terminal-obeys") ? '?' : b);
}

/* What was held is nothing that a terminal may see as it is. */
static void release(struct terminal_text *t, struct cox_buf *out)
{
    for (size_t i = 0; i < t->n_held; i++)
        put_text(out, t->held[i]);
    t->n_held = 0;
}

static bool takes(const struct terminal_text *t, uint8_t b)
{
    if (t->n_held == 0)
        return b == ESC || b == C1_LEAD;
    if (t->held[0] == C1_LEAD || t->n_held == TERMINAL_HELD_MAX)
        return false;
    return t->n_held == 1 ? b == '[' : (b >= '0' && b <= '9') || b == ';' || b == ':';
}

static void put_one(struct terminal_text *t, uint8_t b, struct cox_buf *out)
{
    if (t->n_held > 0 && t->held[0] == C1_LEAD && b >= 0x80 && b < 0xa0) {
        t->n_held = 0;
        cox_put_u8(out, '?');
    } else if (t->n_held > 1 && b == 'm') {
        cox_buf_append(out, t->held, t->n_held);
        cox_put_u8(out, b);
        t->n_held = 0;
        t->coloured = true;
    } else if (takes(t, b)) {
        t->held[t->n_held++] = b;
    } else if (t->n_held > 0) {
        release(t, out);
        put_one(t, b, out);
    } else {
        put_text(out, b);
    }
}

void terminal_put(struct terminal_text *t, struct cox_slice data, struct cox_buf *out)
{
    for (size_t i = 0; i < data.len; i++)
        put_one(t, data.data[i], out);
}

void terminal_end(struct terminal_text *t, struct cox_buf *out)
{
    release(t, out);
    if (t->coloured)
        cox_buf_append_str(out, "\x1b[0m");
    t->coloured = false;
}
