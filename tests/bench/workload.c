/* The contract's workloads: how many tasks, of what shape, and how they are handed in. */
#include "bench.h"

#include <inttypes.h>
#include <string.h>

#define CHAIN_LEN 20u
#define CHAIN_RESULT_LEN 100u
#define FAN_WIDTH 50u
#define FANOUT_ITEMS 1000000u
#define FANOUT_BATCH 100u
#define DOCUMENT_HEAD "{\"api_version\":\"v1\",\"name\":\"bench\",\"steps\":{"

void put_result(struct cox_buf *out, uint32_t len)
{
    cox_put_u8(out, '"');
    for (uint32_t i = 0; i < len; i++)
        cox_put_u8(out, (uint8_t)('a' + i % 26));
    cox_put_u8(out, '"');
}

/* ---- documents ---- */

static void put_independent(struct cox_buf *out, uint32_t n_steps)
{
    cox_buf_append_str(out, DOCUMENT_HEAD);
    for (uint32_t i = 1; i <= n_steps; i++)
        cox_buf_printf(out, "%s\"s%" PRIu32 "\":{\"uses\":\"noop@1\"}", i > 1 ? "," : "", i);
    cox_buf_append_str(out, "}}");
}

static void put_chain(struct cox_buf *out, uint32_t n_steps)
{
    cox_buf_append_str(out, DOCUMENT_HEAD "\"s1\":{\"uses\":\"noop@1\"}");
    for (uint32_t i = 2; i <= n_steps; i++)
        cox_buf_printf(out,
                       ",\"s%" PRIu32 "\":{\"uses\":\"noop@1\",\"with\":{\"prev\":\"${{ steps.s%" PRIu32
                       ".output }}\"}}",
                       i, i - 1);
    cox_buf_printf(out, "},\"outputs\":{\"last\":\"${{ steps.s%" PRIu32 ".output }}\"}}", n_steps);
}

/* 1 -> n -> 1 */
static void put_fan(struct cox_buf *out, uint32_t n_steps)
{
    cox_buf_append_str(out, DOCUMENT_HEAD "\"first\":{\"uses\":\"noop@1\"}");
    for (uint32_t i = 1; i <= n_steps - 2; i++)
        cox_buf_printf(out, ",\"s%" PRIu32 "\":{\"uses\":\"noop@1\",\"needs\":[\"first\"]}", i);
    cox_buf_append_str(out, ",\"last\":{\"uses\":\"noop@1\",\"needs\":[");
    for (uint32_t i = 1; i <= n_steps - 2; i++)
        cox_buf_printf(out, "%s\"s%" PRIu32 "\"", i > 1 ? "," : "", i);
    cox_buf_append_str(out, "]}}}");
}

/* The list stands in the document, as short as items can be: what is measured is what maps add to it. */
static void put_fanout(struct cox_buf *out, uint32_t n_items)
{
    cox_buf_printf(out, DOCUMENT_HEAD "\"scan\":{\"uses\":\"noop@1\",\"map\":{\"batch\":%u,\"over\":[0",
                   FANOUT_BATCH);
    for (uint32_t i = 1; i < n_items; i++)
        cox_buf_append_str(out, ",0");
    cox_buf_append_str(out, "]}}}}");
}

static void put_waiting(struct cox_buf *out, uint32_t n_steps)
{
    (void)n_steps;
    cox_buf_append_str(out, DOCUMENT_HEAD "\"go\":{\"wait\":{\"signal\":\"go\"}},"
                                          "\"then\":{\"needs\":[\"go\"],\"uses\":\"noop@1\"}}}");
}

/* ---- the table ---- */

static const struct workload workloads[] = {
    { .name = "w1",
      .put_document = put_independent,
      .n_tasks = 10,
      .steps_a_task = 10000,
      .scales_steps = true,
      .batch_len = 1,
      .n_flights = 10,
      .figure = FIGURE_STEPS },
    { .name = "w1t",
      .put_document = put_independent,
      .n_tasks = 100000,
      .steps_a_task = 1,
      .batch_len = 1000,
      .n_flights = 16,
      .figure = FIGURE_TASKS },
    { .name = "w2",
      .put_document = put_chain,
      .n_tasks = 1000,
      .steps_a_task = CHAIN_LEN,
      .batch_len = 100,
      .n_flights = 10,
      .result_len = CHAIN_RESULT_LEN,
      .figure = FIGURE_STEPS },
    { .name = "w2l",
      .put_document = put_chain,
      .n_tasks = 100,
      .steps_a_task = CHAIN_LEN,
      .batch_len = 1,
      .n_flights = 1,
      .result_len = CHAIN_RESULT_LEN,
      .figure = FIGURE_HOP },
    { .name = "w3",
      .put_document = put_fan,
      .n_tasks = 1000,
      .steps_a_task = FAN_WIDTH + 2,
      .batch_len = 100,
      .n_flights = 10,
      .figure = FIGURE_STEPS },
    { .name = "w4",
      .put_document = put_independent,
      .n_tasks = 1000,
      .steps_a_task = 1,
      .batch_len = 1,
      .n_flights = 1,
      .figure = FIGURE_LATENCY },
    { .name = "fanout",
      .put_document = put_fanout,
      .n_tasks = 1,
      .steps_a_task = 1,
      .maps = true,
      .batch_len = 1,
      .n_flights = 1,
      .figure = FIGURE_ITEMS },
    { .name = "waiting",
      .put_document = put_waiting,
      .n_tasks = 100000,
      .steps_a_task = 2,
      .batch_len = 1000,
      .n_flights = 1,
      .figure = FIGURE_WAITING },
};
static const char *const planned[] = { "fleet", "tenants" };

const struct workload *workload_find(const char *name)
{
    for (size_t i = 0; i < sizeof(workloads) / sizeof(*workloads); i++) {
        if (strcmp(workloads[i].name, name) == 0)
            return &workloads[i];
    }
    return NULL;
}

bool workload_planned(const char *name)
{
    for (size_t i = 0; i < sizeof(planned) / sizeof(*planned); i++) {
        if (strcmp(planned[i], name) == 0)
            return true;
    }
    return false;
}

/* ---- sizes ---- */

static size_t at_least_one(uint64_t n)
{
    return n > 0 ? (size_t)n : 1;
}

void workload_load(const struct workload *w, uint64_t steps, struct load *ret, struct workload_text *text)
{
    size_t n_tasks = w->n_tasks;
    uint32_t steps_a_task = w->steps_a_task;

    uint32_t n_items = w->maps ? steps > 0 ? (uint32_t)steps : FANOUT_ITEMS : 0;

    if (w->maps)
        steps = 0;
    if (steps > 0 && w->scales_steps)
        steps_a_task = (uint32_t)at_least_one(steps / n_tasks);
    else if (steps > 0)
        n_tasks = at_least_one(steps / steps_a_task);
    *text = (struct workload_text){ 0 };
    w->put_document(&text->document, w->maps ? n_items : steps_a_task);
    if (w->result_len > 0) {
        cox_buf_append_str(&text->outputs, "{\"last\":");
        put_result(&text->outputs, w->result_len);
        cox_buf_append_str(&text->outputs, "}");
    } else {
        cox_buf_append_str(&text->outputs, "{}");
    }
    *ret = (struct load){ .document = cox_buf_slice(&text->document),
                          .n_tasks = n_tasks,
                          .batch_len = w->batch_len,
                          .n_flights = w->n_flights,
                          .steps_a_task = steps_a_task,
                          .n_items = n_items,
                          .outputs = cox_buf_cstr(&text->outputs) };
}

void workload_text_fini(struct workload_text *text)
{
    cox_buf_fini(&text->document);
    cox_buf_fini(&text->outputs);
}
