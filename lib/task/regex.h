/* Regular expressions in RE2's syntax without what needs backtracking: a nondeterministic automaton, all of
 * whose states are followed at once (Thompson 1968). Matching costs O(text * pattern), whatever the pattern.
 *
 * Why our own: RE2 has no C interface in Debian, and the C libraries there backtrack or carry captures we do
 * not need. Known: literals, . ^ $ | ( ) (?: ) (?i) (?s) (?m), [classes] with ranges, negation and
 * [:names:], \d \w \s \D \W \S \b \B \A \z, \t \n \r \f \v \a, \xHH \x{H}, \Q..\E, * + ? {n,m}, each also
 * lazy. Not known: captures' contents, backreferences, lookaround, Unicode classes (\p). (?i) folds ASCII
 * letters.
 */
#ifndef COX_TASK_REGEX_H
#define COX_TASK_REGEX_H

#include "cox/base/buf.h"

#define REGEX_CODE_MAX 1000u
#define REGEX_RANGES_MAX 500u
#define REGEX_REPEAT_MAX 1000u
#define REGEX_DEPTH_MAX 64u

struct regex_code {
    uint8_t op;
    bool negated;
    int16_t x; /* jumps are relative, so that code can be copied */
    int16_t y;
    uint16_t first, n; /* ranges of a class */
    uint32_t c;        /* a character */
};
struct regex_range {
    uint32_t low;
    uint32_t high;
};
struct regex {
    uint32_t n_code;
    uint32_t n_ranges;
    struct regex_code code[REGEX_CODE_MAX];
    struct regex_range ranges[REGEX_RANGES_MAX];
};

/* NULL, or what is wrong with the pattern (static text). Cost: O(pattern * REGEX_CODE_MAX). */
const char *regex_compile(struct regex *re, struct cox_slice pattern);
/* Does any part of the text match? Bytes that are not UTF-8 count as one character each. */
bool regex_search(const struct regex *re, struct cox_slice text);

#endif
