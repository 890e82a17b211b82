/* What cox-sandbox tells its worker, through a pipe that no step ever holds: each record is one write, which
 * a pipe keeps whole. Both ends come from one build. */
#ifndef COX_WORKER_SANDBOX_REPORT_H
#define COX_WORKER_SANDBOX_REPORT_H

#include <stdint.h>

enum report_kind {
    REPORT_SETUP = 1, /* the step never began: errno, and what could not be done */
    REPORT_EXEC,      /* the sandbox stands, but the program could not be started: errno */
    REPORT_LIMIT,     /* everything in it was killed: which limit it broke */
    REPORT_STATUS,    /* wait(2)'s status of the step's own process */
};
struct report {
    uint32_t kind;
    int32_t value;
    char text[240]; /* ends with a NUL */
};

/* Descriptors that the worker gives cox-sandbox beside the three that the step gets. */
#define REPORT_FD 3 /* the pipe; its other end's closing means that the worker is gone */
#define FILTER_FD 4 /* the system call filter, as struct sock_filter */
/* The step's environment, each entry ended by a NUL. Not cox-sandbox's own: LD_PRELOAD and the like would be
 * obeyed outside, and arguments can be read by everybody. */
#define ENVIRON_FD 5
#define GROUP_FD 6 /* the control group of all inside; only where the plan says that there is one */

/* And, where channel= says, a socket to which the listener goes, as SCM_RIGHTS with one byte. */

#endif
