/* What a model server says of itself at /metrics (Prometheus' text format), read as it arrives: of a hundred
 * kilobytes of histograms the few lines that placement wants. Pure. Thread: one a reader.
 *
 *   vLLM          vllm:num_requests_{running,waiting}, vllm:kv_cache_usage_perc (before:
 * gpu_cache_usage_perc), vllm:cache_config_info{num_gpu_blocks,block_size} SGLang
 * sglang:num_{running,queue}_reqs, sglang:token_usage, sglang:max_total_num_tokens llama.cpp
 * llamacpp:requests_{processing,deferred}, llamacpp:kv_cache_usage_ratio (where it is left) TGI
 * tgi_batch_current_size, tgi_queue_size TensorRT-LLM  trtllm_num_requests_{running,waiting},
 * trtllm_kv_cache_utilization
 *
 * A server with several engines has a line for each: requests and tokens are added up, use is their mean.
 * Cost: about 11 us for the 1,000 lines, 114 KB, of a busy vLLM. */
#ifndef COX_ORCHESTRATOR_INFERENCE_SIGNALS_H
#define COX_ORCHESTRATOR_INFERENCE_SIGNALS_H

#include "placement.h"

#define SIGNALS_LINE_MAX 1024u /* of the lines that are read; others may be longer */

struct signals {
    const char *engine; /* "vllm", "sglang", "llama.cpp", "tgi", "trtllm"; "": none of them has spoken */
    struct placement_signals load;
    double started;   /* process_start_time_seconds; 0: not said */
    double n_handled; /* a counter that only a restart sets back; -1: not said */
};

struct signals_reader { /* zero-initialised */
    char line[SIGNALS_LINE_MAX];
    size_t len;    /* of a line that has begun in an earlier piece */
    bool too_long; /* and is none of ours: skipped to its end */
    uint8_t engine;
    double sums[8];
    unsigned counts[8];
};

void signals_feed(struct signals_reader *r, struct cox_slice piece);
/* Also the last line, if it has no end; the reader is as new. */
void signals_end(struct signals_reader *r, struct signals *ret);

/* Whether the process behind it is another than when it said `before`. */
bool signals_restarted(const struct signals *before, const struct signals *now);

#endif
