/* What a peer of gRPC says, and is given meanwhile: the first byte chooses how it is cut, then turns of
 * - a byte: how much time has passed (its lower bits), whether a part of an answer has gone (0x40), whether
 * these bytes are ours to the peer (0x80)
 * - two bytes: the length of what is said
 * - what is said.
 * However it is cut, the same is found wrong in the same turn, the same is left of each budget, and nothing
 * beside the bytes is read. */
#include "fuzz.h"

#include "lib/rpc/frames.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"

#include <string.h>

#define ANSWERED 0x40
#define TO_PEER 0x80
#define TIME_BITS 0x3f

struct talk {
    struct frames from_peer;
    struct frames_walk to_peer;
    const char *wrong;
    bool answer; /* in the last turn */
};

static void say(struct talk *t, uint8_t how, struct cox_slice bytes, int64_t now_ms)
{
    uint8_t *alone = cox_alloc(bytes.len + 1); /* so that reading beside them is seen */

    memcpy(alone, bytes.data, bytes.len);
    bytes = cox_slice(alone, bytes.len);
    if (how & TO_PEER)
        t->answer |= frames_answer(&t->to_peer, bytes);
    else if (!t->wrong)
        t->wrong = frames_feed(&t->from_peer, bytes, now_ms);
    cox_free(alone);
}

static void say_in_pieces(struct talk *t, uint8_t how, struct cox_slice bytes, int64_t now_ms,
                          uint32_t *random)
{
    do {
        *random = *random * 1664525 + 1013904223;
        size_t len = *random >> 31 ? *random >> 28 & 3 : *random >> 20 & 127;

        len = len < bytes.len ? len : bytes.len;
        say(t, how, cox_slice(bytes.data, len), now_ms);
        bytes = cox_slice(bytes.data + len, bytes.len - len);
    } while (bytes.len > 0);
}

static void check_walk(const struct frames_walk *a, const struct frames_walk *b)
{
    COX_ASSERT(a->head_len == b->head_len && a->skip == b->skip);
    COX_ASSERT(memcmp(a->head, b->head, a->head_len) == 0);
}

static void check_same(const struct talk *a, const struct talk *b)
{
    COX_ASSERT(a->wrong == b->wrong && a->answer == b->answer);
    check_walk(&a->to_peer, &b->to_peer);
    COX_ASSERT(memcmp(a->from_peer.spent, b->from_peer.spent, sizeof(a->from_peer.spent)) == 0);
    COX_ASSERT(a->from_peer.newest == b->from_peer.newest && a->from_peer.settled == b->from_peer.settled);
    COX_ASSERT(a->from_peer.answered == b->from_peer.answered);
    if (a->wrong)
        return; /* what came behind it was not looked at */
    check_walk(&a->from_peer.walk, &b->from_peer.walk);
    COX_ASSERT(a->from_peer.preface_len == b->from_peer.preface_len);
    COX_ASSERT(a->from_peer.headers_len == b->from_peer.headers_len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct talk whole = { 0 }, pieces = { 0 };
    struct cox_slice in = cox_slice(data, size);
    int64_t now_ms = 0;
    uint32_t random;

    if (in.len == 0)
        return 0;
    random = in.data[0];
    in = cox_slice(in.data + 1, in.len - 1);
    while (in.len >= 3 && !whole.wrong) {
        uint8_t how = in.data[0];
        size_t len = (size_t)in.data[1] << 8 | in.data[2];
        struct cox_slice bytes = cox_slice(in.data + 3, len < in.len - 3 ? len : in.len - 3);

        in = cox_slice(bytes.data + bytes.len, in.len - 3 - bytes.len);
        now_ms += (int64_t)(how & TIME_BITS) * (how & TIME_BITS);
        whole.answer = pieces.answer = false;
        if (how & ANSWERED) {
            frames_answered(&whole.from_peer);
            frames_answered(&pieces.from_peer);
        }
        say(&whole, how, bytes, now_ms);
        say_in_pieces(&pieces, how, bytes, now_ms, &random);
        check_same(&whole, &pieces);
    }
    return 0;
}
