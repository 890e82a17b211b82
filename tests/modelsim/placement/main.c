/* cox-sim-placement: what placement does to the inference tier, on virtual time. */
#include "world.h"

#include "cox/base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_USAGE = 2 };

static const char usage[] =
    "usage: cox-sim-placement [NAME=VALUE...]\n"
    "\n"
    "Simulated engines behind the router's placement, on virtual time. One JSON object on standard output.\n"
    "\n"
    "  policy=NAME          program, round_robin, least_request, power_of_two, cache_aware, session\n"
    "  rate=X               programs a second; with a trace, how many times as fast as it was recorded\n"
    "  saturation=X         find the rate at which the system begins to grow, by bisection from X on\n"
    "  load=P               per cent of rate (default 100)\n"
    "  seed=N endpoints=N profile=NAME (see cox-modelsim) minutes=N warm_minutes=N\n"
    "  expects=0|1          programs say when they will be back, wrong by a factor (lognormal, "
    "expect_sigma)\n"
    "  trace=FILE           requests of a Mooncake trace instead of agents; known=0|1: programs are told\n"
    "  timed=1              measure decisions\n"
    "  ideal=1|2            a bound: what any engine has computed is in the cache of all, for ever, or (2) "
    "until\n"
    "                       one as large as all theirs together forgets it\n"
    "  capacity=1           print only how many programs a second the engines could do at most\n"
    "  seeds=N              with saturation: by the sum of so many seeds, from `seed` on (default 1)\n"
    "  scrape_ms=N          how often what engines say of themselves is read (default 200)\n"
    "  cut=1                end with the window, whoever has not\n"
    "  patience=X           end after so many times warm-up and window, whoever has not (default 4)\n"
    "  in_flight_max=N      of an endpoint (default 0: credit alone decides)\n"
    "  kv_tokens= prefill_tokens_per_s= prefill_attention_ps= step_us= decode_us= decode_attention_ns=\n"
    "  max_num_seqs= max_batched_tokens=                                    of the engines\n"
    "  kinds= system_tokens= task_tokens= result_tokens= output_tokens= gap_ms= turns_min= turns_max= "
    "context_max=\n"
    "                       of agents: medians; sigmas: task_sigma= result_sigma= output_sigma= gap_sigma=\n"
    "  fan_min= fan_max= fan_every= branch_turns_min= branch_turns_max=\n"
    "                       every so many turns several agents are called at once, each for so many turns;\n"
    "                       branches=1: each is a program of its own; hints=1: calls say what follows them\n"
    "  tenants=N heavy=X    the first brings X times the programs of each other one\n"
    "  bands=1              a fifth of the programs is of the high band, a fifth of the low one\n"
    "  dated_ms=N           calls of a fifth of the programs have so long\n";

struct settings {
    struct world_config world;
    const char *trace_path;
    double saturation, load;
    double scrape_ms;
    uint64_t capacity, seeds;
    uint64_t cut; /* what has not ended with the window is not waited for */
    double minutes, warm_minutes, patience;
};

struct name {
    const char *name;
    uint64_t *number;
    double *real;
};

static bool set_text(struct settings *s, const char *name, const char *value)
{
    if (strcmp(name, "policy") == 0)
        return placement_policy_parse(cox_slice_str(value), &s->world.policy);
    if (strcmp(name, "trace") == 0) {
        s->trace_path = value;
        return true;
    }
    if (strcmp(name, "profile") != 0)
        return false;
    for (unsigned i = 0; i < engine_n_profiles; i++) {
        if (strcmp(engine_profiles[i].name, value) == 0) {
            s->world.engine = engine_profiles[i].config;
            return true;
        }
    }
    return false;
}

enum found { FOUND_NOT, FOUND_BAD, FOUND };

static enum found assign(const struct name *names, size_t n, const char *name, const char *value)
{
    char *end;

    for (size_t i = 0; i < n; i++) {
        if (strcmp(name, names[i].name) != 0)
            continue;
        double d = strtod(value, &end);
        if (end == value || *end || !(d >= 0 && d < 1e15))
            return FOUND_BAD;
        if (names[i].real)
            *names[i].real = d;
        else
            *names[i].number = (uint64_t)d;
        return FOUND;
    }
    return FOUND_NOT;
}

static enum found set_engine(struct engine_config *e, const char *name, const char *value)
{
    const struct name names[] = {
        { "kv_tokens", &e->kv_tokens, NULL },
        { "prefill_tokens_per_s", &e->prefill_tokens_per_s, NULL },
        { "prefill_attention_ps", &e->prefill_attention_ps, NULL },
        { "step_us", &e->step_us, NULL },
        { "decode_us", &e->decode_us, NULL },
        { "decode_attention_ns", &e->decode_attention_ns, NULL },
        { "max_num_seqs", &e->max_num_seqs, NULL },
        { "max_batched_tokens", &e->max_batched_tokens, NULL },
    };

    return assign(names, sizeof(names) / sizeof(names[0]), name, value);
}

static enum found set_agents(struct agents *a, const char *name, const char *value)
{
    const struct name names[] = {
        { "task_sigma", NULL, &a->task_sigma },
        { "result_sigma", NULL, &a->result_sigma },
        { "output_sigma", NULL, &a->output_sigma },
        { "gap_sigma", NULL, &a->gap_sigma },
        { "kinds", &a->kinds, NULL },
        { "system_tokens", &a->system_tokens, NULL },
        { "task_tokens", &a->task_tokens, NULL },
        { "result_tokens", &a->result_tokens, NULL },
        { "output_tokens", &a->output_tokens, NULL },
        { "gap_ms", &a->gap_ms, NULL },
        { "turns_min", &a->turns_min, NULL },
        { "turns_max", &a->turns_max, NULL },
        { "context_max", &a->context_max, NULL },
        { "fan_min", &a->fan_min, NULL },
        { "fan_max", &a->fan_max, NULL },
        { "fan_every", &a->fan_every, NULL },
        { "branch_turns_min", &a->branch_turns_min, NULL },
        { "branch_turns_max", &a->branch_turns_max, NULL },
        { "branches", &a->branches, NULL },
        { "hints", &a->hints, NULL },
        { "tenants", &a->tenants, NULL },
        { "heavy", NULL, &a->heavy },
        { "bands", &a->bands, NULL },
        { "dated_ms", &a->dated_ms, NULL },
    };

    return assign(names, sizeof(names) / sizeof(names[0]), name, value);
}

static enum found set_run(struct settings *s, const char *name, const char *value)
{
    struct world_config *w = &s->world;
    uint64_t endpoints = w->n_endpoints, expects = w->expects, known = w->known_programs, timed = w->timed,
             in_flight = w->in_flight_max, ideal = w->ideal;
    const struct name names[] = {
        { "rate", NULL, &w->rate },
        { "saturation", NULL, &s->saturation },
        { "load", NULL, &s->load },
        { "scrape_ms", NULL, &s->scrape_ms },
        { "cut", &s->cut, NULL },
        { "minutes", NULL, &s->minutes },
        { "warm_minutes", NULL, &s->warm_minutes },
        { "patience", NULL, &s->patience },
        { "expect_sigma", NULL, &w->expect_sigma },
        { "seed", &w->seed, NULL },
        { "endpoints", &endpoints, NULL },
        { "expects", &expects, NULL },
        { "known", &known, NULL },
        { "ideal", &ideal, NULL },
        { "capacity", &s->capacity, NULL },
        { "seeds", &s->seeds, NULL },
        { "timed", &timed, NULL },
        { "in_flight_max", &in_flight, NULL },
    };
    enum found found = assign(names, sizeof(names) / sizeof(names[0]), name, value);

    w->n_endpoints = (uint32_t)endpoints;
    w->expects = expects != 0;
    w->known_programs = known != 0;
    w->timed = timed != 0;
    w->ideal = ideal == 1 ? IDEAL_ENDLESS : ideal == 2 ? IDEAL_POOLED : IDEAL_NOT;
    w->in_flight_max = (uint32_t)in_flight;
    return found;
}

static bool set(struct settings *s, const char *name, const char *value)
{
    enum found found = set_run(s, name, value);

    if (found == FOUND_NOT)
        found = set_engine(&s->world.engine, name, value);
    if (found == FOUND_NOT)
        found = set_agents(&s->world.agents, name, value);
    return found == FOUND || (found == FOUND_NOT && set_text(s, name, value));
}

static void print_samples(const char *name, struct samples *s)
{
    printf(",\"%s_mean_s\":%.4f,\"%s_p50_s\":%.4f,\"%s_p99_s\":%.4f", name, samples_mean(s) / 1e6, name,
           (double)samples_at(s, 500) / 1e6, name, (double)samples_at(s, 990) / 1e6);
}

static double part(uint64_t a, uint64_t b)
{
    return b > 0 ? (double)a / (double)b : 0;
}

static void print_classes(const struct world_config *w, struct results *r)
{
    const struct agents *a = &w->agents;

    if (a->tenants < 2 && !a->bands && a->dated_ms == 0)
        return;
    fputs(",\"classes\":[", stdout);
    for (unsigned i = 0; i < CLASSES; i++) {
        struct class_results *c = &r->classes[i];
        printf("%s{\"programs\":%zu,\"unfinished\":%llu,\"calls\":%zu,\"late\":%llu", i > 0 ? "," : "",
               c->program.n, (unsigned long long)c->n_unfinished, c->call.n, (unsigned long long)c->n_late);
        print_samples("call", &c->call);
        print_samples("program", &c->program);
        putchar('}');
    }
    putchar(']');
}

static void print_run(const struct settings *s, struct results *r)
{
    const struct world_config *w = &s->world;

    printf("{\"workload\":\"%s\",\"policy\":\"%s\",\"expects\":%d,\"known\":%d,\"load\":%g,\"rate\":%.5f,"
           "\"seed\":%llu,"
           "\"endpoints\":%u,\"ideal\":%d",
           s->trace_path ? "mooncake" : "agents", placement_policy_text(w->policy), w->expects,
           w->known_programs, s->load, w->rate, (unsigned long long)w->seed, w->n_endpoints, w->ideal);
    printf(",\"hit_rate\":%.4f,\"oracle_hit_rate\":%.4f,\"pooled_hit_rate\":%.4f",
           part(r->cached_tokens, r->input_tokens), part(r->seen_tokens, r->input_tokens),
           part(r->pooled_tokens, r->input_tokens));
    print_samples("ttft", &r->ttft);
    print_samples("call", &r->call);
    printf(",\"queued_s\":%.4f,\"prefill_s\":%.4f,\"decode_s\":%.4f", r->queued_s / (double)r->n_calls,
           r->prefill_s / (double)r->n_calls, r->decode_s / (double)r->n_calls);
    print_classes(w, r);
    if (!s->trace_path) {
        print_samples("program", &r->program);
        print_samples("model_time", &r->model_time);
    }
    printf(",\"calls\":%llu,\"programs\":%llu,\"unfinished\":%llu,\"refused\":%llu,\"preemptions\":%llu,"
           "\"wasted_tokens\":%llu,\"input_tokens\":%llu,\"output_tokens\":%llu,\"moves\":%llu,\"busy\":%.3f",
           (unsigned long long)r->n_calls, (unsigned long long)r->n_programs,
           (unsigned long long)r->n_unfinished, (unsigned long long)r->n_refused,
           (unsigned long long)r->n_preemptions, (unsigned long long)r->wasted_tokens,
           (unsigned long long)r->input_tokens, (unsigned long long)r->output_tokens,
           (unsigned long long)r->moves, r->busy);
    printf(",\"in_system\":[%.1f,%.1f,%.1f,%.1f],\"credit_exceeded\":%u,\"virtual_s\":%.0f,\"wall_s\":%.2f",
           r->in_system[0], r->in_system[1], r->in_system[2], r->in_system[3], r->credit_exceeded,
           r->virtual_s, r->wall_s);
    if (w->timed)
        printf(
            ",\"decision_p50_us\":%.2f,\"decision_p99_us\":%.2f,\"decision_max_us\":%.2f,\"decisions\":%zu",
            (double)samples_at(&r->decision_ns, 500) / 1e3, (double)samples_at(&r->decision_ns, 990) / 1e3,
            (double)samples_at(&r->decision_ns, 1000) / 1e3, r->decision_ns.n);
    puts("}");
}

/* It keeps up: between the second and the last quarter of the window no more than a tenth of those who came
 * stayed. */
static bool keeps_up(const struct settings *s, double rate)
{
    struct world_config w = s->world;
    struct results r;
    uint64_t n = s->seeds > 0 ? s->seeds : 1;
    double grown = 0, came = rate * (double)n * (double)w.window_ns / 2e9;

    w.rate = rate;
    w.limit_ns = w.warm_ns + w.window_ns;
    w.no_oracles = true;
    for (uint64_t i = 0; i < n; i++, w.seed++) {
        world_run(&w, &r);
        grown += r.in_system[3] - r.in_system[1];
        fprintf(stderr, "rate %.4f: %.1f %.1f %.1f %.1f in the system, hit rate %.3f, busy %.3f\n", rate,
                r.in_system[0], r.in_system[1], r.in_system[2], r.in_system[3],
                part(r.cached_tokens, r.input_tokens), r.busy);
        results_fini(&r);
    }
    fprintf(stderr, "rate %.4f: %s\n", rate, grown < came / 10 ? "steady" : "grows");
    return grown < came / 10;
}

#define SATURATION_STEP 1.1

static double find_saturation(const struct settings *s)
{
    double low = s->saturation, high = s->saturation;

    while (!keeps_up(s, low) && low > s->saturation / 1024) {
        high = low;
        low /= SATURATION_STEP;
    }
    while (high <= low) {
        high *= SATURATION_STEP;
        low = keeps_up(s, high) ? high : low;
    }
    while (high - low > 0.04 * low) {
        double middle = (low + high) / 2;
        if (keeps_up(s, middle))
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void defaults(struct settings *s)
{
    s->world = (struct world_config){
        .policy = PLACEMENT_PROGRAM,
        .n_endpoints = 8,
        .seed = 1,
        .rate = 1,
        .expect_sigma = 0.5,
        .engine = engine_profiles[0].config,
        .agents = { .kinds = 8,
                    .system_tokens = 6016,
                    .task_tokens = 1000,
                    .result_tokens = 600,
                    .output_tokens = 200,
                    .gap_ms = 2000,
                    .task_sigma = 1.0,
                    .result_sigma = 1.0,
                    .output_sigma = 0.8,
                    .gap_sigma = 1.2,
                    .turns_min = 10,
                    .turns_max = 50,
                    .fan_every = 4,
                    .branch_turns_min = 1,
                    .branch_turns_max = 6,
                    .fan_min = 3,
                    .tenants = 1,
                    .heavy = 10,
                    .context_max = 100000 },
    };
    s->load = 100;
    s->scrape_ms = 200;
    s->minutes = 20;
    s->warm_minutes = 10;
    s->patience = 4;
}

int main(int argc, char **argv)
{
    struct settings s = { 0 };
    struct results r;
    struct trace trace = { 0 };
    struct cox_buf error = { 0 };
    struct world_config *w = &s.world;

    defaults(&s);
    for (int i = 1; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (equals)
            *equals = 0;
        if (!equals || !set(&s, argv[i], equals + 1)) {
            bool help = strcmp(argv[i], "--help") == 0;
            fprintf(help ? stdout : stderr, "%s%s%s",
                    help ? "" : "cox-sim-placement: not possible: ", help ? "" : argv[i], help ? "" : "\n\n");
            fputs(usage, help ? stdout : stderr);
            return help ? 0 : EXIT_USAGE;
        }
    }
    if (w->n_endpoints < 1 || w->n_endpoints > 100000 || !(w->rate > 0) || !(s.minutes > 0) ||
        w->agents.turns_max < w->agents.turns_min || w->engine.kv_tokens < 2 * w->agents.context_max ||
        w->engine.prefill_tokens_per_s < 1 || w->engine.max_num_seqs < 1 ||
        w->engine.max_batched_tokens < BLOCK_TOKENS) {
        fputs("cox-sim-placement: at least one endpoint, rates above 0, turns_min <= turns_max, 2 "
              "context_max <= kv_tokens\n",
              stderr);
        return EXIT_USAGE;
    }
    w->engine.block_tokens = BLOCK_TOKENS;
    w->engine.quiet = true;
    w->engine.queue_max = 0;
    w->warm_ns = (int64_t)(s.warm_minutes * 60e9);
    w->window_ns = (int64_t)(s.minutes * 60e9);
    w->limit_ns = (int64_t)((s.cut || s.patience < 1 ? 1 : s.patience) * (double)(w->warm_ns + w->window_ns));
    w->scrape_ns = s.scrape_ms >= 1 ? (int64_t)(s.scrape_ms * 1e6) : NS_PER_MS;
    if (s.trace_path) {
        if (!trace_read(s.trace_path, &trace, &error)) {
            fprintf(stderr, "cox-sim-placement: %s\n", cox_buf_cstr(&error));
            return EXIT_USAGE;
        }
        w->trace = &trace;
    }
    if (s.capacity) {
        printf("{\"capacity\":%.5f}\n", world_capacity(w));
    } else if (s.saturation > 0) {
        printf("{\"saturation\":%.5f}\n", find_saturation(&s));
    } else {
        w->rate *= s.load / 100;
        if (w->trace) { /* the window is of the trace, so it is the same requests at each rate */
            w->warm_ns = (int64_t)((double)trace.length_ns / w->rate / 6);
            w->window_ns = (int64_t)((double)trace.length_ns / w->rate * 4 / 6);
            w->limit_ns = 8 * (w->warm_ns + w->window_ns);
        }
        world_run(w, &r);
        print_run(&s, &r);
        results_fini(&r);
    }
    trace_fini(&trace);
    return 0;
}
