/* Who this worker says that it is: the token in a file, read anew each time that a connection is made, so
 * that changing the file is all that a rotation takes. */
#ifndef COX_WORKER_TOKEN_H
#define COX_WORKER_TOKEN_H

/* "Bearer TOKEN", freed by the caller; NULL for no file, and for one that has none (which is logged). Thread:
 * any. */
char *token_authorization(const char *path);

#endif
