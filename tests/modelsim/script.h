/* Scripted replies: rules in a file, each with what it matches and what it answers. Pure.
 *
 * YAML (a list, or a map with a member `replies`), or JSON, one rule a line. The first rule that matches
 * answers.
 */
#ifndef COX_MODELSIM_SCRIPT_H
#define COX_MODELSIM_SCRIPT_H

#include "ask.h"

struct script;

/* Errors: COX_ERR_INVALID, `error` names the rule and what was expected. */
COX_MUST_CHECK enum cox_err script_parse(struct cox_slice text, struct script **ret, struct cox_buf *error);
void script_free(struct script *s); /* NULL is allowed */

struct script_rule {
    struct cox_slice model, last, role; /* patterns as JSON strings; empty: any */
    int64_t turn;                       /* 0: any */
    int64_t times;                      /* left; negative: any number */
    bool has_text;
    struct cox_slice text;                              /* JSON string */
    struct cox_slice tool_calls;                        /* JSON array of {name, arguments, id} */
    struct cox_slice finish;                            /* JSON string; empty: by what is answered */
    int64_t input_tokens, output_tokens, cached_tokens; /* of usage; -1: counted */
    int64_t delay_ms;                                   /* before the first token, beside the engine's time */
    int64_t status;                                     /* of an error; 0: none */
    struct cox_slice message, type, code;               /* of the error: JSON strings, or empty */
    int64_t retry_after_s;                              /* 0: none */
};
/* The rule that answers; its use is counted. NULL: none matches. Valid until script_free. */
const struct script_rule *script_find(struct script *s, const struct ask *a);

#endif
