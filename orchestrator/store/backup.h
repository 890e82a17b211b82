/* A copy of all data while work goes on, in DIR/backup.
 *
 *   state thread   copies state.db in slices; from here on it cuts no log; links the blobs
 *   log thread     copies log.db in slices between its commits: what it ends with is in the copy
 *   state thread   cuts the log again
 *
 * A copy of a database that its own connection changes meanwhile stays equal to it, so each is of the moment
 * at which it ended: the log's later than the state's, so it covers it. Blobs named meanwhile are linked as
 * they get their names. The index is left out: it is made again.
 */
#ifndef COX_STORE_BACKUP_H
#define COX_STORE_BACKUP_H

#include "blobs.h"
#include "db.h"

struct cox_store;

/* One database being copied. Zeroed: none. */
struct store_copy {
    sqlite3 *to;
    sqlite3_backup *backup;
};
/* Goes on for a slice, beginning where nothing has begun. *ret_done: the file is whole and closed. On an
 * error the copy is over. */
COX_MUST_CHECK enum cox_err store_copy_step(struct store_copy *c, struct store_db *from, const char *to_dir,
                                            bool *ret_done);
void store_copy_abandon(struct store_copy *c);
/* The copy is on the disk that running tasks still write to. */
bool store_backup_has_room(const struct cox_store *s);

/* Makes DIR/backup anew; from now on new blobs are linked into it. */
COX_MUST_CHECK enum cox_err store_backup_begin(struct store_blobs *b, const char *dir);
/* Links a slice of the blobs that are there. */
COX_MUST_CHECK enum cox_err store_backup_link(struct store_blobs *b, bool *ret_done);
void store_backup_remove(const char *dir);
/* New blobs are linked no more. */
void store_backup_end(struct store_blobs *b);
/* With the blobs' lock held, by who names one. */
void store_backup_add(struct store_blobs *b, const char *path);

#endif
