#include "fuzz_history.h"

#include "../trace/trace_kept.h"
#include "../trace/trace_state.h"

#include "cox/base/alloc.h"

#define DOC(name, steps) "{\"api_version\":\"v1\",\"name\":\"" name "\",\"steps\":{" steps "}}"
#define RUN "\"run\":{\"argv\":[\"true\"]}"
#define RETRY "\"retry\":{\"max_attempts\":3,\"initial_backoff\":\"10s\"}"
#define CHILD                                                                                                \
    "{\"api_version\":\"v1\",\"kind\":\"template\",\"name\":\"child\",\"inputs\":{\"x\":{\"type\":"          \
    "\"integer\"}},\"steps\":{\"a\":{" RUN "}},\"outputs\":{\"y\":\"${{ inputs.x + 1 }}\"}}"
#define NIGHTLY                                                                                              \
    "{\"api_version\":\"v1\",\"kind\":\"schedule\",\"name\":\"nightly\",\"schedule\":{\"cron\":\"0 3 * * "   \
    "*\"},"                                                                                                  \
    "\"steps\":{\"a\":{" RUN "}}}"
#define ASKED "{\"steps\":{\"x\":{" RUN "}},\"state\":{\"turn\":1}}"

/* Everything that records and entities are about, and at the end of it much that is under way. */
static void tell(struct trace *t)
{
    attach_as(t, &(struct worker_spec){ .id = "w1", .slots = 90, .handlers = "run,prog@1=1.2" });
    keep_template(t, CHILD);
    keep_schedule(t, NIGHTLY, "CET-1CEST,M3.5.0,M10.5.0/3");
    submit_keyed(t, "key", DOC("plain", "\"a\":{" RUN "},\"b\":{" RUN ",\"needs\":[\"a\"]," RETRY "}"));
    succeed(t, "w1", "a", "{\"k\":[1,2]}");
    fails(t, "w1", "b", COX_CODE_EXIT_NONZERO);
    submit(t, DOC("race", "\"r\":{\"race\":[{" RUN "},{" RUN "}]}"));
    succeed_in(t, 2, "w1", "r.1", "7");
    submit(t,
           DOC("map", "\"m\":{\"map\":{\"over\":[1,2,3,4,5],\"batch\":2,\"tolerate_failures\":1}," RUN "}"));
    items(t, "w1", "m[0]", "1 !EXIT_NONZERO");
    submit(t, DOC("words", "\"s\":{\"wait\":{\"signal\":\"go\"}},\"p\":{\"approval\":{\"prompt\":\"?\"}}"));
    signal_task(t, 4, "other", "[1]");
    after_ms(t, 2000); /* it sleeps */
    submit(t, DOC("sub", "\"c\":{\"task\":{\"ref\":\"child@1\",\"inputs\":{\"x\":1}}}"));
    compile(t);
    submit(t, DOC("calls", "\"p\":{\"uses\":\"prog@1\"}"));
    continues(t, "w1", 7, "p", ASKED); /* 6 is the frame of the sub-task */
    submit(t, DOC("ended", "\"a\":{" RUN "}"));
    fails_in(t, 8, "w1", "a", COX_CODE_EXIT_NONZERO);
}

static uint32_t count(const struct trace *t, struct fuzz_history *h)
{
    struct cox_reader in = cox_reader(cox_buf_slice(&t->log));
    struct record r;
    uint32_t n = 0;

    h->ends = cox_calloc(t->n_records + 1, sizeof(*h->ends));
    while (record_decode(&in, &r))
        h->ends[++n] = t->log.len - cox_reader_left(&in);
    return n;
}

const struct fuzz_history *fuzz_history(void)
{
    static struct fuzz_history h;
    static struct trace *t;

    if (t)
        return &h;
    t = trace_begin();
    tell(t);
    checkpoint(t);
    h.log = t->log;
    h.n_records = count(t, &h);
    COX_ASSERT(h.n_records == t->n_records && t->n_saved > 0);
    h.saved = cox_calloc(t->n_saved, sizeof(*h.saved));
    for (size_t i = 0; i < t->n_saved; i++) {
        const struct saved *s = &t->saved[i];
        if (s->bytes.len > 0)
            h.saved[h.n_saved++] = (struct fuzz_saved){ s->key, s->applied_seq, s->bytes };
    }
    size_t it = 0;
    uint64_t id;
    void *b;
    COX_ASSERT(cox_map64_next(&t->archive, &it, &id, &b));
    h.archived = *(struct cox_buf *)b;
    return &h;
}
