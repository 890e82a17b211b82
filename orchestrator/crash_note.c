#include "crash_note.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"
#include "cox/base/map.h"
#include "cox/base/plant.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAGIC 0x4e726f78u /* "xorN" */
#define VERSION 1u
#define STACK_LEN (64u << 10) /* of the handler: the thread's own may be what overflowed */

/* The file. It is read where it was written, so in this machine's byte order. */
struct noted {
    uint32_t magic, version;
    uint32_t unfinished;
    uint32_t signal;
    struct cox_place at;   /* of the recovery under way; NONE: not written down */
    struct cox_place last; /* where the ones before crashed, */
    uint32_t n;            /* so many running */
    uint32_t n_quarantined;
    uint64_t hash; /* of what is before it */
};

static const int fatal[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };
#define N_FATAL (sizeof(fatal) / sizeof(fatal[0]))

struct cox_crash_note {
    int fd; /* -1: nothing is noted */
    struct noted noted;
    bool each; /* every place is written down before recovery goes there */
    pthread_t thread;
    bool caught[N_FATAL];
    void *stack;
};

static struct cox_crash_note *recovering; /* for the handler */

static bool same_place(const struct cox_place *a, const struct cox_place *b)
{
    if (COX_PLANTED("crashes-anywhere-count"))
        return true;
    return a->phase == b->phase && a->kind == b->kind && a->at == b->at && a->sub == b->sub &&
           a->root == b->root;
}

/* Safe in a handler. */
static bool write_down(struct cox_crash_note *note)
{
    note->noted.hash = cox_hash64(&note->noted, offsetof(struct noted, hash));
    return pwrite(note->fd, &note->noted, sizeof(note->noted), 0) == (ssize_t)sizeof(note->noted);
}

/* ---- what was noted ---- */

static bool read_noted(int fd, struct noted *ret)
{
    return pread(fd, ret, sizeof(*ret), 0) == (ssize_t)sizeof(*ret) && ret->magic == MAGIC &&
           ret->version == VERSION && ret->hash == cox_hash64(ret, offsetof(struct noted, hash));
}

/* One that left no place says nothing against the place of those before it. */
static void count_crash(struct noted *noted)
{
    if (noted->unfinished == 0 || noted->at.phase == COX_PLACE_NONE)
        return;
    noted->n = same_place(&noted->at, &noted->last) ? noted->n + 1 : 1;
    noted->last = noted->at;
}

struct cox_crash_note *cox_crash_note_open(const char *dir, struct cox_crashes *ret)
{
    struct cox_crash_note *note = COX_NEW(struct cox_crash_note);

    *ret = (struct cox_crashes){ 0 };
    note->fd = -1;
    if (!dir)
        return note;
    char *path = cox_asprintf("%s/recovery", dir);

    note->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (note->fd < 0)
        cox_log(COX_LOG_WARN, "a crash of recovery would not be noted", "file", path, "why", strerror(errno),
                NULL);
    cox_free(path);
    if (note->fd < 0)
        return note;
    if (!read_noted(note->fd, &note->noted))
        memset(&note->noted, 0, sizeof(note->noted));
    note->noted.magic = MAGIC;
    note->noted.version = VERSION;
    count_crash(&note->noted);
    *ret = (struct cox_crashes){
        .unfinished = note->noted.unfinished != 0,
        .signal = (int)note->noted.signal,
        .place = note->noted.at,
        .n = note->noted.n,
        .n_quarantined = note->noted.n_quarantined,
    };
    note->each = ret->unfinished;
    return note;
}

void cox_crash_note_quarantined(struct cox_crash_note *note)
{
    note->noted.n = 0;
    memset(&note->noted.at, 0, sizeof(note->noted.at));
    memset(&note->noted.last, 0, sizeof(note->noted.last));
    note->noted.n_quarantined++;
    if (note->fd >= 0)
        (void)write_down(note);
}

/* ---- recovery ---- */

/* Another thread's crash says nothing of the place. */
static void on_fatal_signal(int signal)
{
    struct cox_crash_note *note = recovering;

    if (!note || !pthread_equal(pthread_self(), note->thread))
        return;
    recovering = NULL;
    note->noted.signal = (uint32_t)signal;
    (void)write_down(note);
    (void)raise(signal); /* held back until we return */
}

/* Not where a sanitizer or a debugger's runtime has a handler of its own. */
static void catch_signals(struct cox_crash_note *note)
{
    struct sigaction action = { .sa_flags = (int)(SA_ONSTACK | SA_RESETHAND) }, old;
    stack_t stack = { .ss_size = STACK_LEN }, old_stack;

    if (sigaltstack(NULL, &old_stack) == 0 && old_stack.ss_flags & SS_DISABLE) {
        stack.ss_sp = note->stack = cox_alloc(STACK_LEN);
        (void)sigaltstack(&stack, NULL);
    }
    action.sa_handler = on_fatal_signal;
    for (size_t i = 0; i < N_FATAL; i++)
        note->caught[i] = sigaction(fatal[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL &&
                          sigaction(fatal[i], &action, NULL) == 0;
}

static void release_signals(struct cox_crash_note *note)
{
    const stack_t none = { .ss_flags = SS_DISABLE };

    for (size_t i = 0; i < N_FATAL; i++)
        if (note->caught[i])
            (void)signal(fatal[i], SIG_DFL);
    memset(note->caught, 0, sizeof(note->caught));
    if (note->stack)
        (void)sigaltstack(&none, NULL);
    cox_free(note->stack);
    note->stack = NULL;
}

void cox_crash_note_begin(struct cox_crash_note *note)
{
    if (note->fd < 0)
        return;
    note->noted.unfinished = 1;
    note->noted.signal = 0;
    memset(&note->noted.at, 0, sizeof(note->noted.at));
    if (!write_down(note)) {
        cox_log(COX_LOG_WARN, "a crash of recovery would not be noted", "why", strerror(errno), NULL);
        return;
    }
    note->thread = pthread_self();
    recovering = note;
    catch_signals(note);
}

void cox_crash_note_at(void *user, const struct cox_place *place)
{
    struct cox_crash_note *note = user;

    struct cox_place *at = &note->noted.at; /* field by field: what is between them stays zero on disk */

    at->phase = place->phase;
    at->kind = place->kind;
    at->sub = place->sub;
    at->at = place->at;
    at->root = place->root;
    if (note->each && recovering)
        (void)write_down(note);
    __atomic_signal_fence(__ATOMIC_SEQ_CST); /* before what may crash, for the handler's eyes */
}

void cox_crash_note_end(struct cox_crash_note *note, enum cox_recovery_end end)
{
    if (note->fd < 0)
        return;
    recovering = NULL;
    release_signals(note);
    note->noted.unfinished = end == COX_RECOVERY_REFUSED && note->noted.at.phase != COX_PLACE_NONE;
    if (end == COX_RECOVERY_DONE) {
        note->noted.n = note->noted.n_quarantined = 0;
        memset(&note->noted.last, 0, sizeof(note->noted.last));
    }
    (void)write_down(note);
}

void cox_crash_note_close(struct cox_crash_note *note)
{
    if (!note)
        return;
    if (note->fd >= 0)
        (void)close(note->fd);
    cox_free(note);
}
