/* What a request asks of the simulated server. Pure. */
#ifndef COX_MODELSIM_ASK_H
#define COX_MODELSIM_ASK_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

enum ask_api { ASK_CHAT, ASK_TEXT, ASK_EMBEDDINGS };
const char *ask_api_text(enum ask_api api); /* "chat" */

#define ASK_STOPS_MAX 16u
#define ASK_CHOICES_MAX 128u
#define ASK_PROMPTS_MAX 2048u

struct ask {
    enum ask_api api;
    struct cox_buf model;
    bool stream, include_usage, ignore_eos, base64;
    uint64_t max_tokens; /* 0: not said */
    uint64_t min_tokens, dimensions;
    uint32_t n;
    bool has_seed;
    int64_t seed;
    struct cox_buf stops[ASK_STOPS_MAX];
    uint32_t n_stops;
    /* The prompts as the engine sees them, one text a prompt: tools, then messages with marks between them
     * that no text has, so that what a conversation adds is behind what it was. */
    struct cox_buf *prompts;
    uint32_t n_prompts;
    /* Of the request's body. */
    struct cox_slice tools, tool_choice, schema;
    bool has_tools, json; /* a JSON text is asked for; `schema` says which, or is empty */
    struct cox_buf last;  /* the last message's text */
    struct cox_buf last_role;
    uint32_t turn;         /* assistant's messages so far, and one */
    uint32_t tool_results; /* messages since the last of the user that are results of tools */
};

/* Errors: COX_ERR_INVALID, *ret_error says what, *ret_param which member ("messages"; NULL: none). ask_fini
 * in any case. `body` outlives the ask. */
COX_MUST_CHECK enum cox_err ask_read(struct ask *a, enum ask_api api, struct cox_slice body,
                                     const char **ret_error, const char **ret_param);
void ask_fini(struct ask *a);

/* Tokens of so many bytes: four bytes are one, in every count of this server. */
#define ASK_TOKEN_LEN 4u
uint32_t ask_tokens(size_t len);

/* What the answer adds to the prompt when it comes back in the next turn. */
void ask_put_text(struct cox_buf *prompt, struct cox_slice text);
void ask_put_tool_call(struct cox_buf *prompt, struct cox_slice name, struct cox_slice arguments);

/* The chained hashes of the prompt's whole blocks, `block_tokens` each; cox_free. */
uint64_t *ask_blocks(struct cox_slice prompt, struct cox_slice model, uint64_t block_tokens, uint32_t *ret_n);

#endif
