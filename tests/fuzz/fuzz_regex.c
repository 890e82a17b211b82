/* Any bytes as a regular expression. After 'p' the pattern itself, up to a NUL byte, and a text: refused with
 * words, or the same answer however it is put into a group. Else bytes choose a pattern and a text, and the
 * answer is what sets of positions give: what each part of it may lead to, by the meaning of the operators.
 */
#include "fuzz.h"

#include "../../lib/task/regex.h"

#include "cox/base/err.h"
#include "cox/base/units.h"

#include <string.h>

#define TEXT_MAX 60 /* positions are bits */
#define DEPTH_MAX 5

/* ---- the pattern as bytes ---- */

static bool compile(struct regex *re, struct cox_slice pattern, const char *before, const char *after,
                    const char **ret_wrong)
{
    struct cox_buf b = { 0 };

    cox_buf_append_str(&b, before);
    cox_buf_append_slice(&b, pattern);
    cox_buf_append_str(&b, after);
    *ret_wrong = regex_compile(re, cox_buf_slice(&b));
    cox_buf_fini(&b);
    return *ret_wrong == NULL;
}

static void check_pattern(struct cox_slice pattern, struct cox_slice text)
{
    static struct regex plain, other;
    static const char *const around[][2] = { { "(", ")" }, { "(?:", "){1}" }, { "(?:", "){1,1}?" } };
    const char *wrong;

    if (!compile(&plain, pattern, "", "", &wrong)) {
        COX_ASSERT(wrong[0] && cox_utf8_ok(cox_slice_str(wrong)));
        return;
    }
    bool found = regex_search(&plain, text);

    for (size_t i = 0; i < sizeof(around) / sizeof(*around); i++) {
        if (compile(&other, pattern, around[i][0], around[i][1],
                    &wrong)) /* it may be too large or deep now */
            COX_ASSERT(regex_search(&other, text) == found);
    }
}

/* ---- a pattern that bytes choose, and its meaning ---- */

struct made {
    const uint8_t *p, *end;
    struct cox_buf pattern;
    uint8_t text[TEXT_MAX];
    unsigned len;
    unsigned n_parts;
};

static unsigned draw(struct made *m, unsigned n)
{
    return m->p < m->end ? *m->p++ % n : 0;
}

static bool is_word(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c >= '0' && c <= '9');
}

/* Positions after each of `from` where the character there is one of `set`. */
static uint64_t step_over(const struct made *m, uint64_t from, const char *set, bool negated)
{
    uint64_t to = 0;

    for (unsigned i = 0; i < m->len; i++) {
        if (from >> i & 1 && (strchr(set, m->text[i]) != NULL) != negated)
            to |= 1ULL << (i + 1);
    }
    return to;
}

static uint64_t stay(const struct made *m, uint64_t from, unsigned what)
{
    uint64_t to = 0;

    for (unsigned i = 0; i <= m->len; i++) {
        bool edge = (i > 0 && is_word(m->text[i - 1])) != (i < m->len && is_word(m->text[i]));
        bool ok = what == 0 ? i == 0 : what == 1 ? i == m->len : what == 2 ? edge : !edge;
        if (from >> i & 1 && ok)
            to |= 1ULL << i;
    }
    return to;
}

static const struct {
    const char *text, *set;
    bool negated;
} atoms[] = {
    { "a", "a", false },        { "b", "b", false },           { "B", "B", false },
    { ".", "\n", true },        { "[ab]", "ab", false },       { "[^a]", "a", true },
    { "[a-b_]", "ab_", false }, { "\\n", "\n", false },        { "\\w", "abB_", false },
    { "\\W", "abB_", true },    { "\\x61", "a", false },       { "\\x{42}", "B", false },
    { "\\s", " \n", false },    { "[[:upper:]]", "B", false }, { "\\Qb\\E", "b", false },
    { "[^\\s]", " \n", true },
};
static const char *const anchors[] = { "\\A", "\\z", "\\b", "\\B" };

struct node {
    unsigned kind;             /* 0 atom, 1 anchor, 2 sequence, 3 choice, 4 repetition */
    unsigned which, low, high; /* high 99: no end */
    struct node *a, *b;
};

static struct node *make(struct made *m, struct node *nodes, unsigned depth)
{
    struct node *n = &nodes[m->n_parts++];

    *n = (struct node){ .kind = depth >= DEPTH_MAX || m->n_parts > 20 ? draw(m, 2) : draw(m, 5) };
    if (n->kind < 2)
        n->which = draw(m, n->kind == 0 ? sizeof(atoms) / sizeof(*atoms) : 4);
    if (n->kind >= 2)
        n->a = make(m, nodes, depth + 1);
    if (n->kind == 2 || n->kind == 3)
        n->b = make(m, nodes, depth + 1);
    if (n->kind == 4) {
        n->which = draw(m, 10);
        n->low = draw(m, 3);
        n->high = n->low + draw(m, 3);
    }
    return n;
}

static void put(struct made *m, const struct node *n)
{
    static const char *const simple[] = { "*", "+", "?", "*?", "+?", "??" };

    switch (n->kind) {
    case 0:
        cox_buf_append_str(&m->pattern, atoms[n->which].text);
        return;
    case 1:
        cox_buf_append_str(&m->pattern, anchors[n->which]);
        return;
    case 2:
        put(m, n->a);
        put(m, n->b);
        return;
    default:
        break;
    }
    cox_buf_append_str(&m->pattern, n->which % 2 ? "(?:" : "(");
    put(m, n->a);
    if (n->kind == 3) {
        cox_buf_append_str(&m->pattern, "|");
        put(m, n->b);
    }
    cox_buf_append_str(&m->pattern, ")");
    if (n->kind == 4 && n->which < 6)
        cox_buf_append_str(&m->pattern, simple[n->which]);
    else if (n->kind == 4 && n->which < 8)
        cox_buf_printf(&m->pattern, "{%u,%u}", n->low, n->high);
    else if (n->kind == 4)
        cox_buf_printf(&m->pattern, "{%u,}", n->low);
}

static uint64_t lead(const struct made *m, const struct node *n, uint64_t from);

static uint64_t repeat(const struct made *m, const struct node *n, uint64_t from)
{
    static const uint8_t lows[6] = { 0, 1, 0, 0, 1, 0 };
    unsigned low = n->which < 6 ? lows[n->which] : n->low;
    bool endless = (n->which < 6 && n->which % 3 < 2) || n->which >= 8;
    unsigned high = endless ? UINT32_MAX : n->which < 6 ? 1 : n->high;
    uint64_t to = low == 0 ? from : 0;

    for (unsigned i = 1; i <= high && from; i++) {
        from = lead(m, n->a, from);
        if (endless && i > low)
            from &= ~to; /* where it has been already leads nowhere else */
        to |= i >= low ? from : 0;
    }
    return to;
}

static uint64_t lead(const struct made *m, const struct node *n, uint64_t from)
{
    switch (n->kind) {
    case 0:
        return step_over(m, from, atoms[n->which].set, atoms[n->which].negated);
    case 1:
        return stay(m, from, n->which);
    case 2:
        return lead(m, n->b, lead(m, n->a, from));
    case 3:
        return lead(m, n->a, from) | lead(m, n->b, from);
    default:
        return repeat(m, n, from);
    }
}

static void check_meaning(struct cox_slice bytes)
{
    static struct regex re;
    static struct node nodes[256];
    struct made m = { .p = bytes.data, .end = bytes.data + bytes.len };
    const struct node *n = make(&m, nodes, 0);

    while (m.p < m.end && m.len < TEXT_MAX)
        m.text[m.len++] = (uint8_t) "abB_ \n-"[draw(&m, 7)];
    put(&m, n);
    const char *wrong = regex_compile(&re, cox_buf_slice(&m.pattern));
    COX_ASSERT(!wrong || strstr(wrong, "too ")); /* large */
    if (!wrong) {
        bool found = lead(&m, n, (2ULL << m.len) - 1) != 0;
        COX_ASSERT(regex_search(&re, cox_slice(m.text, m.len)) == found);
    }
    cox_buf_fini(&m.pattern);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || data[0] != 'p') {
        check_meaning(cox_slice(data, size));
        return 0;
    }
    const uint8_t *end = memchr(data, 0, size);
    size_t len = end ? (size_t)(end - data) : size;

    check_pattern(cox_slice(data + 1, len - 1),
                  end ? cox_slice(end + 1, size - len - 1) : cox_slice(NULL, 0));
    return 0;
}
