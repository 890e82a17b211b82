/* Backups: read over the wire; made into a data directory and checked by the orchestrator's own program. */
#include "beside.h"
#include "stream.h"
#include "verbs.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include "coxswain/v1/admin_service.pb-c.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FTW_FDS 16

const struct cli_option cli_admin_backup_options[] = { { 0 } };
const char cli_admin_backup_help[] =
    "Every task acknowledged before it began is in it. Work goes on meanwhile. DIR must not exist; it is "
    "there once\n"
    "the backup is whole. Also check what you mean to keep: `cox admin verify DIR`.\n\n"
    "Example:\n"
    "  cox admin backup /backups/$(date +%F)\n";
const struct cli_option cli_admin_lift_options[] = {
    { "data-dir", 0, "DIR", "the orchestrator's data directory; no coxd may be using it" },
    { 0 },
};
const char cli_admin_lift_help[] =
    "Recovery crashed over this task three times, and has left it alone since. The next start takes it up "
    "where\n"
    "it was: do this with a version that can read it. Runs the coxd beside this program, on this host.\n\n"
    "Example:\n"
    "  cox admin lift t0-00000k --data-dir /var/lib/coxd\n";
const struct cli_option cli_admin_restore_options[] = {
    { "data-dir", 0, "DIR", "the directory to make, for `coxd --data-dir`; it must be empty or not exist" },
    { 0 },
};
const char cli_admin_restore_help[] =
    "Runs the coxd beside this program, on this host; needs no orchestrator.\n\n"
    "Example:\n"
    "  cox admin restore /backups/2026-01-02 --data-dir /var/lib/coxd\n";
const struct cli_option cli_admin_verify_options[] = { { 0 } };
const char cli_admin_verify_help[] =
    "Reads all of it, and says what is damaged. Runs the coxd beside this program.\n\n"
    "Example:\n"
    "  cox admin verify /backups/2026-01-02\n";

/* ---- backup ---------------------------------------------------------------------------------------------
 */

struct backup {
    char *dir; /* being written */
    int fd;    /* the file being written; -1: none */
    char *path;
    uint64_t left;
    uint64_t n_files, n_bytes, as_of_seq;
    bool whole; /* the last message has come */
    char *why;  /* NULL: all is well */
};

static bool broken(struct backup *b, const char *path, const char *why)
{
    if (!b->why)
        b->why = cox_asprintf("%s: %s", path, why);
    return false;
}

/* A path that stays within the backup, whoever sent it. */
static bool is_inside(const char *path)
{
    if (!*path || *path == '/')
        return false;
    for (const char *s = path; *s; s += strcspn(s, "/"), s += *s == '/') {
        size_t len = strcspn(s, "/");
        if (len == 0 || (len == 1 && s[0] == '.') || (len == 2 && s[0] == '.' && s[1] == '.'))
            return false;
    }
    return true;
}

static bool end_file(struct backup *b)
{
    bool ok = true;

    if (b->fd < 0)
        return true;
    if (b->left > 0)
        ok = broken(b, b->path, "came only in part");
    else if (fsync(b->fd) != 0)
        ok = broken(b, b->path, strerror(errno));
    close(b->fd);
    b->fd = -1;
    cox_free(b->path);
    b->path = NULL;
    return ok;
}

static bool begin_file(struct backup *b, const char *path, uint64_t size)
{
    if (!end_file(b))
        return false;
    if (!is_inside(path))
        return broken(b, path, "is not a path within a backup");
    char *full = cox_asprintf("%s/%s", b->dir, path);

    for (char *slash = strchr(full + strlen(b->dir) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(full, 0700); /* opening tells when it could not be made */
        *slash = '/';
    }
    b->fd = open(full, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool ok = b->fd >= 0 || broken(b, full, strerror(errno));

    cox_free(full);
    b->path = cox_strdup(path);
    b->left = size;
    b->n_files++;
    return ok;
}

static bool on_piece(void *user, const ProtobufCMessage *message)
{
    const Coxswain__V1__BackupResponse *piece = (const Coxswain__V1__BackupResponse *)message;
    struct backup *b = user;

    if (b->whole)
        return broken(b, b->dir, "more came after the end");
    if (*piece->path && !begin_file(b, piece->path, piece->size))
        return false;
    if (piece->data.len > 0 && (b->fd < 0 || piece->data.len > b->left))
        return broken(b, b->path ? b->path : b->dir, "more came than was said");
    for (size_t at = 0; at < piece->data.len;) {
        ssize_t n = write(b->fd, piece->data.data + at, piece->data.len - at);
        if (n <= 0)
            return broken(b, b->path, strerror(errno));
        at += (size_t)n;
    }
    b->left -= piece->data.len;
    b->n_bytes += piece->data.len;
    if (piece->as_of_seq > 0) {
        b->as_of_seq = piece->as_of_seq;
        b->whole = true;
        return end_file(b);
    }
    return true;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static void tell(const struct cli *cli, const struct backup *b)
{
    struct cox_buf json = { 0 };

    cox_buf_append_str(&json, "{\"path\":");
    cox_json_quote(&json, cox_slice_str(cli->args[0]));
    cox_buf_printf(&json, ",\"files\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"as_of_seq\":%" PRIu64 "}",
                   b->n_files, b->n_bytes, b->as_of_seq);
    if (cli_structured(cli)) {
        cli_print_json(cli, cox_buf_slice(&json));
    } else {
        printf("%s\n", cli->args[0]);
        if (cli->format != CLI_NAME)
            cli_note(cli, "%" PRIu64 " files, %" PRIu64 " bytes, up to position %" PRIu64, b->n_files,
                     b->n_bytes, b->as_of_seq);
    }
    cox_buf_fini(&json);
}

enum cli_exit cli_admin_backup(struct cli *cli)
{
    Coxswain__V1__BackupRequest request = COXSWAIN__V1__BACKUP_REQUEST__INIT;
    struct backup b = { .dir = cox_asprintf("%s.part-%d", cli->args[0], (int)getpid()), .fd = -1 };
    struct cox_rpc_error *error = NULL;
    enum cli_exit code = CLI_OK;

    if (access(cli->args[0], F_OK) == 0 || mkdir(b.dir, 0700) != 0) {
        if (access(cli->args[0], F_OK) == 0)
            cli_error("%s: is there already; expected the name of a directory to make", cli->args[0]);
        else
            cli_error("%s: %s", cli->args[0], strerror(errno));
        cox_free(b.dir);
        return CLI_USAGE;
    }
    code = cli_stream(cli, &coxswain__v1__admin_service__descriptor, "Backup", &request.base, on_piece, &b,
                      &error);
    if (error)
        cli_print_error(cli, error);
    else if (!code && !b.why && !b.whole)
        broken(&b, cli->args[0], "the backup did not come to its end");
    if (!code && !b.why && rename(b.dir, cli->args[0]) != 0)
        broken(&b, cli->args[0], strerror(errno));
    if (b.why) {
        cli_error("%s", b.why);
        code = CLI_UNAVAILABLE;
    }
    if (code)
        nftw(b.dir, remove_one, FTW_FDS, FTW_DEPTH | FTW_PHYS);
    else
        tell(cli, &b);
    if (b.fd >= 0)
        close(b.fd);
    cox_rpc_error_free(error);
    cox_free(b.dir);
    cox_free(b.path);
    cox_free(b.why);
    return code;
}

/* ---- restore, verify, lift ------------------------------------------------------------------------------
 */

/* Runs coxd in our place, as far as the user can tell: its output and its judgement. */
static enum cli_exit run_coxd(const char *const *argv)
{
    char *path = cli_beside("coxd");
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        execvp(path, (char *const *)(uintptr_t)argv);
        fprintf(stderr, "cox: %s: %s\n", path, strerror(errno));
        _exit(CLI_UNAVAILABLE);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    cox_free(path);
    return pid > 0 && WIFEXITED(status) ? (enum cli_exit)WEXITSTATUS(status) : CLI_UNAVAILABLE;
}

enum cli_exit cli_admin_restore(struct cli *cli)
{
    const char *dir = cli_get(cli, "data-dir");

    if (!dir) {
        cli_error("expected --data-dir DIR: where the data is to be");
        return CLI_USAGE;
    }
    enum cli_exit code =
        run_coxd((const char *const[]){ "coxd", "--data-dir", dir, "--restore", cli->args[0], NULL });

    if (!code)
        cli_note(cli, "start it: coxd --data-dir %s", dir);
    return code;
}

enum cli_exit cli_admin_verify(struct cli *cli)
{
    return run_coxd((const char *const[]){ "coxd", "--data-dir", cli->args[0], "--verify", NULL });
}

enum cli_exit cli_admin_lift(struct cli *cli)
{
    const char *dir = cli_get(cli, "data-dir");

    if (!dir) {
        cli_error("expected --data-dir DIR: where the task is");
        return CLI_USAGE;
    }
    return run_coxd((const char *const[]){ "coxd", "--data-dir", dir, "--lift", cli->args[0], NULL });
}
