/* Any bytes as a stream of events. The first byte chooses how it is cut: however that is, the same events are
 * heard, and each is said to end behind an end of line. */
#include "fuzz.h"

#include "sse.h"

#include "cox/base/alloc.h"
#include "cox/base/rng.h"

#include <string.h>

struct heard {
    struct cox_buf text;
    struct cox_slice piece;
    uint64_t n;
};

static bool on_event(void *user, struct cox_slice data, size_t end)
{
    struct heard *h = user;
    uint8_t last = h->piece.data[end - 1];

    COX_ASSERT(end > 0 && end <= h->piece.len && (last == '\n' || last == '\r'));
    cox_put_bytes(&h->text, data);
    h->n++;
    return true;
}

static void feed(struct sse *s, struct heard *h, const uint8_t *data, size_t len)
{
    uint8_t *copy = cox_alloc(len); /* so that a read beside it is seen */

    if (len > 0)
        memcpy(copy, data, len);
    h->piece = cox_slice(copy, len);
    COX_ASSERT(sse_feed(s, h->piece, on_event, h) == COX_OK);
    cox_free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sse whole = { 0 }, cut = { 0 };
    struct heard a = { 0 }, b = { 0 };
    struct cox_rng rng;

    if (size == 0)
        return 0;
    cox_rng_init(&rng, data[0]);
    feed(&whole, &a, data + 1, size - 1);
    for (size_t at = 1, n; at < size; at += n) {
        n = 1 + (size_t)cox_rng_below(&rng, 1 + data[0] % 16);
        n = n < size - at ? n : size - at;
        feed(&cut, &b, data + at, n);
    }
    COX_ASSERT(cox_slice_eq(cox_buf_slice(&a.text), cox_buf_slice(&b.text)));
    COX_ASSERT(whole.n_events == cut.n_events && whole.n_events == a.n);
    sse_fini(&whole);
    sse_fini(&cut);
    cox_buf_fini(&a.text);
    cox_buf_fini(&b.text);
    return 0;
}
