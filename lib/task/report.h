/* What is wrong with a document: collected up to a limit, each with place, line and expectation. */
#ifndef COX_TASK_REPORT_H
#define COX_TASK_REPORT_H

#include "place.h"

#include "cox/json.h"
#include "cox/task.h"

#include <jansson.h>

struct report {
    struct cox_violations *violations;
    struct cox_slice text; /* the document, for lines; empty: places are not in it */
};

/* Nothing found so far? */
bool report_clean(const struct report *r);
/* Room for another message? What is costly to word (a suggestion) is worded only then. */
bool report_open(const struct report *r);

void report_at(struct report *r, const struct place *at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* At a byte of a text that stands at `at`: what parsing finds. */
void report_offset(struct report *r, const struct place *at, struct cox_slice text, size_t offset,
                   const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* "the string "10"", "a list": what was found, for messages. `ret` holds a NUL-terminated text. */
#define FOUND_LEN 64
const char *found_text(const json_t *value, char ret[FOUND_LEN]);

/* Reports "found ..., expected ...". */
void report_found(struct report *r, const struct place *at, const json_t *value, const char *expected);

/* The known name nearest to a misspelled one, by edit distance (Damerau 1964) of at most 2. */
struct suggestion {
    struct cox_slice word;
    struct cox_slice best;
    unsigned distance;
};
struct suggestion suggestion(struct cox_slice word);
void suggestion_offer(struct suggestion *s, struct cox_slice name);
/* "; did you mean `x`?" or "". `ret` holds it. */
#define SUGGESTION_LEN 96
const char *suggestion_text(const struct suggestion *s, char ret[SUGGESTION_LEN]);

#endif
