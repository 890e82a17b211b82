/* A breaker: whether an endpoint gets calls, by how its calls went. Pure: time comes with each call. Thread:
 * one.
 *
 *     open --5 bad in a row, or half of 20 in 10 s--> closed --hold--> (probe) --good--> half-open --good-->
 * open
 *                                                       ^----------------bad--------------/    \--bad-->
 * closed
 *
 * The hold is 5 s, and twice as long each time up to 60 s; after a minute without a fault it is 5 s again.
 *
 * An endpoint that asks for a pause gets nothing until that is over; then one call more than it has still,
 * and with each that ends well another one more: twice as many each time they come round. After 64 it takes
 * as many as it did before. */
#ifndef COX_ORCHESTRATOR_INFERENCE_BREAKER_H
#define COX_ORCHESTRATOR_INFERENCE_BREAKER_H

#include "placement.h"

#define BREAKER_ROW 5u
#define BREAKER_CALLS_MIN 20u
#define BREAKER_WINDOW_S 10u
#define BREAKER_HOLD_MS 5000
#define BREAKER_HOLD_MAX_MS 60000
#define BREAKER_SLOW_MAX_MS 60000
#define BREAKER_ROOM_MAX 64u

struct breaker { /* zero-initialised: open */
    enum placement_gate gate;
    const char *why;       /* of one that is not open; static */
    bool for_calls;        /* it is out for how its calls went */
    int64_t until_ns;      /* of a closed one: when to probe */
    int64_t slow_until_ns; /* it asked for a pause: nothing is wrong with it */
    uint32_t room;         /* after that: calls more than it had when the pause was over; 0: any number */
    int64_t hold_ms, recovered_ns;
    uint32_t in_row;
    struct {
        int64_t second;
        uint32_t good, bad;
    } window[BREAKER_WINDOW_S];
};

void breaker_good(struct breaker *b, int64_t now_ns);
/* True: it should be taken out for this; whether it may is for the caller to know, who says breaker_out then.
 * A half-open one is out already. */
bool breaker_bad(struct breaker *b, int64_t now_ns, const char **ret_why);
void breaker_out(struct breaker *b, int64_t now_ns, const char *why, bool for_calls);
void breaker_slow(struct breaker *b, int64_t now_ns, int64_t ms); /* 0: it did not say for how long */

/* Of a closed one whose hold is over: after a good probe it is half-open, after a bad one held longer. */
bool breaker_wants_probe(const struct breaker *b, int64_t now_ns);
void breaker_probed(struct breaker *b, int64_t now_ns, bool good);

/* Calls that it may be given beyond those that it has when a pause is over; 0: any number. */
uint32_t breaker_room(const struct breaker *b);

enum placement_gate breaker_gate(const struct breaker *b, int64_t now_ns);
int64_t breaker_wake_ns(const struct breaker *b,
                        int64_t now_ns); /* when that, or the probe, is due; INT64_MAX */

#endif
