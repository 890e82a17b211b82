/* The `jq` handler's other end: a program in the line protocol, in a process of its own, so that a filter
 * that never ends or eats memory is killed by itself. cox-worker is that program, under SLOTS_JQ_ARGUMENT. */
#ifndef COX_WORKER_JQ_PROGRAM_H
#define COX_WORKER_JQ_PROGRAM_H

#define JQ_MEMORY_LEN_MAX ((size_t)1 << 30)

/* Reads calls from standard input until it ends; returns an exit code. */
int jq_main(void);

#endif
