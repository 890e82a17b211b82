/* The list is all inline; this file proves that its header stands alone. */
#include "cox/base/list.h"

_Static_assert(sizeof(struct cox_list) == 2 * sizeof(void *), "a link costs two pointers");
