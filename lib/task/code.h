/* The instructions of a template: a flat program that appends JSON text, or leaves one value (an `if`).
 *
 * Fixed width and forward jumps only: one linear pass checks a program (image_check.c), every program ends,
 * and a damaged one can only give a wrong answer or an error. Instruction: word 0 is op | n << 8, word 1 is
 * `at`. Ops are in the log: append only.
 */
#ifndef COX_TASK_CODE_H
#define COX_TASK_CODE_H

#include "cox/base/buf.h"

#define CODE_LEN 8u          /* bytes of an instruction */
#define CODE_N_MAX 0xffffffu /* `n` has 24 bits */
#define CODE_STACK_MAX 160u  /* values; an expression that needs more does not compile */

enum operand {
    OPERAND_NONE,
    OPERAND_STR,    /* n bytes at image offset `at` */
    OPERAND_STEP,   /* step index `at`, field n */
    OPERAND_JUMP,   /* skips `at` instructions */
    OPERAND_BRANCH, /* skips n instructions when false; n + at when the condition is no bool */
    OPERAND_COUNT,  /* n values */
};

/* name, operand, values taken, values left */
#define CODE_TABLE(X)                                                                                        \
    X(RAW, STR, 0, 0)         /* appends the bytes */                                                        \
    X(EXPR, STR, 0, 0)        /* an expression starts; its text, for errors */                               \
    X(EMIT_VALUE, NONE, 1, 0) /* appends a JSON value */                                                     \
    X(EMIT_TEXT, NONE, 1, 0)  /* appends inside a JSON string */                                             \
    X(EMIT_ARG, NONE, 1, 0)   /* the same, but null is nothing */                                            \
    X(CONST, STR, 0, 1)       /* JSON text: a literal or an input */                                         \
    X(STEP, STEP, 0, 1)                                                                                      \
    X(ERROR, NONE, 0, 1)                                                                                     \
    X(SUCCESS, NONE, 0, 1)                                                                                   \
    X(FAILURE, NONE, 0, 1)                                                                                   \
    X(GET, STR, 1, 1)                                                                                        \
    X(HAS, STR, 1, 1)                                                                                        \
    X(INDEX, NONE, 2, 1)                                                                                     \
    X(LIST, COUNT, 0, 1) /* takes n */                                                                       \
    X(NOT, NONE, 1, 1)                                                                                       \
    X(NEG, NONE, 1, 1)                                                                                       \
    X(ADD, NONE, 2, 1)                                                                                       \
    X(SUB, NONE, 2, 1)                                                                                       \
    X(MUL, NONE, 2, 1)                                                                                       \
    X(DIV, NONE, 2, 1)                                                                                       \
    X(MOD, NONE, 2, 1)                                                                                       \
    X(EQ, NONE, 2, 1)                                                                                        \
    X(NE, NONE, 2, 1)                                                                                        \
    X(LT, NONE, 2, 1)                                                                                        \
    X(LE, NONE, 2, 1)                                                                                        \
    X(GT, NONE, 2, 1)                                                                                        \
    X(GE, NONE, 2, 1)                                                                                        \
    X(IN, NONE, 2, 1)                                                                                        \
    X(JUMP, JUMP, 0, 0)                                                                                      \
    X(JUMP_IF_FALSE, JUMP, 0, 0) /* looks at the top, leaves it */                                           \
    X(JUMP_IF_TRUE, JUMP, 0, 0)                                                                              \
    X(AND, NONE, 2, 1) /* after JUMP_IF_FALSE: an error gives way to a decisive operand */                   \
    X(OR, NONE, 2, 1)                                                                                        \
    X(BRANCH, BRANCH, 1, 0)                                                                                  \
    X(SIZE, NONE, 1, 1)                                                                                      \
    X(STARTS_WITH, NONE, 2, 1)                                                                               \
    X(ENDS_WITH, NONE, 2, 1)                                                                                 \
    X(CONTAINS, NONE, 2, 1)                                                                                  \
    X(MATCHES, NONE, 2, 1)                                                                                   \
    X(TO_JSON, NONE, 1, 1)                                                                                   \
    X(FROM_JSON, NONE, 1, 1)                                                                                 \
    X(ITEM, NONE, 0, 1) /* of the map that the evaluation belongs to */                                      \
    X(ITEM_INDEX, NONE, 0, 1)                                                                                \
    X(RESULTS, NONE, 0, 0) /* appends {NAME: {"status", "output", "error"}} of all steps */                  \
    X(ARGS, NONE, 0, 1)    /* of the tool's call that the evaluation belongs to */

#define CODE_ENUM(name, operand, takes, leaves) OP_##name,
enum op { CODE_TABLE(CODE_ENUM) OP_NR };
#undef CODE_ENUM

/* Fields of a step that an expression sees. In the log: append only. */
#define STEP_FIELD_TABLE(X)                                                                                  \
    X(OUTPUT, "output")                                                                                      \
    X(ERRORS, "errors")                                                                                      \
    X(STATUS, "status")                                                                                      \
    X(ERROR, "error")                                                                                        \
    X(ARTIFACTS, "artifacts")
#define STEP_FIELD_ENUM(name, text) STEP_FIELD_##name,
enum step_field { STEP_FIELD_TABLE(STEP_FIELD_ENUM) STEP_FIELD_NR };
#undef STEP_FIELD_ENUM

struct code {
    uint8_t op;
    uint32_t n;
    uint32_t at;
};

/* Operand kind and stack effect of an op below OP_NR. */
struct op_info {
    uint8_t operand;
    uint8_t takes;
    uint8_t leaves;
};
extern const struct op_info op_info[OP_NR];

static inline uint32_t load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline struct code code_load(const uint8_t *p)
{
    uint32_t word = load_u32(p);

    return (struct code){ .op = (uint8_t)word, .n = word >> 8, .at = load_u32(p + 4) };
}

#endif
