/* What is wrong with a document, as people and programs read it. */
#include "internal.h"

#include <stdio.h>

/* One line: the place, what is wrong there, and its line. */
static void put_violation(struct cox_buf *b, const struct cox_violation *v)
{
    if (*v->path)
        cox_buf_printf(b, "%s: ", v->path);
    cox_buf_append_str(b, v->message);
    if (v->line > 0)
        cox_buf_printf(b, " (line %u)", v->line);
}

void cox_put_violations(struct cox_buf *b, const struct cox_violations *v)
{
    size_t more = (v->n > 0 ? v->n - 1 : 0) + (size_t)v->n_more;

    if (v->n > 0)
        put_violation(b, &v->items[0]);
    if (more > 0)
        cox_buf_printf(b, "; and %zu more", more);
}

void cox_op_fail_violations(struct cox_op *op, const struct cox_violations *v)
{
    struct cox_rpc_violation violations[COX_VIOLATIONS_MAX];
    char descriptions[COX_VIOLATIONS_MAX][COX_ERROR_MESSAGE_LEN_MAX + 32]; /* its line too */
    struct cox_buf message = { 0 };

    for (uint32_t i = 0; i < v->n; i++) {
        const struct cox_violation *item = &v->items[i];
        if (item->line > 0)
            snprintf(descriptions[i], sizeof(descriptions[i]), "line %u: %s", item->line, item->message);
        else
            snprintf(descriptions[i], sizeof(descriptions[i]), "%s", item->message);
        violations[i] = (struct cox_rpc_violation){ item->path, descriptions[i] };
    }
    cox_put_violations(&message, v);
    cox_op_fail(op, &(struct cox_rpc_error){ .status = COX_RPC_INVALID_ARGUMENT,
                                             .message = cox_buf_cstr(&message),
                                             .reason = "INVALID_TASK",
                                             .violations = violations,
                                             .n_violations = v->n });
    cox_buf_fini(&message);
}
