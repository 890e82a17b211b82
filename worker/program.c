#include "program.h"

#include "handlers/spawn.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/limits.h"
#include "cox/schema.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define VERSION_LEN_MAX 64u
#define DESCRIPTION_LEN_MAX 4096u
#define SCHEMA_LEN_MAX (64u << 10)

/* ---------------------------------------------------------------- running --describe */

/* Reads until the end, the bound or the deadline. Returns an errno. */
static int read_bounded(int fd, struct cox_buf *out, int64_t deadline_ns)
{
    for (;;) {
        int64_t left_ms = (deadline_ns - cox_clock_mono_ns()) / 1000000;
        struct pollfd p = { .fd = fd, .events = POLLIN };
        ssize_t n;

        if (left_ms <= 0 || poll(&p, 1, (int)left_ms) == 0)
            return ETIMEDOUT;
        cox_buf_reserve(out, 4096);
        n = read(fd, out->data + out->len, 4096);
        if (n < 0 && errno != EINTR)
            return errno;
        if (n == 0)
            return 0;
        out->len += n > 0 ? (size_t)n : 0;
        if (out->len > PROGRAM_DESCRIBE_LEN_MAX)
            return EFBIG;
    }
}

/* The process has closed its output; it may still take until the deadline to end. */
static int await_exit(pid_t pid, int64_t deadline_ns, int *ret_status)
{
    siginfo_t info;
    int err = 0;
    struct pollfd p = { .fd = spawn_pidfd(pid), .events = POLLIN };
    int64_t left_ms = (deadline_ns - cox_clock_mono_ns()) / 1000000;

    if (p.fd < 0 || poll(&p, 1, left_ms > 0 ? (int)left_ms : 0) != 1)
        err = ETIMEDOUT;
    if (p.fd >= 0)
        close(p.fd);
    kill(-pid, SIGKILL);
    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0)
        err = errno;
    waitpid(pid, ret_status, 0);
    return err;
}

/* *ret_inside is NULL without a sandbox. */
static int start_describe(const char *bundle, struct sandbox *sandbox, const struct spawn_args *args,
                          pid_t *ret_pid, struct sandboxed **ret_inside)
{
    enum sandbox_level level = sandbox_level_for(sandbox, SANDBOX_NONE);

    if (level == SANDBOX_NONE)
        return spawn_process(args, ret_pid);
    return sandbox_spawn(sandbox, level, &(struct sandbox_step){ .bundle = bundle }, args, ret_pid,
                         ret_inside);
}

/* What the program's own end was. An errno when it never began. */
static int end_describe(struct sandboxed *inside, int *ret_status)
{
    struct sandbox_end end;

    if (!inside)
        return 0;
    sandbox_end(inside, &end);
    *ret_status = end.has_status ? end.status : SIGKILL;
    return end.exec_errno ? end.exec_errno : end.is_up ? 0 : EAGAIN;
}

static int run_describe(const char *path, const char *dir, const char *bundle, struct sandbox *sandbox,
                        struct cox_buf *out, int *ret_status)
{
    char *const argv[] = { (char *)(uintptr_t)path, (char *)(uintptr_t) "--describe", NULL };
    char *const paths[] = { (char *)(uintptr_t)path, NULL };
    int64_t deadline_ns = cox_clock_mono_ns() + PROGRAM_DESCRIBE_LIMIT_MS * INT64_C(1000000);
    char *bundle_entry = bundle ? cox_asprintf("COX_BUNDLE=%s", bundle) : NULL;
    char **envp = spawn_environment(bundle_entry);
    int fds[2] = { -1, -1 };
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct sandboxed *inside = NULL;
    pid_t pid = 0;
    int err;

    if (null_fd < 0 || pipe2(fds, O_CLOEXEC) != 0)
        err = errno;
    else
        err = start_describe(bundle, sandbox,
                             &(struct spawn_args){ .paths = paths,
                                                   .argv = argv,
                                                   .envp = envp,
                                                   .dir = dir,
                                                   .in = null_fd,
                                                   .out = fds[1],
                                                   .err = null_fd },
                             &pid, &inside);
    if (fds[1] >= 0)
        close(fds[1]);
    if (err == 0) {
        int exit_err;

        err = read_bounded(fds[0], out, deadline_ns);
        exit_err = await_exit(pid, err ? 0 : deadline_ns, ret_status);
        err = err ? err : exit_err;
        exit_err = end_describe(inside, ret_status);
        err = err ? err : exit_err;
    }
    if (fds[0] >= 0)
        close(fds[0]);
    if (null_fd >= 0)
        close(null_fd);
    cox_free(bundle_entry);
    cox_free(envp);
    return err;
}

/* ---------------------------------------------------------------- reading what it says */

struct description {
    struct cox_slice text; /* the object */
    struct cox_buf *why;
};

static bool fail(struct description *d, const char *field, const char *expected)
{
    cox_buf_printf(d->why, "--describe: %s: expected %s", field, expected);
    return false;
}

/* True, and "" when it is not there. */
static bool read_text(struct description *d, const char *field, size_t len_max, char **ret)
{
    struct cox_slice value;
    struct cox_buf text = { 0 };
    bool ok = true;

    if (cox_json_member(d->text, field, &value) && cox_json_kind(value) != COX_JSON_NULL) {
        ok = cox_json_kind(value) == COX_JSON_STRING;
        if (ok)
            cox_json_unquote(&text, value);
        ok = ok && text.len <= len_max && !memchr(text.data ? (void *)text.data : "", 0, text.len);
    }
    if (!ok)
        fail(d, field, "a short text");
    *ret = cox_strndup(text.len > 0 ? (const char *)text.data : "", text.len);
    cox_buf_fini(&text);
    return ok;
}

static bool read_bool(struct description *d, const char *field, bool *ret_is, bool *ret_is_not)
{
    struct cox_slice value;

    *ret_is = *ret_is_not = false;
    if (!cox_json_member(d->text, field, &value) || cox_json_kind(value) == COX_JSON_NULL)
        return true;
    *ret_is = cox_slice_is(value, "true");
    *ret_is_not = !*ret_is;
    return cox_json_kind(value) == COX_JSON_BOOL || fail(d, field, "true or false");
}

static bool read_schema(struct description *d, const char *field, struct cox_buf *ret)
{
    struct cox_slice value;
    struct cox_buf what = { 0 };

    if (!cox_json_member(d->text, field, &value) || cox_json_kind(value) == COX_JSON_NULL)
        return true;
    cox_json_compact(ret, value);
    if (ret->len > SCHEMA_LEN_MAX)
        return fail(d, field, "at most 64 KiB");
    if (cox_schema_check(cox_buf_slice(ret), &what) == COX_OK)
        return true;
    cox_buf_printf(d->why, "--describe: %s: ", field);
    cox_buf_append_slice(d->why, cox_buf_slice(&what));
    cox_buf_fini(&what);
    return false;
}

static bool is_name(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_-");

    return n > 0 && s[n] == 0 && n <= COX_NAME_LEN_MAX && (s[0] == '_' || (s[0] >= 'a' && s[0] <= 'z'));
}

static bool is_version(const char *s)
{
    size_t n = strspn(s, "0123456789");

    return n > 0 && n <= 9 && (s[n] == 0 || s[n] == '.');
}

/* The function in it was named otherwise, most often. */
static bool fail_name(struct description *d, const char *expected, const char *found)
{
    cox_buf_printf(d->why, "--describe: name: expected the file's own name \"%s\", found \"%s\"", expected,
                   found);
    return false;
}

static bool read_names(struct description *d, struct program *p, const char *name, const char *major)
{
    if (!read_text(d, "name", COX_NAME_LEN_MAX, &p->name) ||
        !read_text(d, "version", VERSION_LEN_MAX, &p->version))
        return false;
    if (!p->name[0] && name) {
        cox_free(p->name);
        p->name = cox_strdup(name);
    }
    if (!is_name(p->name))
        return fail(d, "name", "a name of a-z, 0-9, _ and -");
    if (name && strcmp(name, p->name) != 0)
        return fail_name(d, name, p->name);
    if (!p->version[0]) {
        cox_free(p->version);
        p->version = cox_strdup(major && *major ? major : "1");
    }
    if (!is_version(p->version))
        return fail(d, "version", "numbers such as 1.4.2");
    int n = (int)strcspn(p->version, ".");
    if (major && *major && ((int)strlen(major) != n || strncmp(major, p->version, (size_t)n) != 0))
        return fail(d, "version", "the major version that the file's name has");
    p->handler = cox_asprintf("%s@%.*s", p->name, n, p->version);
    return true;
}

static bool read_description(struct description *d, struct program *p, const char *name, const char *major)
{
    struct cox_json_place place;
    bool is_not, once;

    if (cox_json_check(d->text, &place) != COX_OK) {
        cox_buf_printf(
            d->why, "--describe printed something else than one JSON object: line %u, column %u: expected %s",
            place.line, place.column, place.expected);
        return false;
    }
    if (cox_json_kind(d->text) != COX_JSON_OBJECT) {
        cox_buf_append_str(d->why, "--describe printed JSON that is not an object");
        return false;
    }
    if (!read_names(d, p, name, major) ||
        !read_text(d, "description", DESCRIPTION_LEN_MAX, &p->description) ||
        !read_schema(d, "input_schema", &p->input_schema) ||
        !read_schema(d, "output_schema", &p->output_schema) ||
        !read_bool(d, "idempotent", &p->idempotent, &is_not) || !read_bool(d, "serve", &p->serves, &once))
        return false;
    atomic_store(&p->once, once);
    return true;
}

/* ---------------------------------------------------------------- life */

static struct program *new_program(const char *path)
{
    struct program *p = COX_NEW(struct program);

    atomic_store(&p->n_refs, 1);
    p->path = cox_strdup(path);
    return p;
}

static void remember_file(struct program *p, const struct stat *st)
{
    p->dev = st->st_dev;
    p->ino = st->st_ino;
    p->mtime_ns = st->st_mtim.tv_sec * INT64_C(1000000000) + st->st_mtim.tv_nsec;
    p->size = st->st_size;
}

bool program_is_current(const struct program *p)
{
    struct program now = { 0 };
    struct stat st;

    if (stat(p->path, &st) != 0)
        return false;
    remember_file(&now, &st);
    return p->ino == 0 ||
           (now.dev == p->dev && now.ino == p->ino && now.mtime_ns == p->mtime_ns && now.size == p->size);
}

/* Not the program's fault, but the host's, now. */
static bool is_passing(int err)
{
    return err == EMFILE || err == ENFILE || err == ENOMEM || err == EAGAIN;
}

enum cox_err program_read(const char *path, struct cox_slice printed, const char *name, const char *major,
                          struct program **ret, struct cox_buf *why)
{
    struct program *p = new_program(path);
    struct description d = { .text = cox_json_trim(printed), .why = why };

    if (!read_description(&d, p, name, major)) {
        program_unref(p);
        return COX_ERR_INVALID;
    }
    *ret = p;
    return COX_OK;
}

enum cox_err program_describe(const char *path, const char *name, const char *major, const char *dir,
                              const char *bundle, struct sandbox *sandbox, struct program **ret,
                              struct cox_buf *why)
{
    struct cox_buf out = { 0 };
    struct stat st;
    int status = 0;
    int err = stat(path, &st) == 0 ? 0 : errno;
    enum cox_err result = COX_ERR_INVALID;

    if (err == 0)
        err = run_describe(path, dir, bundle, sandbox, &out, &status);
    if (err == ETIMEDOUT)
        cox_buf_printf(why, "--describe did not end within %d s", PROGRAM_DESCRIBE_LIMIT_MS / 1000);
    else if (err == EFBIG)
        cox_buf_printf(why, "--describe printed more than %u bytes", PROGRAM_DESCRIBE_LEN_MAX);
    else if (err)
        cox_buf_printf(why, "cannot run --describe: %s", strerror(err));
    else if (status != 0)
        cox_buf_printf(why, "--describe ended with %s %d; it says why: %s --describe",
                       WIFSIGNALED(status) ? "signal" : "exit code",
                       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), path);
    else
        result = program_read(path, cox_buf_slice(&out), name, major, ret, why);
    if (result == COX_OK)
        remember_file(*ret, &st);
    cox_buf_fini(&out);
    return is_passing(err) ? COX_ERR_IO : result;
}

struct program *program_built_in(const char *handler, const char *path, const char *arg)
{
    struct program *p = new_program(path);

    p->arg = cox_strdup(arg);
    p->name = cox_strdup(handler);
    p->version = cox_strdup("1");
    p->handler = cox_strdup(handler);
    p->description = cox_strdup("");
    p->serves = true;
    return p;
}

struct program *program_ref(struct program *p)
{
    atomic_fetch_add(&p->n_refs, 1);
    return p;
}

void program_unref(struct program *p)
{
    if (!p || atomic_fetch_sub(&p->n_refs, 1) != 1)
        return;
    cox_free(p->path);
    cox_free(p->arg);
    cox_free(p->name);
    cox_free(p->version);
    cox_free(p->handler);
    cox_free(p->description);
    cox_buf_fini(&p->input_schema);
    cox_buf_fini(&p->output_schema);
    cox_free(p);
}
