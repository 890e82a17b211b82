/* The body of a step in scenarios: a process that says what it was given, when it ran, and answers with a
 * value that follows from both its name and its input. Small, because scenarios start tens of thousands.
 *
 *   step-body [OPTION...] [INPUT...]
 *     --stdin           standard input is an input too
 *     --log DIR         appends to DIR/TASK.STEP, a write a line, before and after the work:
 *                           start TASK STEP ATTEMPT INPUT-HASH NS
 *                           end   TASK STEP ATTEMPT VALUE NS
 *     --fail PERCENT    attempts that exit 1, decided by hash("TASK/STEP/ATTEMPT")
 *     --work MS         how long the work takes
 *
 * It prints {"step":STEP,"attempt":N,"value":HASH}. The input's hash is FNV-1a over each input and a NUL; the
 * value is FNV-1a over "STEP INPUT-HASH". Hashes are 16 hexadecimal digits. load.py knows the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FNV_BASIS UINT64_C(14695981039346656037)
#define FNV_PRIME UINT64_C(1099511628211)

struct options {
    bool reads_stdin;
    const char *log_dir;
    unsigned long fail_percent;
    unsigned long work_ms;
    int first_input;
};

struct step {
    const char *task, *name, *attempt;
};

static uint64_t fnv1a(uint64_t hash, const void *data, size_t len)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ p[i]) * FNV_PRIME;
    return hash;
}

static uint64_t hash_text(const char *text)
{
    return fnv1a(FNV_BASIS, text, strlen(text));
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);

    if (!value || !*value) {
        fprintf(stderr, "step-body: %s is not set\n", name);
        exit(3);
    }
    return value;
}

static struct options read_options(int argc, char **argv)
{
    struct options o = { 0 };
    int i = 1;

    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        if (strcmp(argv[i], "--stdin") == 0)
            o.reads_stdin = true;
        else if (strcmp(argv[i], "--log") == 0 && i + 1 < argc)
            o.log_dir = argv[++i];
        else if (strcmp(argv[i], "--fail") == 0 && i + 1 < argc)
            o.fail_percent = strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--work") == 0 && i + 1 < argc)
            o.work_ms = strtoul(argv[++i], NULL, 10);
        else
            exit(3);
    }
    o.first_input = i;
    return o;
}

static uint64_t hash_stdin(uint64_t hash)
{
    char chunk[65536];
    ssize_t n;

    while ((n = read(STDIN_FILENO, chunk, sizeof(chunk))) > 0)
        hash = fnv1a(hash, chunk, (size_t)n);
    if (n < 0)
        exit(3);
    return fnv1a(hash, "", 1);
}

static void write_log(const struct options *o, const struct step *s, const char *what, uint64_t hash)
{
    char path[512], line[512];
    struct timespec t;

    if (!o->log_dir)
        return;
    clock_gettime(CLOCK_MONOTONIC, &t);
    snprintf(path, sizeof(path), "%s/%s.%s", o->log_dir, s->task, s->name);
    int len = snprintf(line, sizeof(line), "%s %s %s %s %016" PRIx64 " %lld\n", what, s->task, s->name,
                       s->attempt, hash, (long long)t.tv_sec * 1000000000 + t.tv_nsec);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

    if (fd < 0 || write(fd, line, (size_t)len) != len) {
        fprintf(stderr, "step-body: %s: %s\n", path, strerror(errno));
        exit(3);
    }
    close(fd);
}

static void work(unsigned long ms)
{
    struct timespec t = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 };

    while (nanosleep(&t, &t) < 0 && errno == EINTR) {
    }
}

int main(int argc, char **argv)
{
    struct options o = read_options(argc, argv);
    struct step s = { variable("COX_TASK_ID"), variable("COX_STEP"), variable("COX_ATTEMPT") };
    uint64_t input = FNV_BASIS;
    char text[256];

    for (int i = o.first_input; i < argc; i++)
        input = fnv1a(input, argv[i], strlen(argv[i]) + 1);
    if (o.reads_stdin)
        input = hash_stdin(input);
    write_log(&o, &s, "start", input);
    if (o.work_ms > 0)
        work(o.work_ms);
    snprintf(text, sizeof(text), "%s/%s/%s", s.task, s.name, s.attempt);
    if (hash_text(text) % 100 < o.fail_percent) {
        fprintf(stderr, "step-body: attempt %s of %s is one that fails\n", s.attempt, s.name);
        return 1;
    }
    snprintf(text, sizeof(text), "%s %016" PRIx64, s.name, input);
    uint64_t value = hash_text(text);

    write_log(&o, &s, "end", value);
    printf("{\"step\":\"%s\",\"attempt\":%s,\"value\":\"%016" PRIx64 "\"}\n", s.name, s.attempt, value);
    return 0;
}
