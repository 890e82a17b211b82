/* What a connection says, looked at as frames of HTTP/2 (RFC 9113, section 4.1): whether its peer lives by
 * making work rather than by asking for something. Pure. What belongs to one connection: one thread at a
 * time.
 *
 * The library (1.51) takes back calls, answers pings and settings, and reads headers as long as they come, on
 * the thread that everything runs on, and keeps each call that was taken back until it is its turn: one
 * connection that sends nothing else stops the service for all and takes a gigabyte in seconds.
 *
 * So each kind of frame that costs its sender nothing has a budget that fills up again with time (nghttp2
 * bounds resets and settings likewise). A budget may be spent at once, in one turn of the loop, and by a new
 * connection every 100 ms: it is as long as others may be kept waiting, a millisecond, and no longer.
 *
 * Calls that are taken back count when they are younger than FRAMES_YOUNG_MS. A client that gives up all it
 * has, because its user left, takes back calls that are older, as many as it likes; one that gives each call
 * less time than an answer takes has its 100, and 33 more each second. Only who opens calls by the hundred in
 * order to take them back is ended.
 *
 * Pings that probe for bandwidth are free. A client that receives data sends one and the next when that is
 * acknowledged and more data has come: grpc-go, Java and the library's own, on a fast network thousands a
 * second. So one ping is free for whatever part of an answer has gone to it since the last free one: whoever
 * pings more than that has been given nothing to measure.
 *
 * Headers beyond what the library takes are refused by it with words, once it has read and unpacked them all.
 */
#ifndef COX_RPC_FRAMES_H
#define COX_RPC_FRAMES_H

#include "cox/base/buf.h"

#define FRAMES_YOUNG_MS 20
#define FRAMES_HEADERS_LEN_SOFT ((size_t)8 << 10) /* the library refuses calls with more */
#define FRAMES_HEADERS_LEN_MAX ((size_t)64 << 10) /* of one block, with all that continues it */

enum frames_budget {
    FRAMES_RESETS,
    FRAMES_PINGS,
    FRAMES_SETTINGS,
    FRAMES_EMPTY,
    FRAMES_PRIORITIES,
    FRAMES_LONG,
    FRAMES_BUDGET_NR
};

/* Frames of one direction, one after the other. Zeroed: at the first. */
struct frames_walk {
    uint8_t head[9]; /* of the frame at hand */
    uint8_t head_len;
    size_t skip; /* of its payload, still to come */
};

/* Zeroed: nothing was said yet; the preface comes first. */
struct frames {
    struct frames_walk walk;
    size_t preface_len;       /* of it, read */
    size_t headers_len;       /* of the block at hand */
    uint32_t newest, settled; /* streams: the highest opened, and what it was a while ago */
    int64_t settled_ms;
    int64_t filled_ms; /* when the budgets were filled last */
    uint32_t spent[FRAMES_BUDGET_NR];
    bool answered; /* since the last ping that was free */
};

/* NULL, or in words what is wrong with what came. After that no more may be fed. O(frames), not O(bytes). */
const char *frames_feed(struct frames *f, struct cox_slice bytes, int64_t now_mono_ms);

/* Of what goes to the peer, without a preface: whether a part of an answer, headers or data, is in it. */
bool frames_answer(struct frames_walk *to_peer, struct cox_slice bytes);

/* Such a part has gone, or is about to. */
void frames_answered(struct frames *f);

#endif
