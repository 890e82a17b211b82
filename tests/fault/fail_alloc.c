/* Parsers and mappings when the k-th allocation fails, be it ours or of a library below (jansson, libyaml,
 * protobuf-c, zlib, libjq): the bodies of fuzz targets run over their corpora, each k in a process of its
 * own. That must end well, with an error that the target takes, or with exit code 75; never by a signal, by
 * an assertion of the target or not at all.
 *
 *   alloc-TARGET CORPUS [ONE_IN]     one k of so many; the default takes a second or two, COX_TEST_LONG=1 all
 *
 * malloc and its like are this program's own functions, which the libraries call too; glibc's lie under other
 * names.
 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_RECOVER 75
#define EXIT_NOT_MET 3 /* all went well with fewer allocations */
#define LIMIT_S 30
#define FILE_LEN_MAX 65536

void *__libc_malloc(size_t len);
void *__libc_calloc(size_t n, size_t len);
void *__libc_realloc(void *p, size_t len);

static unsigned long countdown; /* 0: nothing fails */
static bool lasting, met;

static bool fails(void)
{
    if (countdown == 0)
        return false;
    if (countdown > 1) {
        countdown--;
        return false;
    }
    if (met && !lasting)
        return false;
    met = true;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t len)
{
    return fails() ? NULL : __libc_malloc(len);
}

void *calloc(size_t n, size_t len)
{
    return fails() ? NULL : __libc_calloc(n, len);
}

void *realloc(void *p, size_t len)
{
    return fails() ? NULL : __libc_realloc(p, len);
}

static _Noreturn void child(const uint8_t *data, size_t len, unsigned long k)
{
    int null = open("/dev/null", O_WRONLY);

    if (!getenv("COX_VERBOSE"))
        (void)dup2(null, STDERR_FILENO);
    (void)alarm(LIMIT_S);
    countdown = k;
    (void)LLVMFuzzerTestOneInput(data, len);
    countdown = 0;
    _exit(met ? 0 : EXIT_NOT_MET);
}

/* Exit code, or 256 and the signal. */
static int run(const uint8_t *data, size_t len, unsigned long k)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        child(data, len, k);
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        perror("fork");
        exit(1);
    }
    return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

static struct {
    unsigned long files, runs, left, well, bad;
} sum;

static void try_file(const char *path, unsigned long one_in, bool forever)
{
    uint8_t *data = __libc_malloc(FILE_LEN_MAX);
    FILE *f = fopen(path, "rb");
    size_t len = f ? fread(data, 1, FILE_LEN_MAX, f) : 0;

    if (f)
        (void)fclose(f);
    lasting = forever;
    sum.files++;
    for (unsigned long k = 1 + sum.files % one_in;; k += one_in) {
        int code = run(data, len, k);

        if (code == EXIT_NOT_MET)
            break;
        sum.runs++;
        sum.left += code == EXIT_RECOVER;
        sum.well += code == 0;
        if (code == 0 || code == EXIT_RECOVER)
            continue;
        fprintf(stderr, "%s: allocation %lu%s: %s %d\n", path, k, forever ? " and all after it" : "",
                code > 256 ? "signal" : "exit code", code % 256);
        if (++sum.bad > 20)
            break;
    }
    free(data);
}

int main(int argc, char **argv)
{
    unsigned long one_in = argc > 2 ? strtoul(argv[2], NULL, 10) : getenv("COX_TEST_LONG") ? 1 : 5;
    struct dirent **names;
    int n = argc > 1 ? scandir(argv[1], &names, NULL, alphasort) : -1;

    if (n < 0 || one_in == 0) {
        fprintf(stderr, "usage: %s CORPUS [ONE_IN]\n", argv[0]);
        return 2;
    }
    for (int i = 0; i < n; i++) {
        char path[4096];

        (void)snprintf(path, sizeof(path), "%s/%s", argv[1], names[i]->d_name);
        if (names[i]->d_name[0] != '.') {
            try_file(path, one_in, false);
            try_file(path, one_in, true);
        }
        free(names[i]);
    }
    free(names);
    printf("%lu runs: %lu left with exit code 75, %lu ended, %lu did neither\n", sum.runs, sum.left, sum.well,
           sum.bad);
    return sum.bad > 0 || sum.runs == 0;
}
