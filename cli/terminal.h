/* What steps wrote, for a terminal: it would obey them, and set titles, the clipboard, or what was typed.
 * Line feeds, tabs, carriage returns and colours pass; of any other control the first character becomes a
 * question mark, so that the rest of it is text. Pure. */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include "cox/base/buf.h"

#define TERMINAL_HELD_MAX 32

/* Zero-initialised at the beginning of a stream, whose pieces may end anywhere. */
struct terminal_text {
    uint8_t held[TERMINAL_HELD_MAX]; /* the beginning of what may be a colour, or of a control in UTF-8 */
    size_t n_held;
    bool coloured; /* what comes after it would be, too */
};

void terminal_put(struct terminal_text *t, struct cox_slice data, struct cox_buf *out);
/* The stream has ended. */
void terminal_end(struct terminal_text *t, struct cox_buf *out);

#endif
