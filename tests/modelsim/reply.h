/* What a call is answered: text of pseudo-words, tool calls or JSON that fits what was asked, always the same
 * for the same seed and prompt; and how it comes out, token by token. Pure. */
#ifndef COX_MODELSIM_REPLY_H
#define COX_MODELSIM_REPLY_H

#include "ask.h"

struct reply_tool {
    struct cox_buf id, name, arguments;
};

struct reply {
    struct cox_buf text;
    struct reply_tool *tools;
    uint32_t n_tools;
    uint32_t n_tokens;  /* that will come out; at least 1 */
    const char *finish; /* "stop", "length", "tool_calls"; static */
};

struct reply_config {
    uint64_t seed;
    uint64_t output_tokens; /* mean: from half of it to half more */
    uint64_t tool_turns;    /* results of tools after which the answer is text */
};

/* The answer number `choice` to `prompt`. */
void reply_make(struct reply *r, const struct reply_config *config, const struct ask *a,
                struct cox_slice prompt, uint32_t choice);
void reply_fini(struct reply *r);
struct reply_tool *
reply_add_tool(struct reply *r); /* "call_" and an id are there already, of its place and `seed` */
void reply_tool_id(struct reply_tool *t, uint64_t seed, uint32_t place);
/* Counts tokens, and cuts: at the first of the stops, and at max_tokens. */
void reply_close(struct reply *r, const struct ask *a);

/* A JSON value of this schema; of an empty one, an object. */
void reply_put_instance(struct cox_buf *out, struct cox_slice schema, uint64_t seed);

struct reply_cursor {
    size_t at; /* in the text, or in the arguments of `tool` */
    uint32_t tool, n_done;
    bool in_tools, opened;
};
struct reply_piece {
    bool is_tool, opens; /* opens: a tool call begins, the piece has its id and name and no bytes */
    uint32_t tool;
    struct cox_slice bytes;
};
/* The next token; false: all n_tokens are out. */
bool reply_next(const struct reply *r, struct reply_cursor *at, struct reply_piece *ret);

#endif
