/* The parts of cox-sandbox. It stands between a worker and a step:
 *
 *   worker    forks cox-sandbox, which becomes
 *   monitor   outside; writes the user map, waits, and ends when the worker does. Its child is
 *   init      process 1 of the sandbox; makes the view, watches total use, reaps. When it ends,
 *             the kernel kills all that is left inside. Its child is
 *   step      the program, in a session of its own, with every right given up
 *
 * Whatever fails before the step runs is told through the pipe and ends all three: there is no weaker
 * sandbox. */
#ifndef COX_WORKER_SANDBOX_ENTER_H
#define COX_WORKER_SANDBOX_ENTER_H

#include "plan.h"
#include "report.h"

#include <stdatomic.h>
#include <stdnoreturn.h>

/* What the step sees itself as. */
#define STEP_UID 1000u
#define STEP_GID 1000u

void tell(enum report_kind kind, int value, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Tells SETUP with errno, and ends. */
noreturn void die(const char *what);

/* init: makes the tree of mounts that is all of the host the step can see, and makes it the root. */
void view_enter(const struct plan *plan);

/* init: a loopback device in a network namespace of its own. */
void loopback_up(void);

/* init: listens at the plan's port of it, for the worker: the socket goes through the plan's channel, which
 * is closed. */
void hand_listener(const struct plan *plan);

/* init: gives up every capability, for good, and the ways to come by new ones. */
void drop_rights(void);
/* step: what only it is held to; init must be able to look at it. */
void limit_resources(const struct plan *plan);
void limit_files(const struct plan *plan); /* Landlock, where the kernel has it */
void limit_calls(void);                    /* the filter at FILTER_FD */

/* The version of Landlock that the kernel offers; 0: none. */
int landlock_version(void);

/* init: what all processes inside have in memory together, in bytes: exactly where it is above `max`, else
 * not less than that. Not counted: shared memory that was filled and is mapped no more by anybody who still
 * has a part of it. */
uint64_t memory_len(uint64_t max);

/* init: looks at what all processes inside use together. */
#define WATCH_TEXT_LEN 200
struct watch {
    const struct plan *plan;
    int64_t next_ns;        /* when it looks at memory again */
    int work_fd;            /* by its path a step could have put another directory in its place */
    uint64_t free_at_begin; /* of its file system */
    atomic_bool is_disk_broken;
    char memory_broken[WATCH_TEXT_LEN], disk_broken[WATCH_TEXT_LEN];
};
/* Before the step is there, which could put something else where it looks. */
void watch_open(struct watch *w, const struct plan *plan);
/* After it was forked: starts a thread. */
void watch_begin(struct watch *w);
/* Looks when it is time: ends of processes, however many, neither hurry nor hinder it. Returns the limit that
 * is broken, in a text for people, or NULL; *ret_left_ms is how long it may be left alone. */
const char *watch_look(struct watch *w, int64_t *ret_left_ms);

#endif
