/* Any bytes as what a model server says at /metrics: read the same however it is cut, and what is read is
 * within what placement takes. The first byte chooses the cuts. */
#include "fuzz.h"

#include "signals.h"

#include "cox/base/err.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct signals_reader whole = { 0 }, pieces = { 0 };
    struct signals a, b;
    size_t step = size > 0 ? data[0] + 1u : 1;

    signals_feed(&whole, cox_slice(data, size));
    signals_end(&whole, &a);
    for (size_t at = 0; at < size; at += step)
        signals_feed(&pieces, cox_slice(data + at, size - at < step ? size - at : step));
    signals_end(&pieces, &b);
    COX_ASSERT(strcmp(a.engine, b.engine) == 0);
    COX_ASSERT(a.load.running == b.load.running && a.load.waiting == b.load.waiting);
    COX_ASSERT(a.load.kv_used_permille == b.load.kv_used_permille && a.load.kv_tokens == b.load.kv_tokens);
    COX_ASSERT(a.started == b.started && a.n_handled == b.n_handled);
    COX_ASSERT(a.load.running >= -1 && a.load.waiting >= -1);
    COX_ASSERT(a.load.kv_used_permille >= -1 && a.load.kv_used_permille <= 1000);
    COX_ASSERT(a.started >= 0 && (a.n_handled >= 0 || a.n_handled == -1));
    COX_ASSERT(!signals_restarted(&a, &b) || a.n_handled < 0 || a.started > 0);
    return 0;
}
