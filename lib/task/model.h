/* A request for a model in OpenAI's shape, as kinds `model`, `agent` and `plan` make one: the fields that
 * they share, first in each one's table. */
#ifndef COX_TASK_MODEL_H
#define COX_TASK_MODEL_H

#include "compile.h"

#define MESSAGES_EXPECTED "a list of messages, or one expression that comes to one"

enum {
    REQUEST_MODEL,
    REQUEST_INPUT,
    REQUEST_MESSAGES,
    REQUEST_OUTPUT_SCHEMA,
    REQUEST_EXTRA,
    REQUEST_SETTINGS, /* from here on, fields go into the request as they are */
    REQUEST_TOOL_CHOICE = REQUEST_SETTINGS,
    REQUEST_PARALLEL,
    REQUEST_RESPONSE_FORMAT,
    REQUEST_MAX_TOKENS,
    REQUEST_MAX_COMPLETION,
    REQUEST_TEMPERATURE,
    REQUEST_TOP_P,
    REQUEST_STOP,
    REQUEST_SEED,
    REQUEST_PRESENCE,
    REQUEST_FREQUENCY,
    REQUEST_LOGPROBS,
    REQUEST_TOP_LOGPROBS,
    REQUEST_EFFORT,
    REQUEST_NR
};

#define REQUEST_FIELDS                                                                                       \
    [REQUEST_MODEL] = { "model", WANT_STRING, FIELD_OPTIONAL, "the name of a model" },                       \
    [REQUEST_INPUT] = { "input", WANT_STRING, FIELD_OPTIONAL, "a string, what the user says" },              \
    [REQUEST_MESSAGES] = { "messages", WANT_STRING | WANT_LIST, FIELD_OPTIONAL, MESSAGES_EXPECTED },         \
    [REQUEST_OUTPUT_SCHEMA] = { "output_schema", WANT_OBJECT, FIELD_OPTIONAL, "an object, a JSON Schema" },  \
    [REQUEST_EXTRA] = { "extra", WANT_OBJECT, FIELD_OPTIONAL,                                                \
                        "an object of further members of the request" },                                     \
    [REQUEST_TOOL_CHOICE] = { "tool_choice", WANT_STRING | WANT_OBJECT, FIELD_OPTIONAL,                      \
                              "\"auto\", \"none\", \"required\", or an object that names a tool" },          \
    [REQUEST_PARALLEL] = { "parallel_tool_calls", WANT_BOOL, FIELD_OPTIONAL, "true or false" },              \
    [REQUEST_RESPONSE_FORMAT] = { "response_format", WANT_OBJECT, FIELD_OPTIONAL,                            \
                                  "an object such as {\"type\": \"json_object\"}" },                         \
    [REQUEST_MAX_TOKENS] = { "max_tokens", WANT_ANY, FIELD_OPTIONAL, "" },                                   \
    [REQUEST_MAX_COMPLETION] = { "max_completion_tokens", WANT_ANY, FIELD_OPTIONAL, "" },                    \
    [REQUEST_TEMPERATURE] = { "temperature", WANT_ANY, FIELD_OPTIONAL, "" },                                 \
    [REQUEST_TOP_P] = { "top_p", WANT_ANY, FIELD_OPTIONAL, "" },                                             \
    [REQUEST_STOP] = { "stop", WANT_STRING | WANT_LIST, FIELD_OPTIONAL, "a string, or a list of strings" },  \
    [REQUEST_SEED] = { "seed", WANT_ANY, FIELD_OPTIONAL, "" },                                               \
    [REQUEST_PRESENCE] = { "presence_penalty", WANT_ANY, FIELD_OPTIONAL, "" },                               \
    [REQUEST_FREQUENCY] = { "frequency_penalty", WANT_ANY, FIELD_OPTIONAL, "" },                             \
    [REQUEST_LOGPROBS] = { "logprobs", WANT_BOOL, FIELD_OPTIONAL, "true or false" },                         \
    [REQUEST_TOP_LOGPROBS] = { "top_logprobs", WANT_ANY, FIELD_OPTIONAL, "" },                               \
    [REQUEST_EFFORT] = { "reasoning_effort", WANT_STRING, FIELD_OPTIONAL, "a string such as \"low\"" }

struct request {
    const char *kind;           /* the field that the request is made from, for messages */
    struct cox_slice preface;   /* of ours, the start of the system message; may be empty */
    const json_t *instructions; /* the rest of it, a string; not beside `messages` */
    const json_t *tools;        /* as OpenAI has them */
    const json_t *schema;       /* asked for as response_format */
};
/* Puts `{"request": {"model", "messages", ...}` from f[REQUEST_NR] into the draft: what else the spec has,
 * and its end, are the caller's. */
void put_request(struct compiler *c, const struct scope *scope, const struct place *at, json_t *const *f,
                 const struct request *request);
bool tool_name_ok(struct cox_slice name); /* [a-zA-Z0-9_-]{1,64} */

#endif
