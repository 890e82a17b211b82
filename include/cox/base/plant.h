/* Bugs planted on purpose, to see that the tests catch them: a suite that misses a planted bug proves
 * nothing.
 *
 * In a build with -Dplanted=true the environment variable COX_PLANT names the one bug that this process has;
 * in any other build the question is the constant false and the code beside it is gone. A bug stands at the
 * line a hand could break, reads as the mistake it is, and has a row in tests/planted/bugs.json:
 *
 *     if (h->token.counter == a->token.counter && (COX_PLANTED("counter-only") || h->token.epoch ==
 * a->token.epoch))
 */
#ifndef COX_BASE_PLANT_H
#define COX_BASE_PLANT_H

#include <stdbool.h>

#ifdef COX_PLANT
/* Whether COX_PLANT names it. Thread: any. Cost: a string comparison. */
bool cox_planted(const char *name);
#define COX_PLANTED(name) cox_planted(name)
#else
#define COX_PLANTED(name) false
#endif

#endif
