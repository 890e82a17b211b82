#include "signals.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RUNNING, WAITING, KV_USED, KV_TOKENS, STARTED, HANDLED, KINDS };
enum { NOBODY, VLLM, SGLANG, LLAMACPP, TGI, TRTLLM };

static const char *const engine_texts[] = { "", "vllm", "sglang", "llama.cpp", "tgi", "trtllm" };

/* Some exporters write a colon as an underscore. */
static const struct prefix {
    const char *text;
    size_t len;
    int engine;
} prefixes[] = {
    { "vllm", 4, VLLM }, { "sglang", 6, SGLANG }, { "llamacpp", 8, LLAMACPP },
    { "tgi", 3, TGI },   { "trtllm", 6, TRTLLM },
};

static const struct name {
    int engine;
    const char *text;
    int kind;
} names[] = {
    { VLLM, "num_requests_running", RUNNING },
    { VLLM, "num_requests_waiting", WAITING },
    { VLLM, "kv_cache_usage_perc", KV_USED },
    { VLLM, "gpu_cache_usage_perc", KV_USED },
    { VLLM, "cache_config_info", KV_TOKENS },
    { VLLM, "prompt_tokens_total", HANDLED },
    { SGLANG, "num_running_reqs", RUNNING },
    { SGLANG, "num_queue_reqs", WAITING },
    { SGLANG, "token_usage", KV_USED },
    { SGLANG, "max_total_num_tokens", KV_TOKENS },
    { SGLANG, "prompt_tokens_total", HANDLED },
    { LLAMACPP, "requests_processing", RUNNING },
    { LLAMACPP, "requests_deferred", WAITING },
    { LLAMACPP, "kv_cache_usage_ratio", KV_USED },
    { LLAMACPP, "prompt_tokens_total", HANDLED },
    { TGI, "batch_current_size", RUNNING },
    { TGI, "queue_size", WAITING },
    { TGI, "request_count", HANDLED },
    { TRTLLM, "num_requests_running", RUNNING },
    { TRTLLM, "num_requests_waiting", WAITING },
    { TRTLLM, "kv_cache_utilization", KV_USED },
    { TRTLLM, "request_success_total", HANDLED },
};

/* ---- a line ---- */

static bool begins(const char *s, size_t len, const char *with, size_t with_len)
{
    return len >= with_len && memcmp(s, with, with_len) == 0;
}

/* The value of a label: digits alone, or nothing. */
static double label(const char *line, const char *name)
{
    const char *at = strstr(line, name);
    char *end;

    if (!at)
        return 0;
    double v = strtod(at + strlen(name), &end);

    return *end == '"' && isfinite(v) && v > 0 ? v : 0;
}

static void add(struct signals_reader *r, int kind, double v)
{
    if (!isfinite(v) || v < 0)
        return;
    r->sums[kind] += v;
    r->counts[kind]++;
}

/* `rest` is what follows the name: labels and a value; ends with NUL. */
static void take(struct signals_reader *r, int engine, int kind, const char *rest)
{
    const char *value = *rest == '{' ? strrchr(rest, '}') : rest;
    char *end;

    if (engine)
        r->engine = (uint8_t)engine;
    if (engine == VLLM && kind == KV_TOKENS) {
        double tokens = label(rest, "kv_cache_size_tokens=\"");

        add(r, kind, tokens > 0 ? tokens : label(rest, "num_gpu_blocks=\"") * label(rest, "block_size=\""));
        return;
    }
    if (!value)
        return;
    value += *value == '}';
    double v = strtod(value, &end);

    if (end != value)
        add(r, kind, v);
}

static void read_name(struct signals_reader *r, int engine, const char *s, size_t len)
{
    size_t n = strcspn(s, "{ \t");

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].engine == engine && strlen(names[i].text) == n && memcmp(names[i].text, s, n) == 0) {
            if (n < len)
                take(r, engine, names[i].kind, s + n);
            return;
        }
    }
}

/* `line` ends with NUL. */
static void read_line(struct signals_reader *r, const char *line, size_t len)
{
    static const char started[] = "process_start_time_seconds";

    if (begins(line, len, started, sizeof(started) - 1) && strchr("{ \t", line[sizeof(started) - 1])) {
        r->sums[STARTED] = 0; /* one alone */
        r->counts[STARTED] = 0;
        take(r, NOBODY, STARTED, line + sizeof(started) - 1);
        return;
    }
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        const struct prefix *p = &prefixes[i];

        if (begins(line, len, p->text, p->len) && (line[p->len] == ':' || line[p->len] == '_'))
            read_name(r, p->engine, line + p->len + 1, len - p->len - 1);
    }
}

/* ---- pieces ---- */

/* Histograms are most of it, and none of ours: seen by their ends before anything is copied. */
static bool is_wanted(const uint8_t *line, size_t len)
{
    const uint8_t *brace;

    if (len < 8 || len >= SIGNALS_LINE_MAX ||
        (*line != 'v' && *line != 's' && *line != 'l' && *line != 't' && *line != 'p'))
        return false;
    brace = memchr(line, '{', len < 80 ? len : 80);
    return !brace || brace - line < 7 || memcmp(brace - 7, "_bucket", 7) != 0;
}

static void finish_line(struct signals_reader *r)
{
    if (!r->too_long && is_wanted((const uint8_t *)r->line, r->len)) {
        r->line[r->len] = '\0';
        read_line(r, r->line, r->len);
    }
    r->len = 0;
    r->too_long = false;
}

static void keep(struct signals_reader *r, const uint8_t *p, size_t len)
{
    if (r->len + len >= SIGNALS_LINE_MAX)
        r->too_long = true;
    if (!r->too_long) {
        memcpy(r->line + r->len, p, len);
        r->len += len;
    }
}

void signals_feed(struct signals_reader *r, struct cox_slice piece)
{
    const uint8_t *p = piece.data, *end = p + piece.len;

    while (p < end) {
        const uint8_t *lf = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((lf ? lf : end) - p);
        bool whole = lf && r->len == 0 && !r->too_long;

        if (!whole || is_wanted(p, len))
            keep(r, p, len);
        if (lf)
            finish_line(r);
        p += len + 1;
    }
}

static int32_t rounded(double v)
{
    return v > 1e9 ? 1000000000 : (int32_t)(v + 0.5);
}

void signals_end(struct signals_reader *r, struct signals *ret)
{
    finish_line(r);
    double used = r->counts[KV_USED] ? r->sums[KV_USED] / r->counts[KV_USED] : -1;

    *ret = (struct signals){
        .engine = engine_texts[r->engine],
        .load = { .running = r->counts[RUNNING] ? rounded(r->sums[RUNNING]) : -1,
                  .waiting = r->counts[WAITING] ? rounded(r->sums[WAITING]) : -1,
                  .kv_used_permille = used < 0 ? -1 : rounded(used > 1 ? 1000 : used * 1000),
                  .kv_tokens = r->sums[KV_TOKENS] < 1e15 ? (uint64_t)r->sums[KV_TOKENS] : 0 },
        .started = r->sums[STARTED],
        .n_handled = r->counts[HANDLED] ? r->sums[HANDLED] : -1,
    };
    *r = (struct signals_reader){ 0 };
}

bool signals_restarted(const struct signals *before, const struct signals *now)
{
    if (before->started > 0 && now->started > 0)
        return fabs(before->started - now->started) > 1; /* some compute it anew from the clock */
    return before->n_handled >= 0 && now->n_handled >= 0 && now->n_handled < before->n_handled;
}
