#include "cox/base/err.h"

#include <stdio.h>
#include <stdlib.h>

const char *cox_err_text(enum cox_err err)
{
#define ERR_TEXT(name, text) text,
    static const char *const texts[] = { COX_ERR_TABLE(ERR_TEXT) };
#undef ERR_TEXT
    return (unsigned)err < COX_ERR_NR ? texts[err] : "unknown error";
}

_Noreturn void cox_assert_failed(const char *expr, const char *file, int line)
{
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, expr);
    abort();
}
