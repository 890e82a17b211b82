/* What coxd does to a data directory instead of serving it: copy a backup to its place, check one, end
 * a quarantine.
 * Each says on stdout or stderr what came of it and returns the exit code. Thread: main, before any other. */
#ifndef COX_ORCHESTRATOR_OFFLINE_H
#define COX_ORCHESTRATOR_OFFLINE_H

int cox_offline_restore(const char *from_dir, const char *to_dir);

/* Recovers an engine in memory from DIR and reads everything. Prints one JSON object: {"ok": ..., "last_seq":
 * ..., counts, "problems": [...]}; 0 when there is none, else 1. */
int cox_offline_verify(const char *dir);

/* Lets the next start take up a quarantined task: 0, or 1 when there is none of this id. */
int cox_offline_lift(const char *dir, const char *task);

#endif
