/* Says what lib/cron makes of a zone file, for tests that know better: reads lines from standard input,
 *     offset UNIX_S...        one offset a time
 *     next N UNIX_S CRON      the next N runs
 * and answers each with a line of numbers. usage: cron-say ZONE_FILE */
#include "cox/cron.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void read_file(const char *path, struct cox_buf *ret)
{
    FILE *f = fopen(path, "rb");
    char part[4096];
    size_t n;
    if (f == NULL) {
        perror(path);
        exit(2);
    }
    while ((n = fread(part, 1, sizeof part, f)) > 0)
        cox_buf_append(ret, part, n);
    fclose(f);
}

static void say_offsets(struct cox_slice zone, char *rest)
{
    for (char *end; *rest != '\0'; rest = end) {
        long long at_s = strtoll(rest, &end, 10);
        if (end == rest)
            exit(2);
        printf("%d ", cox_zone_offset_s(zone, at_s * 1000));
    }
    putchar('\n');
}

static void say_next(struct cox_slice zone, char *rest)
{
    struct cox_cron cron;
    struct cox_buf error = { 0 };
    long n = strtol(rest, &rest, 10);
    int64_t at_ms = strtoll(rest, &rest, 10) * 1000;
    if (cox_cron_parse(cox_slice_str(rest), &cron, &error) != COX_OK) {
        printf("%s\n", cox_buf_cstr(&error));
        exit(2);
    }
    for (; n > 0 && at_ms != INT64_MAX; n--) {
        at_ms = cox_cron_next(&cron, zone, at_ms);
        if (at_ms == INT64_MAX)
            printf("never");
        else
            printf("%lld ", (long long)(at_ms / 1000));
    }
    putchar('\n');
    cox_buf_fini(&error);
}

int main(int argc, char **argv)
{
    struct cox_buf file = { 0 }, zone = { 0 };
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    if (argc != 2)
        return 2;
    read_file(argv[1], &file);
    if (cox_zone_compile(cox_buf_slice(&file), &zone) != COX_OK ||
        cox_zone_check(cox_buf_slice(&zone)) != COX_OK)
        return 3;
    while ((len = getline(&line, &cap, stdin)) > 0) {
        line[len - 1] = '\0';
        if (strncmp(line, "offset ", 7) == 0)
            say_offsets(cox_buf_slice(&zone), line + 7);
        else
            say_next(cox_buf_slice(&zone), line + 5);
    }
    fprintf(stderr, "%zu\n", zone.len);
    free(line);
    cox_buf_fini(&zone);
    cox_buf_fini(&file);
    return 0;
}
