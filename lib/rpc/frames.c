#include "frames.h"

#include "cox/base/plant.h"

#define PREFACE_LEN 24u
#define HEAD_LEN 9u

enum { DATA = 0, HEADERS = 1, PRIORITY = 2, RST_STREAM = 3, SETTINGS = 4, PING = 6, CONTINUATION = 9 };
enum { ACK = 1, END_STREAM = 1 };

/* So many at once, and so many more each second. A client of the library pings while it probes for bandwidth.
 */
static const struct {
    uint32_t burst, per_second;
    const char *what;
} budgets[FRAMES_BUDGET_NR] = {
    [FRAMES_RESETS] = { 200, 33, "calls that are taken back at once" },
    [FRAMES_PINGS] = { 1000, 100, "pings" },
    [FRAMES_SETTINGS] = { 100, 10, "settings" },
    [FRAMES_EMPTY] = { 1000, 100, "empty data" },
    [FRAMES_PRIORITIES] = { 1000, 100, "priorities" },
    [FRAMES_LONG] = { 100, 10, "headers that are too long" },
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

static const char *on_frame(struct frames *f)
{
    size_t len = u32(f->head) >> 8;
    uint8_t kind = f->head[3], flags = f->head[4];
    uint32_t stream = u32(f->head + 5) & 0x7fffffff;

    f->skip = len;
    switch (kind) {
    case HEADERS:
        return on_headers(f, len, stream);
    case CONTINUATION:
        return on_continuation(f, len);
    case RST_STREAM:
        return stream > f->settled ? spend(f, FRAMES_RESETS) : NULL;
    case PING:
        return flags & ACK ? NULL : spend(f, FRAMES_PINGS);
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

const char *frames_feed(struct frames *f, struct cox_slice bytes, int64_t now_mono_ms)
{
    const char *wrong = NULL;

    fill(f, now_mono_ms);
    f->preface_len += take(&bytes, PREFACE_LEN - f->preface_len);
    while (bytes.len > 0 && !wrong) {
        f->skip -= take(&bytes, f->skip);
        while (bytes.len > 0 && f->head_len < HEAD_LEN) {
            f->head[f->head_len++] = bytes.data[0];
            (void)take(&bytes, 1);
        }
        if (f->head_len < HEAD_LEN)
            break;
        f->head_len = 0;
        wrong = on_frame(f);
    }
    return wrong;
}
