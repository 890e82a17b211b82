#include "catalogue.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/limits.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define SAID_LEN_MAX ((size_t)8 << 20)
#define QUIET_MS 100 /* a file is written in several steps: this long after the last one it is read */
#define CHANGES (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB | IN_CREATE)

struct catalogue {
    struct catalogue_config config;
    pthread_t thread;
    int inotify_fd; /* -1: changes are not seen */
    int wake_fd;
    atomic_bool stop;
    atomic_uint_fast64_t generation;
    pthread_mutex_t mutex; /* of what follows */
    struct program **items;
    size_t n;
};

/* ---------------------------------------------------------------- reading a directory */

struct scan {
    struct program **items;
    size_t n;
    size_t said_len; /* all of their descriptions: they travel in one message */
};

static bool has_handler(const struct scan *s, const char *handler)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->items[i]->handler, handler) == 0)
            return true;
    return false;
}

/* The program as it was described before, when its file is the same. */
static struct program *known(const struct catalogue *c, const char *path)
{
    for (size_t i = 0; i < c->n; i++)
        if (strcmp(c->items[i]->path, path) == 0 && program_is_current(c->items[i]))
            return program_ref(c->items[i]);
    return NULL;
}

static void complain(const char *path, const char *why)
{
    cox_log(COX_LOG_WARN, "left out a program", "path", path, "why", why, NULL);
}

static size_t said_len(const struct program *p)
{
    return p->input_schema.len + p->output_schema.len + strlen(p->description) + 256;
}

static void add_file(const struct catalogue *c, struct scan *s, const char *dir, const char *file)
{
    char *path = cox_asprintf("%s/%s", dir, file);
    char *name = cox_strdup(file);
    char *at = strchr(name, '@');
    struct cox_buf why = { 0 };
    struct program *p = NULL;
    struct stat st;

    if (at)
        *at++ = 0;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) || access(path, X_OK) != 0)
        goto out; /* a library or a README beside them */
    p = known(c, path);
    if (!p && program_describe(path, name, at ? at : "", dir, NULL, NULL, &p, &why) != COX_OK) {
        complain(path, cox_buf_cstr(&why));
        goto out;
    }
    if (has_handler(s, p->handler))
        complain(path, "another file gives the same name and major version");
    else if (s->n == COX_WORKER_HANDLERS_MAX / 2)
        complain(path, "too many programs");
    else if ((s->said_len += said_len(p)) > SAID_LEN_MAX)
        complain(path, "the programs' descriptions and schemas are longer than 8 MiB together");
    else {
        s->items = cox_realloc(s->items, s->n + 1, sizeof(*s->items));
        s->items[s->n++] = program_ref(p);
    }
out:
    program_unref(p);
    cox_buf_fini(&why);
    cox_free(name);
    cox_free(path);
}

static void add_dir(const struct catalogue *c, struct scan *s, const char *dir)
{
    struct dirent **entries;
    char *absolute = realpath(dir, NULL);
    int n = absolute ? scandir(absolute, &entries, NULL, alphasort) : -1;

    if (n < 0)
        cox_log(COX_LOG_WARN, "cannot read a handler directory", "path", dir, "error", strerror(errno), NULL);
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.')
            add_file(c, s, absolute, entries[i]->d_name);
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
    free(absolute);
}

static int by_handler(const void *a, const void *b)
{
    return strcmp((*(struct program *const *)a)->handler, (*(struct program *const *)b)->handler);
}

static void drop(struct program **items, size_t n)
{
    for (size_t i = 0; i < n; i++)
        program_unref(items[i]);
    cox_free(items);
}

/* True when the programs are other ones than before. */
static bool scan(struct catalogue *c)
{
    struct scan s = { 0 };
    struct program **old;
    size_t n_old;
    bool changed;

    for (size_t i = 0; i < c->config.n_dirs; i++)
        add_dir(c, &s, c->config.dirs[i]);
    if (s.n > 0)
        qsort(s.items, s.n, sizeof(*s.items), by_handler);
    changed = s.n != c->n || (s.n > 0 && memcmp(s.items, c->items, s.n * sizeof(*s.items)) != 0);
    pthread_mutex_lock(&c->mutex);
    old = c->items;
    n_old = c->n;
    c->items = s.items;
    c->n = s.n;
    atomic_fetch_add(&c->generation, changed);
    pthread_mutex_unlock(&c->mutex);
    drop(old, n_old);
    return changed;
}

/* ---------------------------------------------------------------- the thread */

static void watch_dirs(struct catalogue *c)
{
    c->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    for (size_t i = 0; c->inotify_fd >= 0 && i < c->config.n_dirs; i++)
        if (inotify_add_watch(c->inotify_fd, c->config.dirs[i], CHANGES | IN_ONLYDIR) < 0)
            cox_log(COX_LOG_WARN, "changes in a handler directory need SIGHUP", "path", c->config.dirs[i],
                    "error", strerror(errno), NULL);
}

static void empty(int fd)
{
    char bytes[4096];

    while (read(fd, bytes, sizeof(bytes)) > 0)
        ;
}

static void *catalogue_main(void *arg)
{
    struct catalogue *c = arg;
    bool dirty = false;

    while (!atomic_load(&c->stop)) {
        struct pollfd p[] = { { .fd = c->wake_fd, .events = POLLIN },
                              { .fd = c->inotify_fd, .events = POLLIN } };
        int n = poll(p, 2, dirty ? QUIET_MS : -1);

        if (n > 0) {
            if (p[0].revents)
                empty(c->wake_fd);
            if (p[1].revents)
                empty(c->inotify_fd);
            dirty = true;
        } else if (n == 0 && dirty) {
            dirty = false;
            if (scan(c) && c->config.on_changed)
                c->config.on_changed(c->config.user);
        }
    }
    return NULL;
}

static void wake(struct catalogue *c)
{
    uint64_t one = 1;

    (void)!write(c->wake_fd, &one, sizeof(one));
}

struct catalogue *catalogue_create(const struct catalogue_config *config)
{
    struct catalogue *c = COX_NEW(struct catalogue);

    c->config = *config;
    pthread_mutex_init(&c->mutex, NULL);
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    COX_ASSERT(c->wake_fd >= 0);
    watch_dirs(c); /* before reading: what changes meanwhile is read again */
    scan(c);
    COX_ASSERT(pthread_create(&c->thread, NULL, catalogue_main, c) == 0);
    return c;
}

void catalogue_destroy(struct catalogue *c)
{
    if (!c)
        return;
    atomic_store(&c->stop, true);
    wake(c);
    pthread_join(c->thread, NULL);
    drop(c->items, c->n);
    if (c->inotify_fd >= 0)
        close(c->inotify_fd);
    close(c->wake_fd);
    pthread_mutex_destroy(&c->mutex);
    cox_free(c);
}

void catalogue_reload(struct catalogue *c)
{
    wake(c);
}

uint64_t catalogue_generation(const struct catalogue *c)
{
    return atomic_load(&c->generation);
}

/* ---------------------------------------------------------------- looking up */

struct program *catalogue_find(struct catalogue *c, struct cox_slice handler)
{
    struct program *found = NULL;
    long best = -1;

    pthread_mutex_lock(&c->mutex);
    for (size_t i = 0; i < c->n; i++) {
        struct program *p = c->items[i];
        long major = strtol(p->version, NULL, 10);

        if (cox_slice_is(handler, p->handler) || (cox_slice_is(handler, p->name) && major > best)) {
            found = p;
            best = major;
        }
    }
    if (found)
        program_ref(found);
    pthread_mutex_unlock(&c->mutex);
    return found;
}

struct catalogue_view *catalogue_view(struct catalogue *c)
{
    struct catalogue_view *view = COX_NEW(struct catalogue_view);

    pthread_mutex_lock(&c->mutex);
    view->generation = atomic_load(&c->generation);
    view->items = cox_calloc(c->n, sizeof(struct program *));
    for (; view->n < c->n; view->n++)
        view->items[view->n] = program_ref(c->items[view->n]);
    pthread_mutex_unlock(&c->mutex);
    return view;
}

void catalogue_view_free(struct catalogue_view *view)
{
    if (!view)
        return;
    drop(view->items, view->n);
    cox_free(view);
}
