/* .coxignore: what .gitignore means, for one file in the folder's root. */
#include "bundle.h"

#include <fnmatch.h>
#include <string.h>

#define PATTERN_MAX 1024

/* Matches segment by segment; "**" stands for any number of them. */
static bool match(const char *pattern, const char *path)
{
    char p[PATTERN_MAX], s[PATTERN_MAX];
    size_t p_len = strcspn(pattern, "/"), s_len = strcspn(path, "/");

    if (!*pattern)
        return !*path;
    if (p_len == 2 && pattern[0] == '*' && pattern[1] == '*') {
        const char *rest = pattern + p_len + (pattern[p_len] == '/');
        if (!*rest)
            return *path != '\0';
        for (const char *at = path; at; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL) {
            if (match(rest, at))
                return true;
        }
        return false;
    }
    if (!*path || p_len >= sizeof(p) || s_len >= sizeof(s))
        return false;
    memcpy(p, pattern, p_len);
    memcpy(s, path, s_len);
    p[p_len] = s[s_len] = '\0';
    if (fnmatch(p, s, 0) != 0)
        return false;
    return match(pattern + p_len + (pattern[p_len] == '/'), path + s_len + (path[s_len] == '/'));
}

/* One line; +1 leaves out, -1 keeps, 0 says nothing about the path. */
static int judge(const char *line, size_t len, const char *path, bool is_dir)
{
    char pattern[PATTERN_MAX];
    int verdict = 1;

    while (len > 0 && (line[len - 1] == ' ' || line[len - 1] == '\r'))
        len--;
    if (len > 0 && *line == '!') {
        verdict = -1;
        line++;
        len--;
    }
    if (len == 0 || *line == '#' || len >= sizeof(pattern))
        return 0;
    if (line[len - 1] == '/') {
        if (!is_dir)
            return 0;
        len--;
    }
    memcpy(pattern, line, len);
    pattern[len] = '\0';
    if (strchr(pattern, '/')) /* anchored */
        return match(pattern + (*pattern == '/'), path) ? verdict : 0;
    const char *slash = strrchr(path, '/');

    return fnmatch(pattern, slash ? slash + 1 : path, 0) == 0 ? verdict : 0;
}

bool cli_bundle_ignores(struct cox_slice patterns, const char *path, bool is_dir)
{
    const char *p = (const char *)patterns.data, *end = p + patterns.len;
    bool ignored = false;

    while (p < end) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        size_t len = (size_t)((newline ? newline : end) - p);
        int verdict = judge(p, len, path, is_dir);
        if (verdict != 0)
            ignored = verdict > 0;
        p += len + 1;
    }
    return ignored;
}
