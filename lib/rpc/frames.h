/* What a connection says, looked at as frames of HTTP/2 (RFC 9113, section 4.1): whether its peer lives by
 * making work rather than by asking for something. Pure.
 *
 * The library (1.51) takes back calls, answers pings and settings, and reads headers as long as they come, on
 * the thread that everything runs on, and keeps each call that was taken back until it is its turn: one
 * connection that sends nothing else stops the service for all and takes a gigabyte in seconds.
 *
 * So each kind of frame that costs its sender nothing has a budget that fills up again with time (nghttp2
 * bounds resets and settings likewise). Calls that are taken back count when they are younger than
 * FRAMES_YOUNG_MS: a watch that has been watched may be given up as often as one likes.
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

/* Zeroed: nothing was said yet; the preface comes first. */
struct frames {
    uint8_t head[9]; /* of the frame at hand */
    uint8_t head_len;
    size_t preface_len;       /* of it, read */
    size_t skip;              /* of a frame's payload, still to come */
    size_t headers_len;       /* of the block at hand */
    uint32_t newest, settled; /* streams: the highest opened, and what it was a while ago */
    int64_t settled_ms;
    int64_t filled_ms; /* when the budgets were filled last */
    uint32_t spent[FRAMES_BUDGET_NR];
};

/* NULL, or in words what is wrong with what came. After that no more may be fed. O(frames), not O(bytes). */
const char *frames_feed(struct frames *f, struct cox_slice bytes, int64_t now_mono_ms);

#endif
