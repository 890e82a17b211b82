#include "frames.h"

#include "cox/base/plant.h"

#define PREFACE_LEN 24u
#define HEAD_LEN 9u

enum { DATA = 0, HEADERS = 1, PRIORITY = 2, RST_STREAM = 3, SETTINGS = 4, PING = 6, CONTINUATION = 9 };
enum { ACK = 1, END_STREAM = 1 };

/* So many at once, and so many more each second. */
static const struct {
    uint32_t burst, per_second;
    const char *what;
} budgets[FRAMES_BUDGET_NR] = {
    [FRAMES_RESETS] = { 100, 33, "calls that are taken back at once" },
    [FRAMES_PINGS] = { 100, 10, "pings" },
    [FRAMES_SETTINGS] = { 100, 10, "settings" },
    [FRAMES_EMPTY] = { 1000, 100, "empty data" },
    [FRAMES_PRIORITIES] = { 1000, 100, "priorities" },
    [FRAMES_LONG] = { 10, 1, "headers that are too long" },
};

static void fill(struct frames *f, int64_t now_ms)
{
    int64_t passed_ms = now_ms - f->filled_ms;

    if (now_ms - f->settled_ms >= FRAMES_YOUNG_MS) {
        f->settled = f->newest;
        f->settled_ms = now_ms;
    }
    if (passed_ms < 1000)
        return;
    f->filled_ms = now_ms;
    for (size_t i = 0; i < FRAMES_BUDGET_NR; i++) {
        uint64_t more = (uint64_t)passed_ms * budgets[i].per_second / 1000;
        f->spent[i] = more < f->spent[i] ? f->spent[i] - (uint32_t)more : 0;
    }
}

static const char *spend(struct frames *f, enum frames_budget of)
{
    return ++f->spent[of] > budgets[of].burst && !COX_PLANTED("floods-are-heard") ? budgets[of].what : NULL;
}

static uint32_t u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static const char *on_headers(struct frames *f, size_t len, uint32_t stream)
{
    f->headers_len = len;
    if (stream > f->newest)
        f->newest = stream;
    if (len > FRAMES_HEADERS_LEN_MAX)
        return "headers without end";
    return len > FRAMES_HEADERS_LEN_SOFT ? spend(f, FRAMES_LONG) : NULL;
}

/* An empty piece of a block would cost nothing: each counts as its head at least. */
static const char *on_continuation(struct frames *f, size_t len)
{
    f->headers_len += HEAD_LEN + len;
    return f->headers_len > FRAMES_HEADERS_LEN_MAX ? "headers without end" : NULL;
}

static const char *on_ping(struct frames *f)
{
    if (f->answered && !COX_PLANTED("probes-are-floods")) {
        f->answered = false;
        return NULL;
    }
    return spend(f, FRAMES_PINGS);
}

static const char *on_frame(struct frames *f)
{
    const uint8_t *head = f->walk.head;
    size_t len = u32(head) >> 8;
    uint8_t kind = head[3], flags = head[4];
    uint32_t stream = u32(head + 5) & 0x7fffffff;

    switch (kind) {
    case HEADERS:
        return on_headers(f, len, stream);
    case CONTINUATION:
        return on_continuation(f, len);
    case RST_STREAM:
        return stream > f->settled ? spend(f, FRAMES_RESETS) : NULL;
    case PING:
        return flags & ACK ? NULL : on_ping(f);
    case SETTINGS:
        return flags & ACK ? NULL : spend(f, FRAMES_SETTINGS);
    case DATA:
        return len == 0 && !(flags & END_STREAM) ? spend(f, FRAMES_EMPTY) : NULL;
    case PRIORITY:
        return spend(f, FRAMES_PRIORITIES);
    default:
        return NULL;
    }
}

/* Takes at most `want` of the bytes. */
static size_t take(struct cox_slice *bytes, size_t want)
{
    size_t n = want < bytes->len ? want : bytes->len;

    *bytes = cox_slice(bytes->data + n, bytes->len - n);
    return n;
}

/* False: the bytes end before the next frame's head does. True: it is in w->head, and the bytes are behind
 * it. */
static bool next_head(struct frames_walk *w, struct cox_slice *bytes)
{
    w->skip -= take(bytes, w->skip);
    while (bytes->len > 0 && w->head_len < HEAD_LEN) {
        w->head[w->head_len++] = bytes->data[0];
        (void)take(bytes, 1);
    }
    if (w->head_len < HEAD_LEN)
        return false;
    w->head_len = 0;
    w->skip = u32(w->head) >> 8;
    return true;
}

const char *frames_feed(struct frames *f, struct cox_slice bytes, int64_t now_mono_ms)
{
    const char *wrong = NULL;

    fill(f, now_mono_ms);
    f->preface_len += take(&bytes, PREFACE_LEN - f->preface_len);
    while (!wrong && next_head(&f->walk, &bytes))
        wrong = on_frame(f);
    return wrong;
}

bool frames_answer(struct frames_walk *to_peer, struct cox_slice bytes)
{
    bool found = false;

    while (next_head(to_peer, &bytes))
        found |= to_peer->head[3] == DATA || to_peer->head[3] == HEADERS;
    return found;
}

void frames_answered(struct frames *f)
{
    f->answered = true;
}
