#include "cgroup_place.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A text between two others of the same bytes; it does not end with a NUL. */
struct span {
    const char *at;
    size_t len;
};

static bool is(struct span s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.at, text, s.len) == 0;
}

static bool begins(struct span s, const char *text)
{
    return s.len >= strlen(text) && memcmp(s.at, text, strlen(text)) == 0;
}

/* Up to the separator, which is skipped. */
static struct span take(const char **at, char separator)
{
    struct span s = { .at = *at, .len = strcspn(*at, (char[]){ separator, '\n', 0 }) };

    *at += s.len;
    if (**at == separator)
        ++*at;
    return s;
}

static bool has_word(struct span words, char separator, const char *word)
{
    while (words.len > 0) {
        const char *end = memchr(words.at, separator, words.len);
        size_t len = end ? (size_t)(end - words.at) : words.len;

        if (is((struct span){ .at = words.at, .len = len }, word))
            return true;
        len += end != NULL;
        words.at += len;
        words.len -= len;
    }
    return false;
}

bool cgroup_list_has(const char *list, const char *name)
{
    return has_word((struct span){ .at = list, .len = strcspn(list, "\n") }, ' ', name);
}

uint64_t cgroup_count(const char *rows, const char *key)
{
    size_t len = strlen(key);

    for (const char *row = rows; row; row = strchr(row, '\n')) {
        row += *row == '\n';
        if (strncmp(row, key, len) == 0 && row[len] == ' ')
            return strtoull(row + len + 1, NULL, 10);
    }
    return 0;
}

/* ---------------------------------------------------------------- the own group */

/* The row "0::PATH"; version 1 has numbers above 0. */
static bool own_group(const char *groups, struct span *ret)
{
    for (const char *row = groups; row && *row;) {
        if (strncmp(row, "0::/", 4) == 0) {
            *ret = (struct span){ .at = row + 3, .len = strcspn(row + 3, "\n") };
            return true;
        }
        row = strchr(row, '\n');
        row += row != NULL;
    }
    return false;
}

/* ---------------------------------------------------------------- mounts */

struct mount {
    struct span root, point, options, type;
};

/* ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAG...] - TYPE SOURCE SUPER-OPTIONS */
static struct mount read_mount(const char **at)
{
    struct mount m;

    for (int i = 0; i < 3; i++)
        take(at, ' ');
    m.root = take(at, ' ');
    m.point = take(at, ' ');
    m.options = take(at, ' ');
    while (**at && **at != '\n' && !is(take(at, ' '), "-"))
        ;
    m.type = take(at, ' ');
    *at += strcspn(*at, "\n");
    *at += **at == '\n';
    return m;
}

/* Spaces and the like are three octal digits. Returns the length; 0: it does not fit. */
static size_t put_unescaped(char *to, size_t size, struct span s)
{
    size_t n = 0;

    for (size_t i = 0; i < s.len; i++) {
        char c = s.at[i];

        if (c == '\\' && i + 3 < s.len) {
            c = (char)((s.at[i + 1] - '0') << 6 | (s.at[i + 2] - '0') << 3 | (s.at[i + 3] - '0'));
            i += 3;
        }
        if (n + 1 >= size)
            return 0;
        to[n++] = c;
    }
    to[n] = 0;
    return n;
}

/* The group's directory below that mount; false: it lies elsewhere in the tree, or is too long. */
static bool put_dir(char to[CGROUP_PATH_MAX], const struct mount *m, struct span group)
{
    char root[CGROUP_PATH_MAX];
    size_t skip = put_unescaped(root, sizeof(root), m->root), len;
    struct span rest;

    if (skip == 0)
        return false;
    skip = strcmp(root, "/") == 0 ? 0 : skip;
    if (begins(group, "/..") ||
        (skip > 0 && (!begins(group, root) || (group.len > skip && group.at[skip] != '/'))))
        return false;
    rest = (struct span){ .at = group.at + skip, .len = is(group, "/") ? 0 : group.len - skip };
    len = put_unescaped(to, CGROUP_PATH_MAX, m->point);
    if (len == 0 || len + rest.len >= CGROUP_PATH_MAX)
        return false;
    snprintf(to + len, CGROUP_PATH_MAX - len, "%.*s", (int)rest.len, rest.at);
    return true;
}

bool cgroup_place(const char *groups, const char *mounts, struct cgroup_place *ret)
{
    struct span group;
    const char *why = "no tree of version 2 is mounted";

    *ret = (struct cgroup_place){ .dir = "" };
    if (!own_group(groups, &group)) {
        snprintf(ret->why, sizeof(ret->why), "the kernel has only version 1");
        return false;
    }
    while (*mounts) {
        struct mount m = read_mount(&mounts);
        char dir[CGROUP_PATH_MAX];

        if (!is(m.type, "cgroup2"))
            continue;
        if (!put_dir(dir, &m, group)) {
            why = "the worker's own group lies outside of the tree that is mounted";
        } else if (has_word(m.options, ',', "ro")) {
            why = "the tree is mounted read-only";
        } else {
            memcpy(ret->dir, dir, sizeof(dir));
            return true;
        }
    }
    snprintf(ret->why, sizeof(ret->why), "%s", why);
    return false;
}
