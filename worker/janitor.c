#include "janitor.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/base/list.h"
#include "cox/base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAITING_MAX 256

struct chore {
    struct cox_list link;
    char *path;
};

struct janitor {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct cox_list chores;
    int n_chores;
    bool closing;
};

/* ---------------------------------------------------------------- removing */

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static DIR *open_dir_at(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d;

    if (fd < 0 && errno == EACCES && fchmodat(at, name, 0700, 0) == 0)
        fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    d = fdopendir(fd);
    if (!d)
        close(fd);
    return d;
}

/* Moves a directory up to `top`; false when it cannot be moved. */
static bool move_up(int from, const char *name, int top, unsigned *n_names)
{
    char moved[32];

    do
        snprintf(moved, sizeof(moved), ".moved-%u", (*n_names)++);
    while (faccessat(top, moved, F_OK, AT_SYMLINK_NOFOLLOW) == 0);
    if (renameat(from, name, top, moved) == 0)
        return true;
    return errno == EACCES && fchmodat(from, name, 0700, 0) == 0 && renameat(from, name, top, moved) == 0;
}

/* Empties the directory `name` of `top`, moving the directories that it holds, unless empty, up to `top`:
 * so the tree gets flat instead of the stack getting deep. True when anything of it went. */
static bool empty_dir(int top, const char *name, unsigned *n_names)
{
    DIR *d = open_dir_at(top, name);
    struct dirent *e;
    bool progress = false;

    if (!d)
        return false;
    fchmod(dirfd(d), 0700);
    while ((e = readdir(d)) != NULL)
        if (!is_dot(e->d_name))
            progress |= unlinkat(dirfd(d), e->d_name, 0) == 0 ||
                        unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR) == 0 ||
                        move_up(dirfd(d), e->d_name, top, n_names);
    closedir(d);
    return progress;
}

/* One pass over `path`; true when it removed or moved anything, so that another may be of use. */
static bool sweep(const char *path, unsigned *n_names)
{
    DIR *d = open_dir_at(AT_FDCWD, path);
    struct dirent *e;
    bool progress = false;

    if (!d)
        return false;
    fchmod(dirfd(d), 0700);
    while ((e = readdir(d)) != NULL) {
        if (is_dot(e->d_name))
            continue;
        if (unlinkat(dirfd(d), e->d_name, 0) == 0) {
            progress = true;
            continue;
        }
        progress |= empty_dir(dirfd(d), e->d_name, n_names);
        progress |= unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR) == 0;
    }
    closedir(d);
    return progress;
}

void janitor_remove_now(const char *path)
{
    unsigned n_names = 0;

    while (rmdir(path) != 0 && (errno == ENOTEMPTY || errno == EEXIST))
        if (!sweep(path, &n_names)) {
            cox_log(COX_LOG_WARN, "cannot remove all of a directory: something in it is somebody else's",
                    "path", path, NULL);
            return;
        }
}

/* ---------------------------------------------------------------- the thread */

static void *janitor_main(void *arg)
{
    struct janitor *j = arg;

    pthread_mutex_lock(&j->mutex);
    while (!j->closing || !cox_list_empty(&j->chores)) {
        struct chore *c;

        if (cox_list_empty(&j->chores)) {
            pthread_cond_wait(&j->changed, &j->mutex);
            continue;
        }
        c = COX_CONTAINER_OF(j->chores.next, struct chore, link);
        cox_list_remove(&c->link);
        pthread_mutex_unlock(&j->mutex);
        janitor_remove_now(c->path);
        cox_free(c->path);
        cox_free(c);
        pthread_mutex_lock(&j->mutex);
        j->n_chores--;
    }
    pthread_mutex_unlock(&j->mutex);
    return NULL;
}

struct janitor *janitor_create(void)
{
    struct janitor *j = COX_NEW(struct janitor);

    cox_list_init(&j->chores);
    pthread_mutex_init(&j->mutex, NULL);
    pthread_cond_init(&j->changed, NULL);
    COX_ASSERT(pthread_create(&j->thread, NULL, janitor_main, j) == 0);
    return j;
}

void janitor_destroy(struct janitor *j)
{
    if (!j)
        return;
    pthread_mutex_lock(&j->mutex);
    j->closing = true;
    pthread_cond_signal(&j->changed);
    pthread_mutex_unlock(&j->mutex);
    pthread_join(j->thread, NULL);
    pthread_cond_destroy(&j->changed);
    pthread_mutex_destroy(&j->mutex);
    cox_free(j);
}

void janitor_remove(struct janitor *j, const char *path)
{
    bool taken = false;

    if (rmdir(path) == 0 || errno == ENOENT)
        return;
    pthread_mutex_lock(&j->mutex);
    if (j->n_chores < WAITING_MAX) {
        struct chore *c = COX_NEW(struct chore);

        c->path = cox_strdup(path);
        cox_list_push_back(&j->chores, &c->link);
        j->n_chores++;
        taken = true;
        pthread_cond_signal(&j->changed);
    }
    pthread_mutex_unlock(&j->mutex);
    if (!taken)
        janitor_remove_now(path);
}
