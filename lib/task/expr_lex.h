/* Words of an expression (CEL's, without what the format leaves out). */
#ifndef COX_TASK_EXPR_LEX_H
#define COX_TASK_EXPR_LEX_H

#include "cox/base/buf.h"

enum token {
    TOKEN_END,
    TOKEN_BAD,
    TOKEN_NAME,
    TOKEN_INT,    /* magnitude in `number`, up to 2^63 */
    TOKEN_DOUBLE, /* text is one that strtod reads */
    TOKEN_STRING, /* value in lexer.value */
    TOKEN_DOT,
    TOKEN_COMMA,
    TOKEN_COLON,
    TOKEN_QUESTION,
    TOKEN_OPEN_PAREN,
    TOKEN_CLOSE_PAREN,
    TOKEN_OPEN_BRACKET,
    TOKEN_CLOSE_BRACKET,
    TOKEN_NOT,
    TOKEN_MINUS,
    TOKEN_PLUS,
    TOKEN_STAR,
    TOKEN_SLASH,
    TOKEN_PERCENT,
    TOKEN_EQ,
    TOKEN_NE,
    TOKEN_LT,
    TOKEN_LE,
    TOKEN_GT,
    TOKEN_GE,
    TOKEN_AND,
    TOKEN_OR,
    TOKEN_IN,
};

struct lexer {
    struct cox_slice source;
    size_t next;           /* where the next token is looked for */
    enum token token;      /* the current one */
    struct cox_slice text; /* as written */
    uint64_t number;
    struct cox_buf value; /* owned */
    const char *bad;      /* TOKEN_BAD: why */
};

void lexer_init(struct lexer *l, struct cox_slice source); /* at the first token */
void lexer_fini(struct lexer *l);
void lexer_next(struct lexer *l);

#endif
