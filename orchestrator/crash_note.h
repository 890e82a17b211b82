/* Where recovery was when it failed or the process died, in a file that the next start reads: DIR/recovery.
 *
 * The place is kept in memory, and a handler for fatal signals writes it down on the way out: an ordinary
 * recovery pays nothing for it. Who is killed (SIGKILL, no memory left) has no last word. So a recovery that
 * follows one which did not come to its end writes down each place before it goes there.
 *
 * The file is not synced: a process that dies leaves it to the kernel. A machine that dies may lose it, and
 * with it a count of crashes. Thread: the one that recovers.
 */
#ifndef COX_ORCHESTRATOR_CRASH_NOTE_H
#define COX_ORCHESTRATOR_CRASH_NOTE_H

#include "cox/engine.h"

#define COX_CRASHES_MAX 3u    /* recoveries that may crash at one place before its task is quarantined */
#define COX_QUARANTINE_MAX 8u /* tasks that may be quarantined before one recovery comes to its end */

struct cox_crash_note;

/* What the recoveries before this one came to. */
struct cox_crashes {
    bool unfinished;        /* the last one did not come to its end */
    int signal;             /* it ended by; 0: by none that can be caught */
    struct cox_place place; /* NONE: not known */
    uint32_t n;             /* recoveries running that ended there */
    uint32_t n_quarantined; /* tasks, since one came to its end */
};

/* `dir` NULL: nothing is noted. A file that cannot be read or written is as none: recovery does not depend on
 * it. */
struct cox_crash_note *cox_crash_note_open(const char *dir, struct cox_crashes *ret);
/* The place was dealt with: what comes is counted anew, also if the process dies before it begins. */
void cox_crash_note_quarantined(struct cox_crash_note *note);

/* Recovery begins: from here on it is unfinished. Catches fatal signals, where nobody else does. */
void cox_crash_note_begin(struct cox_crash_note *note);
/* As cox_engine_config.on_place; `user` is the note. */
void cox_crash_note_at(void *user, const struct cox_place *place);
enum cox_recovery_end {
    COX_RECOVERY_DONE,    /* it came to its end: nothing is counted any more */
    COX_RECOVERY_REFUSED, /* what is at this place cannot be right, the engine says: counts as a crash there
                           */
    COX_RECOVERY_FAILED   /* for another reason */
};
void cox_crash_note_end(struct cox_crash_note *note, enum cox_recovery_end end);
void cox_crash_note_close(struct cox_crash_note *note); /* NULL is allowed */

#endif
