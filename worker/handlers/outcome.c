#include "handler.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

void call_put_own(struct cox_buf *out, const struct call_args *args, struct cox_slice of_step)
{
    cox_buf_append_slice(out, of_step);
    if (args->index)
        cox_buf_printf(out, "[%u]", *args->index);
}

static uint64_t micros(struct timeval tv)
{
    return (uint64_t)tv.tv_sec * 1000000 + (uint64_t)tv.tv_usec;
}

void outcome_used(struct outcome *o, const struct rusage *usage)
{
    o->cpu_us = micros(usage->ru_utime) + micros(usage->ru_stime);
    o->max_rss_bytes = (uint64_t)usage->ru_maxrss * 1024;
}

void outcome_init(struct outcome *o)
{
    *o = (struct outcome){ .files = { -1, -1, -1 } };
}

void outcome_fini(struct outcome *o)
{
    for (size_t i = 0; i < OUTCOME_FILE_NR; i++)
        if (o->files[i] >= 0)
            close(o->files[i]);
    cox_buf_fini(&o->message);
    cox_buf_fini(&o->output);
    cox_buf_fini(&o->continuation);
    outcome_init(o);
}

void outcome_say(struct outcome *o, struct cox_slice text)
{
    struct cox_buf *b = &o->message;
    struct cox_buf quoted = { 0 };

    cox_json_quote(&quoted, cox_slice(text.data, text.len < 4096 ? text.len : 4096));
    cox_json_unquote(b, cox_buf_slice(&quoted));
    cox_buf_fini(&quoted);
    if (b->len <= COX_ERROR_MESSAGE_LEN_MAX)
        return;
    b->len = COX_ERROR_MESSAGE_LEN_MAX;
    while (b->len > 0 && (b->data[b->len] & 0xC0) == 0x80)
        b->len--;
}

int outcome_file(const char *dir)
{
    char *path = cox_asprintf("%s/.spool-XXXXXX", dir);
    int fd = mkostemp(path, O_CLOEXEC);
    int why = errno;

    if (fd >= 0)
        unlink(path);
    cox_free(path);
    errno = why;
    return fd;
}

bool outcome_write(int fd, struct cox_slice data)
{
    while (data.len > 0) {
        ssize_t n = write(fd, data.data, data.len);

        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0)
            data = cox_slice(data.data + n, data.len - (size_t)n);
    }
    return true;
}
