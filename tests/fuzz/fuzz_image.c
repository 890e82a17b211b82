/* Any bytes as an image: refused, or safe to use. */
#include "fuzz_task.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cox_image image;

    if (cox_image_open(&image, cox_slice(data, size)) == COX_OK)
        fuzz_use_image(&image, cox_slice_str("{\"a\": [1, \"b\", null]}"), false);
    return 0;
}
