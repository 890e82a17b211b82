/* Using an image as the engine would: every accessor, every program. */
#ifndef COX_FUZZ_TASK_H
#define COX_FUZZ_TASK_H

#include "fuzz.h"

#include "cox/task.h"

/* Evaluates all templates of an opened image and reads all else; every step has this output. What evaluates
 * must be JSON when `trusted`: the image was compiled and not read from a file. */
void fuzz_use_image(const struct cox_image *image, struct cox_slice output, bool trusted);

#endif
