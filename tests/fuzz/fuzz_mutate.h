/* Changes a message, written as JSON, by what its type knows: a field gets another value, appears, goes. */
#ifndef COX_FUZZ_MUTATE_H
#define COX_FUZZ_MUTATE_H

#include "fuzz.h"

#include "cox/base/buf.h"

#include <protobuf-c/protobuf-c.h>

struct fuzz_chance {
    uint64_t state;
};
uint32_t fuzz_draw(struct fuzz_chance *c, uint32_t n); /* 0 .. n - 1 */

/* Appends `json`, whatever it is, changed. */
void fuzz_mutate_message(struct fuzz_chance *c, const ProtobufCMessageDescriptor *kind, struct cox_slice json,
                         struct cox_buf *out);

#endif
