#include "breaker.h"

#include "cox/base/plant.h"

#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)
#define SLOW_MS 500 /* when it does not say */

static void count(struct breaker *b, int64_t now_ns, bool good)
{
    int64_t second = now_ns / NS_PER_S;
    unsigned i = (unsigned)(second % BREAKER_WINDOW_S);

    if (b->window[i].second != second) {
        b->window[i].second = second;
        b->window[i].good = b->window[i].bad = 0;
    }
    if (good)
        b->window[i].good++;
    else
        b->window[i].bad++;
}

static bool half_are_bad(const struct breaker *b, int64_t now_ns)
{
    uint64_t good = 0, bad = 0;

    for (unsigned i = 0; i < BREAKER_WINDOW_S; i++) {
        if (b->window[i].second > now_ns / NS_PER_S - BREAKER_WINDOW_S) {
            good += b->window[i].good;
            bad += b->window[i].bad;
        }
    }
    return good + bad >= BREAKER_CALLS_MIN && bad >= good;
}

static void forget(struct breaker *b)
{
    b->in_row = 0;
    for (unsigned i = 0; i < BREAKER_WINDOW_S; i++)
        b->window[i].good = b->window[i].bad = 0;
}

void breaker_good(struct breaker *b, int64_t now_ns)
{
    b->in_row = 0;
    count(b, now_ns, true);
    if (b->room > 0 && now_ns >= b->slow_until_ns && ++b->room > BREAKER_ROOM_MAX)
        b->room = 0;
    if (b->gate != PLACEMENT_HALF_OPEN)
        return; /* a closed one's calls from before say nothing of now */
    b->gate = PLACEMENT_OPEN;
    b->for_calls = false;
    b->recovered_ns = now_ns;
    forget(b);
}

bool breaker_bad(struct breaker *b, int64_t now_ns, const char **ret_why)
{
    b->in_row++;
    count(b, now_ns, false);
    if (b->gate == PLACEMENT_HALF_OPEN) {
        breaker_out(b, now_ns, "the call that tried it failed", b->for_calls);
        return false;
    }
    if (b->gate == PLACEMENT_CLOSED)
        return false;
    *ret_why = b->in_row >= BREAKER_ROW ? "5 failures in a row" : "half of its calls failed";
    return b->in_row >= BREAKER_ROW || half_are_bad(b, now_ns);
}

void breaker_out(struct breaker *b, int64_t now_ns, const char *why, bool for_calls)
{
    bool again = b->hold_ms > 0 && (b->gate != PLACEMENT_OPEN || now_ns - b->recovered_ns < 60 * NS_PER_S);

    b->hold_ms = again ? b->hold_ms * 2 : BREAKER_HOLD_MS;
    if (b->hold_ms > BREAKER_HOLD_MAX_MS)
        b->hold_ms = BREAKER_HOLD_MAX_MS;
    if (COX_PLANTED("breaker-same-hold"))
        b->hold_ms = BREAKER_HOLD_MS;
    b->gate = PLACEMENT_CLOSED;
    b->why = why;
    b->for_calls = for_calls;
    b->until_ns = now_ns + b->hold_ms * NS_PER_MS;
    forget(b);
}

void breaker_slow(struct breaker *b, int64_t now_ns, int64_t ms)
{
    int64_t until_ns;

    if (ms <= 0)
        ms = SLOW_MS;
    if (ms > BREAKER_SLOW_MAX_MS)
        ms = BREAKER_SLOW_MAX_MS;
    until_ns = now_ns + ms * NS_PER_MS;
    if (until_ns > b->slow_until_ns)
        b->slow_until_ns = until_ns;
    b->room = 1;
}

uint32_t breaker_room(const struct breaker *b)
{
    return COX_PLANTED("pause-then-all") ? 0 : b->room;
}

bool breaker_wants_probe(const struct breaker *b, int64_t now_ns)
{
    return b->gate == PLACEMENT_CLOSED && now_ns >= b->until_ns;
}

void breaker_probed(struct breaker *b, int64_t now_ns, bool good)
{
    if (b->gate != PLACEMENT_CLOSED)
        return;
    if (good)
        b->gate = PLACEMENT_HALF_OPEN;
    else
        breaker_out(b, now_ns, b->why, b->for_calls);
}

enum placement_gate breaker_gate(const struct breaker *b, int64_t now_ns)
{
    return now_ns < b->slow_until_ns ? PLACEMENT_CLOSED : b->gate;
}

int64_t breaker_wake_ns(const struct breaker *b, int64_t now_ns)
{
    int64_t wake = b->gate == PLACEMENT_CLOSED ? b->until_ns : INT64_MAX;

    return now_ns < b->slow_until_ns && b->slow_until_ns < wake ? b->slow_until_ns : wake;
}
