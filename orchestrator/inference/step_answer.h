/* A model's whole answer, put together from what arrives: the events of a stream, or one response. Only its
 * first choice is looked at. Pure. Thread: one. */
#ifndef COX_ORCHESTRATOR_INFERENCE_STEP_ANSWER_H
#define COX_ORCHESTRATOR_INFERENCE_STEP_ANSWER_H

#include "sse.h"

#define STEP_ANSWER_LEN_MAX ((size_t)16 << 20)     /* of text and arguments together */
#define STEP_ANSWER_REFUSAL_LEN_MAX ((size_t)4096) /* of what is kept of an answer that is an error */
#define STEP_ANSWER_TOOLS_MAX 128u

struct step_answer_tool {
    struct cox_buf id, name, arguments;
};

/* Zero-initialised: nothing has come. */
struct step_answer {
    bool is_stream;
    bool has_text;       /* there was a string for it, however short */
    struct cox_buf text; /* so far */
    struct step_answer_tool *tools;
    uint32_t n_tools;
    struct cox_buf finish_reason, model;
    bool refused;         /* an error came instead of an answer, or in the middle of one */
    struct cox_buf error; /* its message */
    struct sse sse;
    struct cox_buf whole; /* of what is no stream */
};
void step_answer_fini(struct step_answer *a); /* zero-initialised again */

/* `is_stream`: server-sent events follow; else one JSON value. */
void step_answer_begin(struct step_answer *a, bool is_stream);
/* Errors: COX_ERR_FULL, it is longer than STEP_ANSWER_LEN_MAX; COX_ERR_INVALID, it is no such answer: `error`
 * says why. What had come until then stays. */
COX_MUST_CHECK enum cox_err step_answer_feed(struct step_answer *a, struct cox_slice piece);
/* Bytes that it holds. O(tools). */
size_t step_answer_len(const struct step_answer *a);
/* Nothing more comes. Errors: COX_ERR_INVALID, as above. */
COX_MUST_CHECK enum cox_err step_answer_end(struct step_answer *a);

/* What an endpoint says in an error: {"error": {"message": ...}} and its relatives, else the bytes. Appends
 * at most STEP_ANSWER_REFUSAL_LEN_MAX bytes of UTF-8. */
void step_answer_put_refusal(struct cox_buf *out, struct cox_slice body);

#endif
