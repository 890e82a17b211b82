/* Runs files through a fuzz target: replay FILE-OR-FOLDER... Every file is in a block of its own, so that a
 * sanitizer sees a read beyond it. */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static unsigned n_files;

static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct stat st;

    if (!f || fstat(fileno(f), &st) != 0) {
        perror(path);
        return 1;
    }
    size_t len = (size_t)st.st_size;
    uint8_t *data = malloc(len ? len : 1);
    int bad = !data || fread(data, 1, len, f) != len;

    if (bad)
        fprintf(stderr, "%s: cannot be read\n", path);
    else
        LLVMFuzzerTestOneInput(data, len);
    n_files += !bad;
    free(data);
    fclose(f);
    return bad;
}

static int replay_folder(const char *path)
{
    struct dirent **names;
    int n = scandir(path, &names, NULL, alphasort), bad = n < 0;

    if (bad)
        perror(path);
    for (int i = 0; i < n; i++) {
        char file[4096];

        snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.')
            bad |= replay_file(file);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
    return bad;
}

int main(int argc, char **argv)
{
    int bad = 0;

    for (int i = 1; i < argc; i++) {
        struct stat st;

        if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode))
            bad |= replay_folder(argv[i]);
        else
            bad |= replay_file(argv[i]);
    }
    printf("%u files\n", n_files);
    return bad || n_files == 0;
}
