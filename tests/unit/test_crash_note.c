/* Recoveries that die in many ways, each in a process of its own, and what the next start reads of it. */
#include "crash_note.h"

#include "check.h"

#include "cox/base/alloc.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_RECORDS 10

enum death {
    FINISHED,
    GAVE_UP, /* the disk, say */
    REFUSED,
    ABORTED,
    SEGFAULT,
    OVERFLOWED, /* the stack */
    NO_MEMORY,
    KILLED,
    OTHER_THREAD
};

struct fixture {
    char dir[32];
    struct cox_crashes found; /* by the last start */
};

static int setup(void **state)
{
    struct fixture *f = COX_NEW(struct fixture);

    snprintf(f->dir, sizeof(f->dir), "/tmp/cox-test-note-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    *state = f;
    return 0;
}

static char *path_of(const struct fixture *f)
{
    return cox_asprintf("%s/recovery", f->dir);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char *path = path_of(f);

    (void)unlink(path);
    assert_int_equal(rmdir(f->dir), 0);
    cox_free(path);
    cox_free(f);
    return 0;
}

static struct cox_place record(uint64_t seq)
{
    return (struct cox_place){ .phase = COX_PLACE_REPLAY, .kind = 3, .at = seq, .root = 100 + seq };
}

/* The compiler is not to know that this never returns. */
static int overflow(volatile int *depth)
{
    volatile char room[4096];

    room[*depth % 4096] = 1;
    ++*depth;
    return *depth > 0 ? overflow(depth) + room[0] : 0;
}

static void *crash(void *arg)
{
    (void)arg;
    abort();
}

static void die(enum death how)
{
    volatile int depth = 0;
    pthread_t thread;

    switch (how) {
    case ABORTED:
        abort();
    case SEGFAULT:
        raise(SIGSEGV);
        break;
    case OVERFLOWED:
        (void)overflow(&depth);
        break;
    case NO_MEMORY:
        cox_free(cox_alloc(SIZE_MAX / 2));
        break;
    case KILLED:
        raise(SIGKILL);
        break;
    case OTHER_THREAD:
        assert_int_equal(pthread_create(&thread, NULL, crash, NULL), 0);
        (void)pthread_join(thread, NULL);
        break;
    case FINISHED:
    case GAVE_UP:
    case REFUSED:
        break;
    }
}

static void recover(struct fixture *f, enum death how, uint64_t at, bool deal)
{
    struct cox_crashes found;
    struct cox_crash_note *note = cox_crash_note_open(f->dir, &found);

    if (deal)
        cox_crash_note_quarantined(note);
    cox_crash_note_begin(note);
    for (uint64_t seq = 1; seq <= N_RECORDS; seq++) {
        const struct cox_place place = record(seq);

        cox_crash_note_at(note, &place);
        if (seq == at)
            die(how);
        if ((how == GAVE_UP || how == REFUSED) && seq == at)
            break;
    }
    cox_crash_note_end(note, how == FINISHED  ? COX_RECOVERY_DONE
                             : how == REFUSED ? COX_RECOVERY_REFUSED
                                              : COX_RECOVERY_FAILED);
    cox_crash_note_close(note);
}

/* A recovery that dies so at this record; then what the next start finds. */
static const struct cox_crashes *after(struct fixture *f, enum death how, uint64_t at, bool deal)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        static const int caught[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT }; /* by cmocka */
        const struct rlimit none = { 0, 0 };

        for (size_t i = 0; i < ARRAY_LEN(caught); i++)
            (void)signal(caught[i], SIG_DFL);

        (void)setrlimit(RLIMIT_CORE, &none);
        (void)!freopen("/dev/null", "w", stderr);
        recover(f, how, at, deal);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WIFEXITED(status) && WEXITSTATUS(status) == 0, how <= REFUSED);
    cox_crash_note_close(cox_crash_note_open(f->dir, &f->found));
    return &f->found;
}

static void assert_place(const struct cox_crashes *c, uint64_t at, uint32_t n)
{
    const struct cox_place want = record(at);

    assert_true(c->unfinished);
    assert_int_equal(c->place.phase, want.phase);
    assert_int_equal(c->place.kind, want.kind);
    assert_int_equal(c->place.at, want.at);
    assert_int_equal(c->place.root, want.root);
    assert_int_equal(c->n, n);
}

static void test_nothing_is_known_at_first(void **state)
{
    struct fixture *f = *state;
    struct cox_crashes found;

    cox_crash_note_close(cox_crash_note_open(f->dir, &found));
    assert_false(found.unfinished);
    cox_crash_note_close(cox_crash_note_open(NULL, &found));
    assert_false(found.unfinished);
}

static void test_three_crashes_at_one_place(void **state)
{
    static const struct {
        enum death how;
        int signal;
    } ways[] = { { ABORTED, SIGABRT }, { SEGFAULT, SIGSEGV }, { OVERFLOWED, SIGSEGV } };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        for (uint32_t n = 1; n <= 3; n++) {
            assert_place(after(f, ways[i].how, 4, false), 4, n);
            assert_int_equal(f->found.signal, ways[i].signal);
        }
        assert_false(after(f, FINISHED, 0, false)->unfinished);
    }
}

static void test_only_the_same_place_counts(void **state)
{
    struct fixture *f = *state;

    assert_place(after(f, ABORTED, 4, false), 4, 1);
    assert_place(after(f, ABORTED, 4, false), 4, 2);
    assert_place(after(f, ABORTED, 5, false), 5, 1);
    assert_place(after(f, ABORTED, 4, false), 4, 1);
}

static void test_the_end_of_a_recovery_ends_the_count(void **state)
{
    struct fixture *f = *state;

    after(f, ABORTED, 4, false);
    after(f, ABORTED, 4, false);
    after(f, FINISHED, 0, false);
    assert_place(after(f, ABORTED, 4, false), 4, 1);
    assert_false(after(f, GAVE_UP, 2, false)->unfinished); /* an error of its own is no crash, and no end */
    assert_place(after(f, ABORTED, 4, false), 4, 2);
}

/* Who is killed has no last word: the first time nothing is known, from then on each place is. */
static void test_those_that_are_killed(void **state)
{
    static const enum death ways[] = { KILLED, NO_MEMORY };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        assert_true(after(f, ways[i], 6, false)->unfinished);
        assert_int_equal(f->found.place.phase, COX_PLACE_NONE);
        for (uint32_t n = 1; n <= 3; n++) {
            assert_place(after(f, ways[i], 6, false), 6, n);
            assert_int_equal(f->found.signal, 0);
        }
        after(f, FINISHED, 0, false);
    }
}

static void test_what_is_refused_counts_as_well(void **state)
{
    struct fixture *f = *state;

    assert_place(after(f, REFUSED, 6, false), 6, 1);
    assert_int_equal(f->found.signal, 0);
    assert_place(after(f, ABORTED, 6, false), 6, 2);
    assert_place(after(f, REFUSED, 6, false), 6, 3);
}

/* And it says nothing against what the others said. */
static void test_a_kill_between_two_crashes(void **state)
{
    struct fixture *f = *state;

    after(f, ABORTED, 4, false);
    after(f, FINISHED, 0, false);
    after(f, KILLED, 2, false);
    assert_place(after(f, ABORTED, 4, false), 4, 1);
    assert_place(after(f, ABORTED, 4, false), 4, 2);
}

static void test_a_crash_of_another_thread_has_no_place(void **state)
{
    struct fixture *f = *state;

    assert_true(after(f, OTHER_THREAD, 4, false)->unfinished);
    assert_int_equal(f->found.place.phase, COX_PLACE_NONE);
}

static void test_what_was_dealt_with_is_counted_anew(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 3; i++)
        after(f, ABORTED, 4, false);
    assert_place(after(f, ABORTED, 4, true), 4, 1);
    assert_int_equal(f->found.n_quarantined, 1);
    assert_place(after(f, ABORTED, 4, true), 4, 1);
    assert_int_equal(f->found.n_quarantined, 2);
    after(f, FINISHED, 0, false);
    assert_int_equal(f->found.n_quarantined, 0);
}

/* The task would be taken for one that crashes even when it is left alone. */
static void test_a_death_right_after_a_quarantine_is_not_counted_again(void **state)
{
    struct fixture *f = *state;
    struct cox_crash_note *note;
    struct cox_crashes found;

    for (int n = 0; n < 3; n++)
        after(f, ABORTED, 4, false);
    note = cox_crash_note_open(f->dir, &found);
    assert_place(&found, 4, 3);
    cox_crash_note_quarantined(note);
    cox_crash_note_close(note);
    cox_crash_note_close(cox_crash_note_open(f->dir, &found));
    assert_int_equal(found.n, 0);
    assert_int_equal(found.n_quarantined, 1);
    assert_int_equal(found.place.phase, COX_PLACE_NONE);
}

static void test_a_damaged_note_is_none(void **state)
{
    struct fixture *f = *state;
    struct cox_crashes found;
    char *path = path_of(f);

    after(f, ABORTED, 4, false);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "x", 1, 40), 1);
    close(fd);
    cox_free(path);
    cox_crash_note_close(cox_crash_note_open(f->dir, &found));
    assert_false(found.unfinished);
    assert_place(after(f, ABORTED, 4, false), 4, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_is_known_at_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_three_crashes_at_one_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_the_same_place_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_end_of_a_recovery_ends_the_count, setup, teardown),
        cmocka_unit_test_setup_teardown(test_those_that_are_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_refused_counts_as_well, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_kill_between_two_crashes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_crash_of_another_thread_has_no_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_dealt_with_is_counted_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_death_right_after_a_quarantine_is_not_counted_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_note_is_none, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
