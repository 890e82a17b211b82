/* Any bytes as a bundle that a stranger uploaded: unpacked or refused with words, and then nothing is outside
 * of its folder, no link leads out of it, and nothing in it is but files, folders and links. */
#include "fuzz.h"

#include "unpack.h"

#include "cox/base/err.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char base[64];

static void remove_base(void)
{
    (void)rmdir(base);
}

static void make_base(void)
{
    if (base[0])
        return;
    snprintf(base, sizeof(base), "%s/cox-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    COX_ASSERT(mkdtemp(base));
    atexit(remove_base);
}

/* A link that resolves does so within `top`. */
static void check_link(const char *top, int at, const char *name)
{
    char here[4200], target[4200], *real;
    ssize_t n;

    snprintf(here, sizeof(here), "/proc/self/fd/%d", at);
    n = readlink(here, target, sizeof(target) - 300);
    COX_ASSERT(n > 0);
    snprintf(target + n, sizeof(target) - (size_t)n, "/%s", name);
    real = realpath(target, NULL);
    COX_ASSERT(!real || strncmp(real, top, strlen(top)) == 0);
    free(real);
}

/* Looks at everything, and removes it. */
static void check_folder(const char *top, int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct dirent *e;
    struct stat st;
    DIR *d;

    COX_ASSERT(fd >= 0);
    (void)fchmod(fd, 0700);
    d = fdopendir(fd);
    COX_ASSERT(d);
    for (int pass = 0; pass < 2; pass++, rewinddir(d)) {
        while ((e = readdir(d)) != NULL) {
            if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
                continue;
            COX_ASSERT(fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0);
            COX_ASSERT(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISLNK(st.st_mode));
            if (pass == 0 && S_ISLNK(st.st_mode))
                check_link(top, fd, e->d_name);
            else if (pass == 1 && S_ISDIR(st.st_mode))
                check_folder(top, fd, e->d_name);
            else if (pass == 1)
                COX_ASSERT(unlinkat(fd, e->d_name, 0) == 0);
        }
    }
    closedir(d);
    COX_ASSERT(unlinkat(at, name, AT_REMOVEDIR) == 0);
}

/* Checksums of headers are made right: else little that is wrong comes as far as its meaning. */
static void sign_headers(uint8_t *data, size_t size)
{
    for (size_t at = 0; at + 512 <= size && data[at] != 0 && data[at] != 0x1f;) {
        uint8_t *h = data + at;
        unsigned sum = 0;
        char field[13] = { 0 };

        memset(h + 148, ' ', 8);
        for (int i = 0; i < 512; i++)
            sum += h[i];
        snprintf((char *)h + 148, 8, "%06o", sum);
        memcpy(field, h + 124, 12);
        size_t len = strtoul(field, NULL, 8);
        if (len > size)
            break;
        at += 512 + (len + 511) / 512 * 512;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char archive[96], dir[96];
    struct cox_buf why = { 0 };
    uint64_t len;

    uint8_t *copy = malloc(size + 1);

    COX_ASSERT(copy);
    if (size > 0)
        memcpy(copy, data, size);
    sign_headers(copy, size);
    make_base();
    snprintf(archive, sizeof(archive), "%s/a", base);
    snprintf(dir, sizeof(dir), "%s/d", base);
    int fd = open(archive, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    COX_ASSERT(fd >= 0 && write(fd, copy, size) == (ssize_t)size && close(fd) == 0);
    if (unpack_tar(archive, dir, &len, &why) != COX_OK)
        COX_ASSERT(why.len > 0);
    COX_ASSERT(unlink(archive) == 0);
    if (access(dir, F_OK) == 0)
        check_folder(dir, AT_FDCWD, dir);
    DIR *d = opendir(base); /* nothing beside it */
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        COX_ASSERT(strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0);
    closedir(d);
    cox_buf_fini(&why);
    free(copy);
    return 0;
}
