/* Time, chance, and the story told so far. */
#include "sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void event_init(struct event *ev, void (*fn)(struct sim *s, struct event *ev))
{
    cox_heap_node_init(&ev->node);
    ev->fn = fn;
}

void event_at(struct sim *s, struct event *ev, int64_t at_ns)
{
    cox_heap_set(&s->events, &ev->node, (uint64_t)(at_ns > s->now_ns ? at_ns : s->now_ns));
}

void event_soon(struct sim *s, struct event *ev, int64_t at_ns)
{
    if (at_ns < s->now_ns)
        at_ns = s->now_ns;
    if (!cox_heap_has(&ev->node) || ev->node.key > (uint64_t)at_ns)
        event_at(s, ev, at_ns);
}

void event_cancel(struct sim *s, struct event *ev)
{
    cox_heap_remove(&s->events, &ev->node);
}

uint64_t rnd(struct sim *s, uint64_t bound)
{
    return bound == 0 ? 0 : cox_rng_below(s->chance, bound);
}

bool chance(struct sim *s, uint32_t per_mille)
{
    return per_mille > 0 && rnd(s, 1000) < per_mille;
}

int64_t between(struct sim *s, int64_t lo, int64_t hi)
{
    return lo + (int64_t)rnd(s, (uint64_t)(hi - lo) + 1);
}

int64_t latency(struct sim *s, int64_t typical_ns)
{
    int64_t ns = between(s, typical_ns / 2, typical_ns * 2);
    return befalls(s, KIND_DELAY, 10) ? ns * 30 : ns;
}

/* ---- kinds ---- */

#define KIND_NAME(name, text, fault, what) text,
const char *const kind_names[KIND_NR] = { KIND_TABLE(KIND_NAME) };
#undef KIND_NAME
#define KIND_FAULT(name, text, fault, what) fault,
static const bool kind_is_fault[KIND_NR] = { KIND_TABLE(KIND_FAULT) };
#undef KIND_FAULT

bool kind_on(const struct sim *s, enum kind k)
{
    return (s->opt.without >> k & 1) == 0 && (s->opt.faults || !kind_is_fault[k]);
}

bool kind_now(const struct sim *s, enum kind k)
{
    return kind_on(s, k) && !(s->healed && kind_is_fault[k]);
}

void befell(struct sim *s, enum kind k)
{
    s->n.kinds[k]++;
}

bool befalls(struct sim *s, enum kind k, uint32_t per_mille)
{
    bool yes = per_mille > 0 && cox_rng_below(&s->kinds[k], 1000) < per_mille && kind_now(s, k);
    if (yes)
        befell(s, k);
    return yes;
}

const char *ref_text(struct cox_ref ref)
{
    static char texts[8][96];
    static unsigned next;
    char *text = texts[next++ % 8];
    char id[COX_TASK_ID_TEXT_MAX];
    cox_task_id_format(ref.task, id);
    snprintf(text, sizeof texts[0], "%s/%u(%" PRIu64 ".%" PRIu64 ")", id, ref.step, ref.token.epoch,
             ref.token.counter);
    return text;
}

void trace(struct sim *s, const char *fmt, ...)
{
    char *line = s->lines[s->n_lines++ % TRACE_LINES];
    int n = snprintf(line, sizeof s->lines[0], "%12.6f ", (double)s->now_ns / 1e9);
    va_list args;
    va_start(args, fmt);
    int m = vsnprintf(line + n, sizeof s->lines[0] - (size_t)n, fmt, args);
    va_end(args);
    size_t len = (size_t)(n + m);
    if (len > sizeof s->lines[0] - 1)
        len = sizeof s->lines[0] - 1;
    uint64_t parts[2] = { s->trace_hash, cox_hash64(line, len) };
    s->trace_hash = cox_hash64(parts, sizeof parts);
    if (s->opt.trace_all)
        fprintf(stderr, "%s\n", line);
}

void fail(struct sim *s, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    sim_broken(s, fmt, text);
}
