/* Metrics as text and over time, from an engine that says what each test tells it. */
#include "api/history.h"
#include "api/metrics.h"

#include "check.h"

#include <stdio.h>
#include <string.h>

static struct {
    struct cox_engine_stats stats;
    struct cox_queue_view queues[1000];
    size_t n_queues;
    struct cox_zone_view zones[2];
    size_t n_zones;
} fake;

const int64_t cox_histogram_bounds_us[COX_HISTOGRAM_BUCKETS - 1] = {
    100,       300,        1000,         3000,          10000,        30000,    100000,
    300000,    1000000,    3000000,      10000000,      30000000,     60000000, 180000000,
    600000000, 1800000000, 3600000000LL, 10800000000LL, 36000000000LL
};

void cox_engine_stats(const struct cox_engine *e, struct cox_engine_stats *ret)
{
    (void)e;
    *ret = fake.stats;
}

bool cox_engine_next_queue(const struct cox_engine *e, size_t *it, struct cox_queue_view *ret)
{
    (void)e;
    if (*it >= fake.n_queues)
        return false;
    *ret = fake.queues[(*it)++];
    return true;
}

bool cox_engine_next_zone(const struct cox_engine *e, size_t *it, struct cox_zone_view *ret)
{
    (void)e;
    if (*it >= fake.n_zones)
        return false;
    *ret = fake.zones[(*it)++];
    return true;
}

void cox_store_stats(const struct cox_store *s, struct cox_store_stats *ret)
{
    (void)s;
    *ret = (struct cox_store_stats){ .commits = 4, .commit_ns_total = 2500000000u, .log_file_bytes = 77 };
}

static struct cox_metric_source source(void)
{
    static char nowhere;
    struct cox_metric_source src;
    cox_metric_source_read(&src, NULL, (const struct cox_store *)(void *)&nowhere, "1.2.3");
    return src;
}

static char *text_of(void)
{
    static struct cox_buf text;
    struct cox_metric_source src = source();
    cox_buf_clear(&text);
    cox_metrics_write(&src, &text);
    return (char *)(uintptr_t)cox_buf_cstr(&text);
}

static bool has_line(const char *text, const char *line)
{
    size_t len = strlen(line);
    for (const char *p = text; (p = strstr(p, line)) != NULL; p++)
        if ((p == text || p[-1] == '\n') && p[len] == '\n')
            return true;
    return false;
}

static void setup_fake(void)
{
    memset(&fake, 0, sizeof(fake));
}

static void every_metric_has_help_and_type_once(void **state)
{
    (void)state;
    setup_fake();
    const char *text = text_of();
    const struct cox_metric *m;
    for (size_t it = 0; (m = cox_metric_next(&it));) {
        struct cox_buf help = { 0 }, type = { 0 };
        cox_buf_printf(&help, "# HELP %s ", m->name);
        cox_buf_printf(&type, "# TYPE %s ", m->name);
        const char *at = strstr(text, cox_buf_cstr(&help));
        assert_non_null(at);
        assert_null(strstr(at + 1, cox_buf_cstr(&help)));
        assert_non_null(strstr(text, cox_buf_cstr(&type)));
        cox_buf_fini(&help);
        cox_buf_fini(&type);
    }
}

static void values_are_written_as_they_are(void **state)
{
    (void)state;
    setup_fake();
    fake.stats.steps_finished_by_kind[COX_KIND_RUN][COX_STEP_FAILED] = 3;
    fake.zones[0] = (struct cox_zone_view){ cox_slice_str(""), 10, 4 };
    fake.zones[1] = (struct cox_zone_view){ cox_slice_str("a"), 2, 1 };
    fake.n_zones = 2;
    fake.stats.n_workers = 5;
    fake.stats.refused_full = 2;
    fake.stats.n_workers_cordoned = 1;
    fake.stats.tasks_finished[COX_TASK_SUCCEEDED] = 9007199254740993u; /* beyond what a double tells apart */
    const char *text = text_of();
    assert_true(has_line(text, "cox_steps_finished_total{status=\"FAILED\",kind=\"run\"} 3"));
    assert_true(has_line(text, "cox_slots{state=\"free\",zone=\"\"} 6"));
    assert_true(has_line(text, "cox_slots{state=\"busy\",zone=\"a\"} 1"));
    assert_true(has_line(text, "cox_workers{state=\"attached\"} 4"));
    assert_true(has_line(text, "cox_refused_total{reason=\"full\"} 2"));
    assert_true(has_line(text, "cox_refused_total{reason=\"disk\"} 0"));
    assert_true(has_line(text, "cox_tasks_finished_total{status=\"SUCCEEDED\"} 9.00719925e+15"));
    assert_true(has_line(text, "cox_store_commit_seconds_sum 2.5"));
    assert_true(has_line(text, "cox_store_commit_seconds_count 4"));
    assert_true(has_line(text, "cox_store_bytes{file=\"log\"} 77"));
    assert_true(has_line(text, "cox_build_info{version=\"1.2.3\"} 1"));
}

static void refusals_are_told_by_reason(void **state)
{
    (void)state;
    setup_fake();
    fake.stats.refused_full = 2;
    struct cox_metric_source src = source();
    struct cox_buf text = { 0 };
    src.refused[COX_REFUSAL_DISK] = 3;
    src.refused[COX_REFUSAL_MEMORY] = 4;
    cox_metrics_write(&src, &text);
    assert_true(has_line(cox_buf_cstr(&text), "cox_refused_total{reason=\"full\"} 2"));
    assert_true(has_line(cox_buf_cstr(&text), "cox_refused_total{reason=\"disk\"} 3"));
    assert_true(has_line(cox_buf_cstr(&text), "cox_refused_total{reason=\"memory\"} 4"));
    assert_true(has_line(cox_buf_cstr(&text), "cox_refused_total{reason=\"draining\"} 0"));
    cox_buf_fini(&text);
}

static void histograms_are_cumulative_and_in_seconds(void **state)
{
    (void)state;
    setup_fake();
    fake.stats.run.n[0] = 2;
    fake.stats.run.n[2] = 1;
    fake.stats.run.n[COX_HISTOGRAM_BUCKETS - 1] = 1;
    fake.stats.run.sum_us = 1500000;
    const char *text = text_of();
    assert_true(has_line(text, "cox_step_run_seconds_bucket{le=\"0.0001\"} 2"));
    assert_true(has_line(text, "cox_step_run_seconds_bucket{le=\"0.001\"} 3"));
    assert_true(has_line(text, "cox_step_run_seconds_bucket{le=\"36000\"} 3"));
    assert_true(has_line(text, "cox_step_run_seconds_bucket{le=\"+Inf\"} 4"));
    assert_true(has_line(text, "cox_step_run_seconds_sum 1.5"));
    assert_true(has_line(text, "cox_step_run_seconds_count 4"));
}

static void queues_of_one_handler_are_one_sample_and_labels_are_escaped(void **state)
{
    (void)state;
    setup_fake();
    fake.queues[0] =
        (struct cox_queue_view){ cox_slice_str("a\"b\\c\nd"), cox_slice_str("run"), COX_REASON_NO_WORKER, 2 };
    fake.queues[1] = fake.queues[0];
    fake.queues[2] =
        (struct cox_queue_view){ cox_slice_str("default"), cox_slice_str("run"), COX_REASON_RATE, 7 };
    fake.queues[3] =
        (struct cox_queue_view){ cox_slice_str("default"), cox_slice_str("run"), COX_REASON_NONE, 9 };
    fake.n_queues = 4;
    const char *text = text_of();
    assert_true(
        has_line(text, "cox_queue_depth{tenant=\"a\\\"b\\\\c\\nd\",class=\"run\",reason=\"NO_WORKER\"} 4"));
    assert_true(has_line(text, "cox_queue_depth{tenant=\"default\",class=\"run\",reason=\"RATE\"} 7"));
    assert_null(strstr(text, "OTHER")); /* what runs does not wait */
}

static void queues_of_many_handlers_are_bounded(void **state)
{
    static char names[ARRAY_LEN(fake.queues)][16];

    (void)state;
    setup_fake();
    for (size_t i = 0; i < ARRAY_LEN(fake.queues); i++) {
        snprintf(names[i], sizeof(names[i]), "h%03zu@1", (i * 7) % ARRAY_LEN(names));
        fake.queues[i] =
            (struct cox_queue_view){ cox_slice_str("t"), cox_slice_str(names[i]), COX_REASON_NO_WORKER, 2 };
    }
    fake.queues[0].tenant = cox_slice_str("u");
    fake.n_queues = ARRAY_LEN(fake.queues);
    const char *text = text_of();
    assert_true(has_line(text, "cox_queue_depth{tenant=\"t\",class=\"h001@1\",reason=\"NO_WORKER\"} 2"));
    assert_true(has_line(text, "cox_queue_depth{tenant=\"t\",class=\"h200@1\",reason=\"NO_WORKER\"} 2"));
    assert_null(strstr(text, "h201@1"));
    assert_true(has_line(text, "cox_queue_depth{tenant=\"t\",class=\"other\",reason=\"NO_WORKER\"} 1598"));
    assert_true(has_line(text, "cox_queue_depth{tenant=\"u\",class=\"h000@1\",reason=\"NO_WORKER\"} 2"));
}

/* ---- history ---- */

static void put(struct cox_history *h, int64_t at_s, const char *name, bool cumulative, double value)
{
    struct cox_sample s = { .name = name, .cumulative = cumulative, .value = value };
    cox_history_begin(h, at_s);
    cox_history_add(h, &s);
    cox_history_end(h);
}

static uint32_t ask(const struct cox_history *h, const char *name, int64_t since_s, int64_t step_s,
                    double *points, struct cox_history_query *q)
{
    struct cox_history_series s;
    size_t it = 0;
    *q = (struct cox_history_query){ .name = name, .since_s = since_s, .step_s = step_s };
    if (!cox_history_plan(h, q))
        return 0;
    assert_true(q->n_points <= 2000);
    return cox_history_next(h, q, &it, &s, points) ? q->n_points : 0;
}

static void seconds_are_kept_as_they_were(void **state)
{
    (void)state;
    struct cox_history *h = cox_history_create();
    struct cox_history_query q;
    double p[2000];
    assert_int_equal(ask(h, "g", 0, 0, p, &q), 0);
    for (int i = 0; i < 100; i++)
        put(h, 1000000 + i, "g", false, i);
    assert_int_equal(ask(h, "g", 1000090, 0, p, &q), 10);
    assert_int_equal(q.start_s, 1000090);
    assert_int_equal(q.step_s, 1);
    for (int i = 0; i < 10; i++)
        assert_true(p[i] == 90 + i);
    assert_int_equal(ask(h, "none", 1000090, 0, p, &q), 0);
    cox_history_destroy(h);
}

static void longer_spans_have_means_of_gauges_and_ends_of_counters(void **state)
{
    (void)state;
    struct cox_history *h = cox_history_create();
    struct cox_history_query q;
    double p[2000];
    for (int i = 0; i < 7000; i++) {
        cox_history_begin(h, 1000000 + i);
        cox_history_add(h, &(struct cox_sample){ .name = "g", .value = i % 10 });
        cox_history_add(h, &(struct cox_sample){ .name = "c", .cumulative = true, .value = i });
        cox_history_end(h);
    }
    uint32_t n = ask(h, "g", 1000000, 0, p, &q);
    assert_int_equal(q.step_s, 10); /* ten minutes of seconds do not reach back so far */
    assert_int_equal(n, 700);
    assert_true(p[0] == 4.5 && p[699] == 4.5);
    assert_int_equal(ask(h, "c", 1000000, 0, p, &q), 700);
    assert_true(p[0] == 9 && p[699] == 6999);
    n = ask(h, "c", 1006900, 30, p, &q); /* of seconds, in spans of thirty */
    assert_int_equal(q.step_s, 30);
    assert_true(p[n - 1] == 6999);
    assert_true(p[n - 2] == (double)((1006999 / 30 * 30 - 1) - 1000000));
    cox_history_destroy(h);
}

static void a_week_is_kept_and_no_more(void **state)
{
    (void)state;
    struct cox_history *h = cox_history_create();
    struct cox_history_query q;
    double p[2000];
    for (int64_t i = 0; i < 8 * 24 * 60; i++) /* once a minute */
        put(h, 60000000 + i * 60, "c", true, (double)i);
    uint32_t n = ask(h, "c", 60000000, 0, p, &q);
    assert_int_equal(q.step_s, 600);
    assert_in_range(n, 1007, 1009);
    assert_true(p[n - 1] == 8 * 24 * 60 - 1);
    assert_true(p[n - 2] == 8 * 24 * 60 - 11);
    cox_history_destroy(h);
}

static void gaps_have_what_was_there_before_and_silence_is_zero(void **state)
{
    (void)state;
    struct cox_history *h = cox_history_create();
    struct cox_history_query q;
    double p[2000];
    put(h, 1000, "g", false, 5);
    put(h, 1010, "g", false, 7); /* the process slept */
    put(h, 1011, "other", false, 1);
    assert_int_equal(ask(h, "g", 1000, 0, p, &q), 12);
    assert_true(p[0] == 5 && p[9] == 5 && p[10] == 7 && p[11] == 0);
    cox_history_destroy(h);
}

static void series_are_bounded_and_old_ones_make_room(void **state)
{
    (void)state;
    struct cox_history *h = cox_history_create();
    struct cox_history_query q = { .name = "g" };
    struct cox_history_series s;
    double p[2000];
    size_t it = 0, n = 0;
    for (int round = 0; round < 4; round++) { /* those of the moment before count as alive */
        cox_history_begin(h, 1000 + round * 10);
        for (unsigned i = 0; i < COX_HISTORY_SERIES_MAX + 10; i++) {
            char text[32];
            snprintf(text, sizeof(text), "%d-%u", round / 2, i);
            struct cox_sample sample = { .name = "g", .n_labels = 1, .value = 1 };
            sample.labels[0] = (struct cox_label){ cox_slice_str("l"), cox_slice_str(text) };
            cox_history_add(h, &sample);
        }
        cox_history_end(h);
    }
    assert_true(cox_history_plan(h, &q));
    while (cox_history_next(h, &q, &it, &s, p)) {
        assert_int_equal(s.n_labels, 1);
        assert_int_equal(s.labels[0].value.data[0], '1'); /* all of the last round */
        n++;
    }
    assert_int_equal(n, COX_HISTORY_SERIES_MAX);
    cox_history_destroy(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_metric_has_help_and_type_once),
        cmocka_unit_test(values_are_written_as_they_are),
        cmocka_unit_test(refusals_are_told_by_reason),
        cmocka_unit_test(histograms_are_cumulative_and_in_seconds),
        cmocka_unit_test(queues_of_one_handler_are_one_sample_and_labels_are_escaped),
        cmocka_unit_test(queues_of_many_handlers_are_bounded),
        cmocka_unit_test(seconds_are_kept_as_they_were),
        cmocka_unit_test(longer_spans_have_means_of_gauges_and_ends_of_counters),
        cmocka_unit_test(a_week_is_kept_and_no_more),
        cmocka_unit_test(gaps_have_what_was_there_before_and_silence_is_zero),
        cmocka_unit_test(series_are_bounded_and_old_ones_make_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
