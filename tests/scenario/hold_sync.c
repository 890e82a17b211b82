/* Preloaded: while $HOLD_SYNC is there, a pipe that nobody has opened for writing, nothing becomes durable.
 * $HOLD_SYNC.held says that somebody waits for it. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void wait_while_held(void)
{
    const char *path = getenv("HOLD_SYNC");
    char held[4096];

    if (!path || access(path, F_OK) != 0)
        return;
    snprintf(held, sizeof(held), "%s.held", path);
    int mark = open(held, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    int pipe = open(path, O_RDONLY | O_CLOEXEC);

    if (mark >= 0)
        close(mark);
    if (pipe >= 0)
        close(pipe);
}

int fdatasync(int fd)
{
    wait_while_held();
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    wait_while_held();
    return (int)syscall(SYS_fsync, fd);
}
