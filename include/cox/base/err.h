/* Result codes shared by every library of Coxswain.
 *
 * A function that can fail in an expected way returns `enum cox_err`; 0 is success. Text for people is
 * made at the edge (API, CLI), never in a library. A broken invariant is not an error: COX_ASSERT aborts,
 * release builds included. Out of memory is not an error either: see alloc.h.
 */
#ifndef COX_BASE_ERR_H
#define COX_BASE_ERR_H

#define COX_ERR_TABLE(X)                                                                                     \
    X(OK, "ok")                                                                                              \
    X(INVALID, "invalid argument")                                                                           \
    X(NOT_FOUND, "not found")                                                                                \
    X(EXISTS, "already exists")                                                                              \
    X(FULL, "limit reached")                                                                                 \
    X(DENIED, "not allowed")                                                                                 \
    X(UNAVAILABLE, "unavailable")                                                                            \
    X(STALE, "superseded by a newer attempt or session")                                                     \
    X(TIMEOUT, "deadline exceeded")                                                                          \
    X(CANCELLED, "cancelled")                                                                                \
    X(CORRUPT, "stored data is damaged")                                                                     \
    X(IO, "input/output error")                                                                              \
    X(UNIMPLEMENTED, "not implemented")                                                                      \
    X(AGAIN, "try again")                                                                                    \
    X(INTERNAL, "internal error")

#define COX_ERR_ENUM(name, text) COX_ERR_##name,
enum cox_err { COX_ERR_TABLE(COX_ERR_ENUM) COX_ERR_NR };
#undef COX_ERR_ENUM
#define COX_OK COX_ERR_OK

#define COX_MUST_CHECK __attribute__((warn_unused_result))

/* The text of `err`, static, never NULL. */
const char *cox_err_text(enum cox_err err);

/* Aborts with place and expression when `cond` is false, in every build type. */
#define COX_ASSERT(cond) ((cond) ? (void)0 : cox_assert_failed(#cond, __FILE__, __LINE__))
_Noreturn void cox_assert_failed(const char *expr, const char *file, int line);

#endif
