/* What is read of /metrics of the engines, however it is cut. */
#include "signals.h"

#include "check.h"

#include "cox/base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct signals read_all(const char *text, size_t piece)
{
    struct signals_reader r = { 0 };
    struct signals ret;
    size_t len = strlen(text);

    for (size_t at = 0; at < len; at += piece)
        signals_feed(&r, cox_slice(text + at, len - at < piece ? len - at : piece));
    signals_end(&r, &ret);
    return ret;
}

static const char vllm[] =
    "# HELP vllm:num_requests_running Number of requests in model execution batches.\n"
    "# TYPE vllm:num_requests_running gauge\n"
    "vllm:num_requests_running{engine=\"0\",model_name=\"meta-llama/Llama-3.1-8B\"} 3.0\n"
    "vllm:num_requests_running{engine=\"1\",model_name=\"meta-llama/Llama-3.1-8B\"} 4.0\n"
    "vllm:num_requests_waiting{engine=\"0\",model_name=\"meta-llama/Llama-3.1-8B\"} 2.0\n"
    "vllm:num_requests_waiting_by_reason{reason=\"capacity\"} 99.0\n"
    "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m}n\"} 0.25\n"
    "vllm:kv_cache_usage_perc{engine=\"1\",model_name=\"m}n\"} 0.75\n"
    "vllm:cache_config_info{block_size=\"16\",cache_dtype=\"auto\",num_gpu_blocks=\"5691\",engine=\"0\"} "
    "1.0\n"
    "vllm:cache_config_info{block_size=\"16\",cache_dtype=\"auto\",num_gpu_blocks=\"None\",engine=\"1\"} "
    "1.0\n"
    "vllm:prompt_tokens_total{engine=\"0\"} 1.5e+06\n"
    "vllm:prompt_tokens_created{engine=\"0\"} 1.7e+09\n"
    "vllm:e2e_request_latency_seconds_bucket{le=\"0.3\",model_name=\"m\"} 1.0\n"
    "process_start_time_seconds 1.76387451297e+09\n";

static void every_engine_is_understood(void **state)
{
    static const struct {
        const char *text, *engine;
        int32_t running, waiting, used;
        uint64_t tokens;
    } rows[] = {
        { vllm, "vllm", 7, 2, 500, 91056 },
        { "vllm:gpu_cache_usage_perc{model_name=\"m\"} 0.5\nvllm:num_requests_running 0", "vllm", 0, -1, 500,
          0 },
        { "vllm:cache_config_info{kv_cache_size_tokens=\"10576\",num_gpu_blocks=\"661\",block_size=\"16\"} "
          "1.0\n",
          "vllm", -1, -1, -1, 10576 },
        { "sglang:num_running_reqs{model_name=\"m\"} 161.0\nsglang:num_queue_reqs{model_name=\"m\"} 2826.0\n"
          "sglang:token_usage{model_name=\"m\"} 0.28\nsglang:max_total_num_tokens{model_name=\"m\"} "
          "4.71258e+05\n",
          "sglang", 161, 2826, 280, 471258 },
        { "llamacpp:requests_processing 4\nllamacpp:requests_deferred 46\n", "llama.cpp", 4, 46, -1, 0 },
        { "tgi_queue_size 3\ntgi_batch_current_size 5\n", "tgi", 5, 3, -1, 0 },
        { "trtllm_kv_cache_utilization{model_name=\"m\",engine_type=\"trtllm\"} 0.62\r\n"
          "trtllm_num_requests_running{model_name=\"m\"} 1\ntrtllm_num_requests_waiting{model_name=\"m\"} "
          "0\n",
          "trtllm", 1, 0, 620, 0 },
        { "go_goroutines 8\nprocess_start_time_seconds 1\n<html>", "", -1, -1, -1, 0 },
        { "vllm:num_requests_running\nvllm:num_requests_running{\nvllm:num_requests_waiting NaN\n"
          "vllm:kv_cache_usage_perc -1\nvllm:num_requests_waiting{a=\"\"}\n",
          "vllm", -1, -1, -1, 0 },
        { "vllm:kv_cache_usage_perc 17\nvllm:num_requests_running 1e300\n", "vllm", 1000000000, -1, 1000, 0 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        for (size_t piece = 1; piece <= 4096; piece = piece < 40 ? piece + 1 : piece * 4) {
            struct signals s = read_all(rows[i].text, piece);

            assert_string_equal(s.engine, rows[i].engine);
            assert_int_equal(s.load.running, rows[i].running);
            assert_int_equal(s.load.waiting, rows[i].waiting);
            assert_int_equal(s.load.kv_used_permille, rows[i].used);
            assert_int_equal(s.load.kv_tokens, rows[i].tokens);
        }
    }
}

static void a_restart_is_seen(void **state)
{
    struct signals first = read_all(vllm, 4096), later = first, counter;

    (void)state;
    assert_true(first.started > 1.7e9 && first.n_handled > 1.4e6);
    assert_false(signals_restarted(&first, &later));
    later.n_handled = 0; /* as long as the process says that it is the same, it is */
    assert_false(signals_restarted(&first, &later));
    later.started += 60;
    assert_true(signals_restarted(&first, &later));
    counter = read_all("llamacpp:prompt_tokens_total 100\n", 4096);
    later = read_all("llamacpp:prompt_tokens_total 7\n", 4096);
    assert_true(signals_restarted(&counter, &later));
    assert_false(signals_restarted(&later, &counter));
    assert_false(signals_restarted(&counter, &(struct signals){ .n_handled = -1 }));
}

/* Lines of ours among any others, long ones too, in pieces of any size: only ours count. */
static void nothing_else_matters(void **state)
{
    const char *env = getenv("COX_TEST_SEED");
    uint64_t seed = env ? strtoull(env, NULL, 10) : (uint64_t)getpid() * 31337;
    struct cox_rng rng;

    (void)state;
    cox_rng_init(&rng, seed);
    for (int round = 0; round < 300; round++) {
        struct cox_buf text = { 0 };
        struct signals_reader r = { 0 };
        struct signals s;
        uint64_t sum = 0;
        bool said = false;

        for (uint64_t n = cox_rng_below(&rng, 60); n > 0; n--) {
            uint64_t what = cox_rng_below(&rng, 4), len = cox_rng_below(&rng, what == 3 ? 5000 : 100);
            if (what == 0) {
                uint64_t v = cox_rng_below(&rng, 1000);
                cox_buf_printf(&text, "sglang:num_running_reqs{tp=\"%llu\"} %llu.0\n", (unsigned long long)n,
                               (unsigned long long)v);
                sum += v;
                said = true;
                continue;
            }
            cox_buf_append_str(&text, what == 1 ? "# " : what == 2 ? "sglang:num_running_req{" : "sglang:x{");
            for (; len > 0; len--)
                cox_put_u8(&text, (uint8_t)(' ' + cox_rng_below(&rng, 95)));
            cox_put_u8(&text, '\n');
        }
        for (size_t at = 0; at < text.len;) {
            size_t len = 1 + cox_rng_below(&rng, 700);
            len = len < text.len - at ? len : text.len - at;
            signals_feed(&r, cox_slice(text.data + at, len));
            at += len;
        }
        signals_end(&r, &s);
        check_seeded(s.load.running == (said ? (int32_t)sum : -1), seed);
        cox_buf_fini(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_engine_is_understood),
        cmocka_unit_test(a_restart_is_seen),
        cmocka_unit_test(nothing_else_matters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
