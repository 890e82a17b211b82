/* Types that inputs are declared with. */
#ifndef COX_TASK_INPUTS_H
#define COX_TASK_INPUTS_H

#include <stdint.h>

struct input_type {
    const char *name;
    uint8_t want; /* fields.h's WANT_ bits */
    const char *expected;
};
const struct input_type *input_type(uint32_t type); /* "any" for what is not known */

#endif
