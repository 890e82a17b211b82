/* An agent's turns, as far as they can be decided by reading: which tools it has, and what a model's answer
 * asks for. Pure: no I/O, no clock, no state. What is done about it is the engine's (expand/agent.c).
 *
 *     config   of the document, constant, in the image (cox_image_call.ref of kinds `agent` and `plan`)
 *     tools    config's tools, with what is known only when the agent begins: schemas of programs that
 *              workers offer, lists of MCP servers. Made once an agent, kept as one value
 *     answer   what a model step came to: {"content", "tool_calls", "finish_reason", ...}
 *     decision what follows from it
 *
 * config: {"max_turns", "max_parallel", "reasks", "output_schema"?, "plan"?: ALLOW, "context"?:
 * {"max_tokens", "on_full": "fail" | "summarize" | "trim_tool_results"}, "tools": [...]} a tool is one of
 *     {"name", "description"?, "parameters"?, "step", "uses"?: "name@major", "approve"?: true}
 *     {"mcp": true, "list", "step", "allow"?: ["get-*"], "approve"?: [...]}   every tool of a server
 *     {"name": "ask_user", "description"?, "ask": true}   has no step: its `args` are {"question"}
 *   `step` and `list` count inner steps of the agent's step from its first (cox_image_call.inner_first),
 *   those of nested agents too. ALLOW: what cox_task_source.allow_json is of the answer.
 *
 * tools: [{"name", "description", "parameters", "step", "remote"?, "approve"?: true, "ask"?: true}, ...]
 *   `remote`: the tool's name on its MCP server; its step's `args` are {"tool", "arguments"} then.
 *
 * decision, one of
 *   {"calls": [{"id", "name", "step", "args", "approve"?: true, "ask"?: true} |
 *              {"id", "name", "error": "what the model is told"}, ...]}
 *   {"output": VALUE}                   the agent's output: the value that `output_schema` asked for, or
 *                                       {"content", "finish_reason"?, "model"?}
 *   {"plan": {"steps", "output"?}}      of `plan`: to be compiled
 *   {"say": "TEXT"}                     the answer is none: the model is told so, and asked again
 *   {"fail": {"code", "message"}}       the same, and it has been asked often enough
 *
 * Whatever the model says, a decision is bounded: COX_TURN_CALLS_MAX calls, their `args` valid JSON that fits
 * the tools' schemas, COX_TURN_ARGS_LEN_MAX bytes together, each text of ours cut. Ids are those of the
 * answer: two alike, and the answer is none.
 *
 * Thread: any. Cost: O(config + answer), and matching of schemas (cox/schema.h).
 */
#ifndef COX_TURN_H
#define COX_TURN_H

#include "cox/base/buf.h"
#include "cox/base/err.h"
#include "cox/limits.h"

/* What workers say of a program. False: none offers it. Slices live until the function that asked returns. */
struct cox_turn_program {
    struct cox_slice description, input_schema; /* empty: nothing is said, anything goes */
};
struct cox_turn_programs {
    bool (*find)(void *user, struct cox_slice name_at_major, struct cox_turn_program *ret);
    void *user;
};

/* Appends `tools`. `lists`: outputs of the `list` steps, {"tools": [{"name", "description",
 * "input_schema"}]}, in the order of their tools in config. Names become what models take,
 * [a-zA-Z0-9_-]{1,64}: other bytes "_", versions dropped, the second of two alike gets "_2",
 * a server's in any case when the document has the name. Errors:
 * COX_ERR_NOT_FOUND: a program that no worker offers, which may change; COX_ERR_INVALID: what cannot be.
 * `error` says which tool, and why. */
COX_MUST_CHECK enum cox_err cox_turn_tools(struct cox_slice config, const struct cox_slice *lists,
                                           size_t n_lists, const struct cox_turn_programs *programs,
                                           struct cox_buf *tools, struct cox_buf *error);

struct cox_turn {
    struct cox_slice config, tools, answer;
    uint32_t n_reasks; /* answers in a row before this one that were none */
};
/* Appends the decision. What is not the JSON that it should be (only damage does that) is a "fail". */
void cox_turn_decide(const struct cox_turn *turn, struct cox_buf *decision);

#endif
