/* What servers say about tools: lists of them, and what came of calling one. Pure. */
#ifndef COX_WORKER_MCP_TOOLS_H
#define COX_WORKER_MCP_TOOLS_H

#include "../handlers/handler.h"

#include "cox/base/map.h"

/* Appends the tools of a page to `out`, comma by comma, as {"name", "title", "description", "input_schema",
 * "output_schema", "annotations"}, of the last five what there is. One that no model could be offered, or
 * that is in `names` already, is left out: `log` says so. Returns how many came; -1 when `result` has no
 * list. headers   a parameter may ask to be a header; one that asks wrongly makes its tool none */
int mcp_tools_take(struct cox_buf *out, struct cox_slice result, bool headers, struct cox_mapb *names,
                   struct cox_buf *log);

/* The tool of that name (raw) in such a list, `text` being the items; false: it is not there. */
bool mcp_tools_find(struct cox_slice text, struct cox_slice name, struct cox_slice *ret);

/* The result of a call, of the kind "complete". What is no result at all is OUTPUT_INVALID; what says of
 * itself that it is an error is INTERNAL, with its words. */
void mcp_result_read(struct cox_slice result, struct outcome *ret);

/* ---------------------------------------------------------------- headers; params.c */

#define MCP_PARAMS_MAX 64u

/* Appends "Mcp-Param-X: y" LF for each parameter of `arguments` that the schema wants to have as a header
 * (x-mcp-header). Both have passed cox_json_check; `arguments` empty: nothing is appended. False: the schema
 * wants it in a way that it must not. Source: revision 2026-07-28, Streamable HTTP. */
bool mcp_params_put(struct cox_buf *out, struct cox_slice schema, struct cox_slice arguments);

/* A value as headers may hold it: as it is, or in base64. */
void mcp_header_put(struct cox_buf *out, struct cox_slice text);

#endif
