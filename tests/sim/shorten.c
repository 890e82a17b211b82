/* A smaller history that breaks the same invariant: fewer tasks, workers and steps, kinds left out, faults
 * that stop earlier. Each try is this program again, so that a crash or a failed assertion ends the try only;
 * it is given up as soon as it is no smaller than the best one found.
 *
 * A history in which one thing less happens takes another course from there on, and may miss what broke. So
 * what may be left out is tried with some courses of chance (`salt`), and small ones are looked for among
 * many in the end. */
#include "sim.h"

#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRIES_MAX 600
#define EVENTS_TRIED_MAX (UINT64_C(20) << 20) /* half a minute's worth */
#define SALTS 3
#define SALTS_LAST 24

struct search {
    char program[512];
    const char *invariant;
    struct cox_buf assertion; /* the line that names it; empty: none failed */
    struct options best;
    uint64_t events;
    uint32_t n_tried;
    uint64_t n_events_tried; /* at most so many */
};

/* ---- a try ---- */

static struct cox_slice line_with(struct cox_slice text, const char *word)
{
    const uint8_t *end = text.data + text.len;
    for (const uint8_t *at = text.data; at < end;) {
        const uint8_t *eol = memchr(at, '\n', (size_t)(end - at));
        size_t len = (size_t)((eol != NULL ? eol : end) - at);
        if (memmem(at, len, word, strlen(word)) != NULL)
            return cox_slice(at, len);
        at += len + 1;
    }
    return cox_slice(NULL, 0);
}

/* The words of a command line, cut apart in place. */
static void split(char *text, char **words, size_t max)
{
    size_t n = 0;
    char *at = NULL;
    for (char *w = strtok_r(text, " ", &at); w != NULL && n + 1 < max; w = strtok_r(NULL, " ", &at))
        words[n++] = w;
    words[n] = NULL;
}

static void read_all(int fd, struct cox_buf *out)
{
    char chunk[4096];
    for (ssize_t n = 1; n > 0;) {
        n = read(fd, chunk, sizeof chunk);
        if (n > 0)
            cox_buf_append(out, chunk, (size_t)n);
    }
    close(fd);
}

static void run_program(const struct search *q, const struct options *o, struct cox_buf *out)
{
    struct cox_buf line = { 0 };
    char *words[64];
    int ends[2];
    pid_t pid;
    posix_spawn_file_actions_t files;
    cox_buf_append_str(&line, "cox-sim --shorten off ");
    options_text(o, &line);
    if (q->events > 0)
        cox_buf_printf(&line, " --events-max %llu", (unsigned long long)q->events);
    cox_put_u8(&line, 0);
    split((char *)line.data, words, sizeof words / sizeof words[0]);
    if (pipe2(ends, O_CLOEXEC) == 0) {
        posix_spawn_file_actions_init(&files);
        posix_spawn_file_actions_adddup2(&files, ends[1], 1);
        posix_spawn_file_actions_adddup2(&files, ends[1], 2);
        bool runs = posix_spawn(&pid, q->program, &files, NULL, words, environ) == 0;
        posix_spawn_file_actions_destroy(&files);
        close(ends[1]);
        read_all(ends[0], out);
        if (runs)
            waitpid(pid, NULL, 0);
    }
    cox_buf_fini(&line);
}

/* How many events it took to break it; 0: it did not, or broke something else. */
static uint64_t breaks_same(struct search *q, const struct options *o)
{
    struct cox_buf out = { 0 };
    uint64_t events = 0;
    q->n_tried++;
    q->n_events_tried += q->events;
    run_program(q, o, &out);
    struct cox_slice json = line_with(cox_buf_slice(&out), "{\"ok\":false"),
                     assertion = line_with(cox_buf_slice(&out), "assertion failed:");
    json_t *told = json.len > 0 ? json_loadb((const char *)json.data, json.len, 0, NULL) : NULL;
    const char *broken = json_string_value(json_object_get(told, "invariant"));
    if (q->assertion.len == 0 && q->n_tried == 1)
        cox_buf_append_slice(&q->assertion, assertion);
    if (broken != NULL && strcmp(broken, q->invariant) == 0 &&
        cox_slice_eq(assertion, cox_buf_slice(&q->assertion)))
        events = (uint64_t)json_integer_value(json_object_get(told, "events"));
    json_decref(told);
    cox_buf_fini(&out);
    return events;
}

static bool exhausted(const struct search *q)
{
    return q->n_tried >= TRIES_MAX || q->n_events_tried >= EVENTS_TRIED_MAX;
}

/* It is taken when it is smaller, and, asking for less, when it is no larger. */
static bool better(struct search *q, const struct options *o)
{
    if (exhausted(q))
        return false;
    uint64_t events = breaks_same(q, o);
    bool less = o->salt == q->best.salt && o->faults_until == q->best.faults_until;
    if (events == 0 || events > q->events || (events == q->events && !less))
        return false;
    q->best = *o;
    q->events = events;
    return true;
}

/* With the course of chance that broke it, and with some others. */
static bool better_somehow(struct search *q, struct options o, uint64_t n_salts)
{
    uint64_t first = o.salt;
    for (uint64_t i = 0; i < n_salts; i++) {
        o.salt = i == 0 ? first : first + i;
        if (better(q, &o))
            return true;
    }
    return false;
}

/* ---- what is tried ---- */

static uint32_t hosts_least(const struct options *o)
{
    return o->n_hosts == 0 || o->n_hosts > ZONES ? ZONES : 0;
}

static bool fewer_kinds(struct search *q)
{
    bool any = false;
    for (size_t n = KIND_NR; n > 0; n /= 2)
        for (size_t from = 0; from < KIND_NR; from += n) {
            struct options o = q->best;
            for (size_t k = from; k < from + n && k < KIND_NR; k++)
                o.without |= UINT64_C(1) << k;
            if (o.without != q->best.without)
                any = better_somehow(q, o, n == 1 ? 1 : SALTS) || any;
        }
    return any;
}

/* How many it drew: the last one that changes something. */
static bool fewer_tasks(struct search *q)
{
    bool any = false;
    uint32_t top = q->best.n_jobs > 0 ? q->best.n_jobs : 48;
    for (uint32_t n = 1; n < top; n += 1 + n / 2) {
        struct options o = q->best;
        o.n_jobs = n;
        if (better_somehow(q, o, SALTS)) {
            any = true;
            break;
        }
    }
    for (uint32_t i = 0; i < q->best.n_jobs; i++) {
        struct options o = q->best;
        o.skip[i / 64] |= UINT64_C(1) << i % 64;
        if (o.skip[i / 64] != q->best.skip[i / 64])
            any = better(q, &o) || any;
    }
    return any;
}

static bool fewer_steps(struct search *q)
{
    bool any = false;
    for (uint32_t n = 1; n < q->best.n_steps_max && n < 200; n *= 2) {
        struct options o = q->best;
        o.n_steps_max = n;
        if (better_somehow(q, o, SALTS)) {
            any = true;
            break;
        }
    }
    return any;
}

static bool fewer_hosts(struct search *q)
{
    struct options o = q->best;
    o.n_hosts = hosts_least(&o);
    return o.n_hosts > 0 && better_somehow(q, o, SALTS);
}

static bool faults_stop_earlier(struct search *q)
{
    bool any = false;
    for (uint64_t part = 16; part > 1; part /= 2) {
        struct options o = q->best;
        o.faults_until = q->events - q->events / part;
        if (part == 16)
            o.faults_until = q->events / 4;
        if (o.faults_until > 0 && (q->best.faults_until == 0 || o.faults_until < q->best.faults_until))
            any = better(q, &o) || any;
    }
    return any;
}

static void another_course(struct search *q)
{
    struct options o = q->best;
    for (uint64_t i = 1; i <= SALTS_LAST; i++) {
        o = q->best;
        o.salt += i;
        (void)better(q, &o);
    }
}

uint64_t shorten(struct options *o, const char *invariant, uint64_t events, uint32_t *ret_n_tried)
{
    struct search q = { .invariant = invariant, .best = *o };
    ssize_t n = readlink("/proc/self/exe", q.program, sizeof q.program - 1);
    *ret_n_tried = 0;
    if (n <= 0 || breaks_same(&q, o) == 0) /* what is not in the options decides, too */
        return events;
    q.events = events;
    while (!exhausted(&q)) {
        bool any = fewer_tasks(&q);
        any = fewer_kinds(&q) || any;
        any = fewer_steps(&q) || any;
        any = fewer_hosts(&q) || any;
        any = faults_stop_earlier(&q) || any;
        if (!any)
            break;
    }
    another_course(&q);
    cox_buf_fini(&q.assertion);
    *ret_n_tried = q.n_tried;
    *o = q.best;
    return q.events;
}
