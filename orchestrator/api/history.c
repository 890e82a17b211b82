#include "history.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"

#include <string.h>

#define LEVELS 4

static const struct {
    int64_t span_s;
    uint32_t n;
} levels[LEVELS] = { { 1, 600 }, { 10, 720 }, { 60, 1440 }, { 600, 1008 } };

struct ring {
    double *points; /* [levels[i].n], by slot number */
    double sum;     /* of what came in the newest slot */
    uint32_t n_sum;
};

struct series {
    struct cox_slice key;
    char *name;
    struct cox_label labels[COX_METRIC_LABELS_MAX];
    size_t n_labels;
    bool cumulative;
    int64_t first_s, heard_s;
    double last;
    struct ring rings[LEVELS];
};

struct cox_history {
    struct series *series[COX_HISTORY_SERIES_MAX]; /* in order of age */
    size_t n_series;
    struct cox_mapb by_key;
    int64_t first_s, now_s; /* 0: nothing yet */
    int64_t before_s;       /* now_s of the last moment */
};

struct cox_history *cox_history_create(void)
{
    return COX_NEW(struct cox_history);
}

static void series_free(struct cox_history *h, struct series *s)
{
    cox_mapb_remove(&h->by_key, s->key);
    for (size_t i = 0; i < LEVELS; i++)
        cox_free(s->rings[i].points);
    for (size_t i = 0; i < s->n_labels; i++) {
        cox_free((void *)(uintptr_t)s->labels[i].name.data);
        cox_free((void *)(uintptr_t)s->labels[i].value.data);
    }
    cox_free((void *)(uintptr_t)s->key.data);
    cox_free(s->name);
    cox_free(s);
}

void cox_history_destroy(struct cox_history *h)
{
    if (!h)
        return;
    for (size_t i = 0; i < h->n_series; i++)
        series_free(h, h->series[i]);
    cox_mapb_fini(&h->by_key);
    cox_free(h);
}

/* ---- keeping ---- */

static int64_t slot_of(int64_t wall_s, size_t level)
{
    return wall_s / levels[level].span_s;
}

void cox_history_begin(struct cox_history *h, int64_t wall_s)
{
    h->before_s = h->now_s;
    if (wall_s > h->now_s)
        h->now_s = wall_s;
    if (h->first_s == 0)
        h->first_s = h->now_s;
}

/* Spans between the last moment and this one have what was there before. */
static void ring_advance(const struct cox_history *h, struct series *s, size_t level)
{
    struct ring *r = &s->rings[level];
    int64_t now = slot_of(h->now_s, level), at = slot_of(h->before_s, level);

    if (now == at)
        return;
    if (now - at > levels[level].n)
        at = now - levels[level].n;
    while (++at < now)
        r->points[at % levels[level].n] = s->last;
    r->sum = 0;
    r->n_sum = 0;
}

static void series_put(struct cox_history *h, struct series *s, double value)
{
    for (size_t i = 0; i < LEVELS; i++) {
        struct ring *r = &s->rings[i];
        ring_advance(h, s, i);
        r->sum += value;
        r->n_sum++;
        r->points[slot_of(h->now_s, i) % levels[i].n] = s->cumulative ? value : r->sum / r->n_sum;
    }
    s->last = value;
    s->heard_s = h->now_s;
}

static struct cox_slice own(struct cox_slice s)
{
    return cox_slice(cox_strndup((const char *)s.data, s.len), s.len);
}

static bool make_room(struct cox_history *h)
{
    size_t oldest = 0;

    if (h->n_series < COX_HISTORY_SERIES_MAX)
        return true;
    for (size_t i = 1; i < h->n_series; i++)
        if (h->series[i]->heard_s < h->series[oldest]->heard_s)
            oldest = i;
    if (h->series[oldest]->heard_s >= h->before_s)
        return false; /* all are alive */
    series_free(h, h->series[oldest]);
    memmove(h->series + oldest, h->series + oldest + 1, (--h->n_series - oldest) * sizeof(h->series[0]));
    return true;
}

static struct series *series_add(struct cox_history *h, struct cox_slice key, const struct cox_sample *sample)
{
    if (!make_room(h))
        return NULL;
    struct series *s = COX_NEW(struct series);

    s->key = own(key);
    s->name = cox_strdup(sample->name);
    for (; s->n_labels < sample->n_labels; s->n_labels++)
        s->labels[s->n_labels] = (struct cox_label){ own(sample->labels[s->n_labels].name),
                                                     own(sample->labels[s->n_labels].value) };
    s->cumulative = sample->cumulative;
    s->first_s = h->now_s;
    for (size_t i = 0; i < LEVELS; i++)
        s->rings[i].points = cox_calloc(levels[i].n, sizeof(double));
    h->series[h->n_series++] = s;
    cox_mapb_set(&h->by_key, s->key, s);
    return s;
}

void cox_history_add(struct cox_history *h, const struct cox_sample *sample)
{
    struct cox_buf key = { 0 };

    if (sample->is_bucket)
        return;
    cox_put_bytes(&key, cox_slice_str(sample->name));
    for (size_t i = 0; i < sample->n_labels; i++) {
        cox_put_bytes(&key, sample->labels[i].name);
        cox_put_bytes(&key, sample->labels[i].value);
    }
    struct series *s = cox_mapb_get(&h->by_key, cox_buf_slice(&key));
    if (!s)
        s = series_add(h, cox_buf_slice(&key), sample);
    if (s)
        series_put(h, s, sample->value);
    cox_buf_fini(&key);
}

void cox_history_end(struct cox_history *h)
{
    for (size_t i = 0; i < h->n_series; i++) {
        struct series *s = h->series[i];
        if (s->heard_s == h->now_s)
            continue;
        int64_t heard_s = s->heard_s;
        series_put(h, s, s->cumulative ? s->last : 0);
        s->heard_s = heard_s;
    }
}

/* ---- asking ---- */

static size_t level_for(const struct cox_history *h, int64_t since_s)
{
    size_t i = 0;

    while (i + 1 < LEVELS && h->now_s - since_s >= levels[i].span_s * levels[i].n)
        i++;
    return i;
}

static int64_t points_span(size_t level, int64_t step_s)
{
    int64_t span_s = levels[level].span_s;

    return step_s <= span_s ? span_s : (step_s + span_s - 1) / span_s * span_s;
}

bool cox_history_plan(const struct cox_history *h, struct cox_history_query *q)
{
    if (h->now_s == 0)
        return false;
    if (q->since_s == 0)
        q->since_s = h->now_s - 599;
    if (q->since_s < h->first_s)
        q->since_s = h->first_s;
    if (q->since_s > h->now_s)
        q->since_s = h->now_s;
    size_t level = level_for(h, q->since_s);
    int64_t longest_s = levels[level].span_s * (levels[level].n - 1);

    if (h->now_s - q->since_s > longest_s)
        q->since_s = h->now_s - longest_s;
    if (q->step_s > longest_s)
        q->step_s = longest_s;
    q->step_s = points_span(level, q->step_s);
    q->start_s = q->since_s - q->since_s % q->step_s;
    q->n_points = (uint32_t)((h->now_s - q->start_s) / q->step_s + 1);
    return true;
}

/* One point of the answer from the points that are kept in its span. */
static double point(const struct cox_history *h, const struct series *s, size_t level, int64_t from_s,
                    int64_t step_s)
{
    int64_t first = slot_of(from_s, level), end = slot_of(from_s + step_s, level);
    int64_t oldest = slot_of(h->now_s, level) - levels[level].n + 1, newest = slot_of(h->now_s, level);
    double sum = 0, last = 0;
    int64_t n = 0;

    for (int64_t slot = first < oldest ? oldest : first; slot < end && slot <= newest; slot++, n++) {
        last = s->rings[level].points[slot % levels[level].n];
        sum += last;
    }
    return n == 0 ? 0 : s->cumulative ? last : sum / (double)n;
}

bool cox_history_next(const struct cox_history *h, const struct cox_history_query *q, size_t *it,
                      struct cox_history_series *ret, double *points)
{
    while (*it < h->n_series && strcmp(h->series[*it]->name, q->name) != 0)
        ++*it;
    if (*it == h->n_series)
        return false;
    const struct series *s = h->series[(*it)++];
    size_t level = level_for(h, q->since_s);

    for (uint32_t i = 0; i < q->n_points; i++)
        points[i] = point(h, s, level, q->start_s + i * q->step_s, q->step_s);
    *ret = (struct cox_history_series){ s->labels, s->n_labels };
    return true;
}
