/* An orchestrator and workers of one's own: fresh data, free ports, gone at the end. */
#include "bench.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/json.h"

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define START_LIMIT_MS 20000
#define TICK_MS 100

/* ---- the folder ---- */

static const char *filesystem_of(const char *path)
{
    static const struct {
        long magic;
        const char *name;
    } known[] = { { 0xEF53, "ext4" },      { 0x58465342, "xfs" },     { 0x9123683E, "btrfs" },
                  { 0x01021994, "tmpfs" }, { 0x794C7630, "overlay" }, { 0x6969, "nfs" },
                  { 0x2FC12FC1, "zfs" } };
    struct statfs fs;

    if (statfs(path, &fs) != 0)
        return "unknown";
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        if (known[i].magic == fs.f_type)
            return known[i].name;
    }
    return "other";
}

/* /var/tmp by default: /tmp is often in memory, and a commit that syncs nothing would flatter us. */
static enum cox_err make_folder(struct cluster *c, const struct settings *s)
{
    const char *parent = s->data_dir ? s->data_dir : getenv("TMPDIR");

    if (s->data_dir && mkdir(s->data_dir, 0755) != 0 && errno != EEXIST) {
        complain("--data-dir %s: %s", s->data_dir, strerror(errno));
        return COX_ERR_IO;
    }
    c->folder = cox_asprintf("%s/cox-bench.XXXXXX", parent ? parent : "/var/tmp");
    if (!mkdtemp(c->folder)) {
        complain("%s: %s", c->folder, strerror(errno));
        cox_free(c->folder);
        c->folder = NULL;
        return COX_ERR_IO;
    }
    c->filesystem = cox_strdup(filesystem_of(c->folder));
    return COX_OK;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static void remove_folder(struct cluster *c)
{
    if (c->folder)
        nftw(c->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- the ready file ---- */

static bool read_ready(const char *path, char **ret_address)
{
    struct cox_buf text = { 0 }, address = { 0 };
    struct cox_slice value;
    FILE *in = fopen(path, "rb");

    if (!in)
        return false;
    text.len = fread(cox_buf_extend(&text, 4096), 1, 4096, in);
    fclose(in);
    bool found = cox_json_check(cox_buf_slice(&text), NULL) == COX_OK &&
                 cox_json_member(cox_buf_slice(&text), "grpc", &value) &&
                 cox_json_kind(value) == COX_JSON_STRING;

    if (found) {
        cox_json_unquote(&address, value);
        *ret_address = cox_strdup(cox_buf_cstr(&address));
    }
    cox_buf_fini(&text);
    cox_buf_fini(&address);
    return found;
}

static enum cox_err await_ready(struct cluster *c, const char *path)
{
    int64_t deadline_ns = cox_clock_mono_ns() + START_LIMIT_MS * INT64_C(1000000);
    int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    struct pollfd fd = { .fd = watch, .events = POLLIN };
    enum cox_err err = COX_OK;
    char events[4096];

    if (watch < 0 || inotify_add_watch(watch, c->folder, IN_CLOSE_WRITE | IN_MOVED_TO) < 0)
        err = COX_ERR_IO;
    while (!err && !read_ready(path, &c->address)) {
        if (!process_alive(&c->coxd) || cox_clock_mono_ns() >= deadline_ns)
            err = COX_ERR_UNAVAILABLE;
        else if (poll(&fd, 1, TICK_MS) > 0 && read(watch, events, sizeof(events)) < 0)
            err = COX_ERR_IO;
    }
    if (watch >= 0)
        close(watch);
    if (err)
        complain("coxd does not serve");
    return err;
}

const struct cox_tls_files *tls_files_in(const char *dir, const char *name)
{
    static char cert[4096], key[4096], ca[4096];
    static const struct cox_tls_files files = { cert, key, ca };

    if (!dir)
        return NULL;
    snprintf(cert, sizeof(cert), "%s/%s.crt", dir, name);
    snprintf(key, sizeof(key), "%s/%s.key", dir, name);
    snprintf(ca, sizeof(ca), "%s/ca.crt", dir);
    return &files;
}

/* ---- processes ---- */

char *program_path(const char *name)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    COX_ASSERT(n > 0);
    self[n] = '\0';
    return cox_asprintf("%.*s/%s", (int)(strrchr(self, '/') - self), self, name);
}

static enum cox_err start_coxd(struct cluster *c, const struct settings *s)
{
    char *program = program_path("coxd");
    char *data = cox_asprintf("%s/data", c->folder);
    char *ready = cox_asprintf("%s/ready", c->folder);
    char store[16];

    snprintf(store, sizeof(store), "%s", s->store);
    const struct cox_tls_files *tls = tls_files_in(s->tls_dir, "server");
    char *argv[] = { program,
                     "--data-dir",
                     data,
                     "--store",
                     store,
                     "--grpc",
                     "127.0.0.1:0",
                     "--http",
                     "off",
                     "--ready-file",
                     ready,
                     "--log-level",
                     "warn",
                     tls ? "--tls-cert" : NULL,
                     (char *)(uintptr_t)(tls ? tls->cert : NULL),
                     "--tls-key",
                     (char *)(uintptr_t)(tls ? tls->key : NULL),
                     "--tls-ca",
                     (char *)(uintptr_t)(tls ? tls->ca : NULL),
                     NULL };
    enum cox_err err = process_start(&c->coxd, argv);

    if (!err)
        err = await_ready(c, ready);
    cox_free(program);
    cox_free(data);
    cox_free(ready);
    return err;
}

static enum cox_err start_worker(struct cluster *c, const struct settings *s, uint32_t result_len)
{
    char id[64], slots[16], len[16];
    char program[] = "/proc/self/exe";

    snprintf(id, sizeof(id), "%s%" PRIu32, c->id_prefix, c->n_workers + 1);
    snprintf(slots, sizeof(slots), "%" PRIu32, s->slots);
    snprintf(len, sizeof(len), "%" PRIu32, result_len);
    char *argv[] = { program,
                     "worker",
                     "--orchestrator",
                     c->address,
                     "--id",
                     id,
                     "--slots",
                     slots,
                     "--result-len",
                     len,
                     s->tls_dir ? "--tls" : NULL,
                     (char *)(uintptr_t)s->tls_dir,
                     NULL };

    return process_start(&c->workers[c->n_workers++], argv);
}

enum cox_err cluster_start(struct cluster *c, const struct settings *s, uint32_t result_len)
{
    enum cox_err err = COX_OK;

    *c = (struct cluster){ .id_prefix = cox_asprintf("bench-%ld-", (long)getpid()) };
    if (s->address) {
        c->address = cox_strdup(s->address);
    } else {
        err = make_folder(c, s);
        if (!err)
            err = start_coxd(c, s);
    }
    while (!err && c->n_workers < s->workers)
        err = start_worker(c, s, result_len);
    return err;
}

bool cluster_stop(struct cluster *c)
{
    bool well = true;

    for (uint32_t i = 0; i < c->n_workers; i++)
        process_ask(&c->workers[i]);
    for (uint32_t i = 0; i < c->n_workers; i++) {
        if (!process_stop(&c->workers[i])) {
            complain("worker %" PRIu32 " did not end well", i + 1);
            well = false;
        }
    }
    if (!process_stop(&c->coxd)) {
        complain("coxd did not end well");
        well = false;
    }
    remove_folder(c);
    cox_free(c->id_prefix);
    cox_free(c->address);
    cox_free(c->folder);
    cox_free(c->filesystem);
    return well;
}

struct cpu cluster_cpu(const struct cluster *c)
{
    struct cpu cpu = { .coxd_ns = process_cpu_ns(c->coxd.pid), .client_ns = process_cpu_ns(getpid()) };

    for (uint32_t i = 0; i < c->n_workers; i++)
        cpu.workers_ns += process_cpu_ns(c->workers[i].pid);
    return cpu;
}

struct room cluster_room_begin(const struct cluster *c)
{
    process_peak_reset(c->coxd.pid);
    return (struct room){ process_peak_len(c->coxd.pid), process_written_len(c->coxd.pid) };
}

struct room cluster_room_since(const struct cluster *c, struct room before)
{
    return (struct room){ process_peak_len(c->coxd.pid) - before.peak_len,
                          process_written_len(c->coxd.pid) - before.written_len };
}
