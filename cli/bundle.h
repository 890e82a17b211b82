/* A folder as a tar.gz that is the same bytes whenever the folder holds the same: its hash is its name.
 *
 * Entries are sorted by path; times, owners and all of the mode but "executable" are dropped; gzip's header
 * says nothing about the host. Left out: .git, .cox, __pycache__, and what .coxignore in the folder says, by
 * the rules of .gitignore. */
#ifndef CLI_BUNDLE_H
#define CLI_BUNDLE_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

#define CLI_BUNDLE_LEN_MAX ((size_t)256 << 20) /* before compression */
#define CLI_BUNDLE_FILES_MAX 100000u

/* Packs `dir` into `out`. Errors: COX_ERR_INVALID, COX_ERR_IO, `error` names the path and what was expected.
 */
COX_MUST_CHECK enum cox_err cli_bundle_pack(const char *dir, struct cox_buf *out, struct cox_buf *error);

/* Whether patterns (the text of a .coxignore) leave out a path such as "src/a.o". */
bool cli_bundle_ignores(struct cox_slice patterns, const char *path, bool is_dir);

/* "sha256:" and 64 hex digits. */
#define CLI_HASH_LEN 71
void cli_hash(struct cox_slice bytes, char ret[CLI_HASH_LEN + 1]);

#endif
