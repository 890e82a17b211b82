/* OpenAI's requests and responses, read without building a tree: where things stand in the bytes, so that
 * everything else stays as it came. Pure. Thread: any.
 *
 * Source of the shapes: OpenAI's API reference (chat completions, completions, embeddings) and what vLLM,
 * SGLang, llama.cpp and TGI add to it. Unknown fields are never touched.
 */
#ifndef COX_ORCHESTRATOR_INFERENCE_CHAT_H
#define COX_ORCHESTRATOR_INFERENCE_CHAT_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

enum chat_api { CHAT_COMPLETIONS, CHAT_TEXT_COMPLETIONS, CHAT_EMBEDDINGS };

/* ---- a request ---- */

#define CHAT_PARTS_MAX 65536u /* messages of a request */

struct chat_request {
    enum chat_api api;
    struct cox_slice model;      /* the string, without quotes and unescaped; empty: none. Of the body, or the
                                  * reader's memory and good until its next use */
    struct cox_slice model_span; /* the value's bytes in the body, quotes included */
    bool stream;
    bool include_usage;                   /* stream_options.include_usage */
    struct cox_slice stream_options_span; /* empty: none came */
    uint64_t max_tokens;                  /* max_completion_tokens or max_tokens; 0: none */
    uint32_t n_choices;                   /* that the answer will have: `n`, for each prompt */
    bool has_tools;
    struct cox_slice group; /* prompt_cache_key, or user: raw, between the quotes; empty: neither */
    /* The prompt in the order of engines: tools first, then each message (or prompt, or input). Spans of the
     * body. parts is the reader's memory and good until its next use. */
    const struct cox_slice *parts;
    uint32_t n_parts;
    uint64_t prompt_len; /* bytes of parts */
    /* Parts of messages that are images, sound, video or files: bytes that say little of their tokens. */
    uint64_t media_len; /* of prompt_len */
    uint32_t n_media;
    size_t insert_at; /* behind the opening brace: where a member may be put */
};
struct chat_reader { /* reusable memory; zero-initialised */
    struct cox_slice *parts;
    uint32_t cap_parts;
    struct cox_buf text;
};
void chat_reader_fini(struct chat_reader *r);

/* Errors: COX_ERR_INVALID with a sentence and the member it is about in *ret_param ("messages", static). The
 * JSON is checked as a whole, UTF-8 and depth included: about 1 ns a byte. */
COX_MUST_CHECK enum cox_err chat_request_read(struct chat_reader *r, enum chat_api api, struct cox_slice body,
                                              struct chat_request *ret, struct cox_buf *error,
                                              const char **ret_param);

/* The body to send: pieces of it and of `memory`, so that nothing large is copied. The model's name is
 * replaced by `upstream_model` unless NULL; with `want_usage`, stream_options asks for it. */
#define CHAT_PIECES_MAX 8u
size_t chat_request_rewrite(const struct chat_request *q, struct cox_slice body, const char *upstream_model,
                            bool want_usage, struct cox_buf *memory,
                            struct cox_slice pieces[CHAT_PIECES_MAX]);

/* ---- what a response says ---- */

struct chat_usage {
    bool has;
    uint64_t input_tokens, output_tokens;
    int64_t cached_tokens; /* -1: not said */
};
enum chat_finish {
    CHAT_FINISH_NONE,
    CHAT_FINISH_STOP,
    CHAT_FINISH_LENGTH,
    CHAT_FINISH_TOOLS,
    CHAT_FINISH_OTHER
};

/* Which choices are over. Those beyond the most that OpenAI allows are only counted. */
#define CHAT_CHOICES_TOLD 128u
struct chat_finished {
    uint64_t set[CHAT_CHOICES_TOLD / 64];
    uint32_t n_beyond;
};
void chat_finished_add(struct chat_finished *to, const struct chat_finished *more);
uint32_t chat_finished_count(const struct chat_finished *f);

/* One response or one event of a stream. */
struct chat_answer {
    struct chat_usage usage;
    bool has_choices; /* choices is there and not empty: content has begun */
    bool has_content; /* some of it is text, a tool call or reasoning */
    enum chat_finish finish;
    struct chat_finished finished;
    bool is_error; /* {"error": ...}, also in the middle of a stream */
    bool gave_up;  /* it has no error, but a finish_reason which says that the server has stopped it */
    /* Raw, between the quotes; empty: none. The message of who gave up is its finish_reason. */
    struct cox_slice error_message, error_type, error_code;
    /* What its status would have been, by its code, type and status; 500 where they do not say. 0: no error.
     */
    int error_status;
    bool error_is_any; /* 400, in the words that vLLM and SGLang use within streams for faults of their own
                          too */
    struct cox_slice text; /* of the choice 0: content, delta.content or text, unescaped; in the bytes read,
                            * or in the reader's memory until its next use */
    bool ids_missing;      /* a tool call begins without an id: chat_answer_mend puts one in */
};
COX_MUST_CHECK enum cox_err chat_answer_read(struct chat_reader *r, enum chat_api api, struct cox_slice json,
                                             struct chat_answer *ret);
/* The same bytes with ids where tool calls lack them: "call_" and 24 hexadecimal digits of `seed`, choice and
 * index, so that the pieces of one call agree. Appends to `out`. */
void chat_answer_mend(struct cox_slice json, uint64_t seed, struct cox_buf *out);

/* An error as OpenAI shapes it: {"error":{"message","type","param","code"}}. `param` and `code` may be NULL.
 */
void chat_put_error(struct cox_buf *out, const char *message, const char *type, const char *param,
                    const char *code);

#endif
