#include "beside.h"

#include "cox/base/alloc.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

char *cli_beside(const char *name)
{
    char self[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    if (len > 0) {
        self[len] = '\0';
        slash = strrchr(self, '/');
        char *path = cox_asprintf("%.*s/%s", (int)(slash - self), self, name);
        if (access(path, X_OK) == 0)
            return path;
        cox_free(path);
    }
    return cox_strdup(name);
}
