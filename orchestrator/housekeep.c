#include "housekeep.h"

#include "cox/base/log.h"
#include "cox/base/units.h"

#include <malloc.h>
#include <stdio.h>
#include <unistd.h>

#define NS_PER_MS 1000000LL
#define LOOK_NS (1000 * NS_PER_MS)
#define SLICE_NS (100 * NS_PER_MS) /* between two slices of 5 ms */
#define FULL_PERCENT 90
#define SPARE_LEN_MIN (8u << 20) /* of freed memory: less is not worth giving back */
#define SPARE_REST 100           /* a hundredth of the time at most goes into looking at it */

static void on_swept(struct cox_ask *ask, enum cox_err err, uint64_t more, struct cox_buf *bytes)
{
    struct cox_housekeep *h = COX_CONTAINER_OF(ask, struct cox_housekeep, sweep);
    int64_t now_ns = cox_driver_now(h->driver).mono_ns;

    (void)err, (void)bytes;
    h->sweep_ns = now_ns + (more ? SLICE_NS : h->sweep_every_ns);
}

void cox_housekeep_init(struct cox_housekeep *h, struct cox_driver *d, const struct cox_driver_config *config,
                        int64_t from_ns)
{
    *h = (struct cox_housekeep){
        .driver = d,
        .min_free = config->min_free,
        .memory_limit = config->memory_limit,
        .look_ns = config->min_free || config->memory_limit ? from_ns : INT64_MAX,
        .spare_ns = from_ns,
        .sweep_ns = config->sweep_every_ms ? from_ns + config->sweep_every_ms * NS_PER_MS : INT64_MAX,
        .sweep_every_ns = config->sweep_every_ms * NS_PER_MS,
        .sweep = { .fn = on_swept },
    };
}

/* 0 when it cannot be told. */
static uint64_t resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long long pages = 0;

    if (!f)
        return 0;
    if (fscanf(f, "%*u %llu", &pages) != 1)
        pages = 0;
    (void)fclose(f);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* What was freed and has lain idle since the last look goes back to the system: the burst that needed it is
 * over, and those who come to rest after it should not be what it cost. */
static void give_back(struct cox_housekeep *h)
{
    struct mallinfo2 heap = mallinfo2();
    size_t spare_len = heap.fordblks, kept_len = heap.uordblks / 4;
    size_t idle_len = spare_len < h->spare_len ? spare_len : h->spare_len;

    h->spare_len = spare_len;
    if (spare_len < h->given_len)
        h->given_len = spare_len;
    if (idle_len < SPARE_LEN_MIN + h->given_len || idle_len < kept_len)
        return;
    (void)malloc_trim(0);
    h->given_len = spare_len;
}

static enum cox_shortage find_shortage(struct cox_housekeep *h, uint64_t *ret_rss)
{
    uint64_t full = h->memory_limit / 100 * FULL_PERCENT;

    *ret_rss = h->memory_limit ? resident_bytes() : 0;
    if (*ret_rss > full) {
        (void)malloc_trim(0); /* what was freed is given back before anybody is refused for it */
        *ret_rss = resident_bytes();
    }
    if (h->min_free && cox_store_free_bytes(cox_driver_store(h->driver)) < h->min_free)
        return COX_SHORTAGE_DISK;
    return *ret_rss > full ? COX_SHORTAGE_MEMORY : COX_SHORTAGE_NONE;
}

static void look(struct cox_housekeep *h)
{
    static const char *const words[] = {
        [COX_SHORTAGE_NONE] = "enough room again: submissions are taken",
        [COX_SHORTAGE_DISK] = "less than --min-free is left on the disk: submissions are refused",
        [COX_SHORTAGE_MEMORY] = "more than 90 % of --memory-limit is used: submissions are refused",
    };
    uint64_t rss;
    enum cox_shortage shortage = find_shortage(h, &rss);

    if (shortage != h->shortage)
        cox_log(shortage ? COX_LOG_WARN : COX_LOG_INFO, words[shortage], NULL);
    h->shortage = shortage;
    h->stifled = h->memory_limit && rss > h->memory_limit && !h->stifled;
}

void cox_housekeep_limit(struct cox_housekeep *h, uint64_t min_free, uint64_t memory_limit)
{
    h->min_free = min_free;
    h->memory_limit = memory_limit;
    h->look_ns = 0; /* also without any limit: what was short no longer is */
}

void cox_housekeep_turn(struct cox_housekeep *h, int64_t now_ns, bool quiet)
{
    if (now_ns >= h->look_ns) {
        look(h);
        h->look_ns = h->min_free || h->memory_limit ? now_ns + LOOK_NS : INT64_MAX;
    }
    if (quiet && now_ns >= h->spare_ns) {
        int64_t begun_ns = cox_clock_mono_ns();

        give_back(h);
        int64_t cost_ns = cox_clock_mono_ns() - begun_ns;

        h->spare_ns = now_ns + LOOK_NS + cost_ns * SPARE_REST; /* it visits all that is free */
    }
    if (now_ns >= h->sweep_ns) {
        h->sweep_ns = INT64_MAX;
        h->sweep.req = (struct cox_store_request){ .op = COX_STORE_SWEEP };
        cox_driver_ask(h->driver, &h->sweep);
    }
}

int64_t cox_housekeep_wake_ns(const struct cox_housekeep *h)
{
    return h->look_ns < h->sweep_ns ? h->look_ns : h->sweep_ns;
}
