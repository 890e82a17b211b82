/* What fuzz targets share. A target defines LLVMFuzzerTestOneInput and says what must hold for any bytes;
 * libFuzzer (-Dfuzz=true) finds bytes, replay.c runs the kept ones in every test run. */
#ifndef COX_FUZZ_H
#define COX_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
