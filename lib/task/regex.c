#include "regex.h"

#include <string.h>

#define CODE_POINT_MAX 0x10ffffu
#define REPLACEMENT 0xfffdu

enum regex_op {
    RE_CHAR,
    RE_CHAR_FOLD,
    RE_ANY,      /* but a newline */
    RE_ANY_LINE, /* newlines too */
    RE_CLASS,
    RE_CLASS_FOLD,
    RE_SPLIT,
    RE_JUMP,
    RE_TEXT_BEGIN,
    RE_TEXT_END,
    RE_LINE_BEGIN,
    RE_LINE_END,
    RE_WORD_EDGE, /* negated: no word edge */
    RE_NOTHING,
    RE_MATCH,
};

enum { FLAG_FOLD = 1, FLAG_DOT_ALL = 2, FLAG_LINES = 4 };

struct set {
    const char *name;
    struct regex_range ranges[4];
};
static const struct set set_digit = { "digit", { { '0', '9' } } };
static const struct set set_word = { "word", { { '0', '9' }, { 'A', 'Z' }, { '_', '_' }, { 'a', 'z' } } };
static const struct set set_perl_space = { "", { { '\t', '\n' }, { '\f', '\r' }, { ' ', ' ' } } };
static const struct set named_sets[] = {
    { "alnum", { { '0', '9' }, { 'A', 'Z' }, { 'a', 'z' } } },
    { "alpha", { { 'A', 'Z' }, { 'a', 'z' } } },
    { "ascii", { { 1, 0x7f } } },
    { "blank", { { '\t', '\t' }, { ' ', ' ' } } },
    { "cntrl", { { 1, 0x1f }, { 0x7f, 0x7f } } },
    { "digit", { { '0', '9' } } },
    { "graph", { { '!', '~' } } },
    { "lower", { { 'a', 'z' } } },
    { "print", { { ' ', '~' } } },
    { "punct", { { '!', '/' }, { ':', '@' }, { '[', '`' }, { '{', '~' } } },
    { "space", { { '\t', '\r' }, { ' ', ' ' } } },
    { "upper", { { 'A', 'Z' } } },
    { "word", { { '0', '9' }, { 'A', 'Z' }, { '_', '_' }, { 'a', 'z' } } },
    { "xdigit", { { '0', '9' }, { 'A', 'F' }, { 'a', 'f' } } },
};

static uint32_t next_char(const uint8_t **pp, const uint8_t *end)
{
    const uint8_t *p = *pp;
    uint32_t c = *p++;
    int tail = c < 0x80 ? 0 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : -1;

    *pp = p;
    if (tail <= 0)
        return tail == 0 ? c : REPLACEMENT;
    if (end - p < tail)
        return REPLACEMENT;
    c &= 0x3fu >> tail;
    for (int i = 0; i < tail; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return REPLACEMENT;
        c = c << 6 | (p[i] & 0x3fu);
    }
    *pp = p + tail;
    return c;
}

static bool is_letter(uint32_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_word(uint32_t c)
{
    return is_letter(c) || (c >= '0' && c <= '9') || c == '_';
}

/* ---- compiler ---- */

struct re_parser {
    struct regex *re;
    const uint8_t *p;
    const uint8_t *end;
    const char *error;
    unsigned flags;
    unsigned depth;
    struct regex_code spare; /* written to when there is no room, never read */
};

static void parse_alternatives(struct re_parser *r);

static void fail(struct re_parser *r, const char *error)
{
    if (!r->error)
        r->error = error;
    r->p = r->end;
}

static bool at(const struct re_parser *r, char c)
{
    return r->p < r->end && *r->p == (uint8_t)c;
}

static bool take(struct re_parser *r, char c)
{
    if (!at(r, c))
        return false;
    r->p++;
    return true;
}

static struct regex_code *put(struct re_parser *r, enum regex_op op)
{
    if (r->re->n_code == REGEX_CODE_MAX - 1) { /* one is kept for RE_MATCH */
        fail(r, "the pattern is too large");
        return &r->spare;
    }
    struct regex_code *code = &r->re->code[r->re->n_code++];

    *code = (struct regex_code){ .op = (uint8_t)op };
    return code;
}

/* Makes room for one instruction before the fragment at `where`. */
static struct regex_code *insert(struct re_parser *r, uint32_t where, enum regex_op op)
{
    struct regex *re = r->re;
    struct regex_code *code = put(r, op);

    if (r->error)
        return code;
    memmove(&re->code[where + 1], &re->code[where], (re->n_code - 1 - where) * sizeof(*code));
    re->code[where] = (struct regex_code){ .op = (uint8_t)op };
    return &re->code[where];
}

static void put_char(struct re_parser *r, uint32_t c)
{
    bool fold = (r->flags & FLAG_FOLD) && is_letter(c);

    put(r, fold ? RE_CHAR_FOLD : RE_CHAR)->c = fold ? c | 0x20 : c;
}

static void add_range(struct re_parser *r, uint32_t low, uint32_t high)
{
    struct regex *re = r->re;

    if (re->n_ranges == REGEX_RANGES_MAX)
        fail(r, "the pattern has too many character ranges");
    else
        re->ranges[re->n_ranges++] = (struct regex_range){ low, high };
}

static void add_set(struct re_parser *r, const struct set *set, bool negated)
{
    uint32_t low = 0;

    for (int i = 0; i < 4 && set->ranges[i].high > 0; i++) {
        if (!negated)
            add_range(r, set->ranges[i].low, set->ranges[i].high);
        else if (set->ranges[i].low > low)
            add_range(r, low, set->ranges[i].low - 1);
        low = set->ranges[i].high + 1;
    }
    if (negated)
        add_range(r, low, CODE_POINT_MAX);
}

/* \d and its like; false when `c` names no set. */
static bool add_perl_set(struct re_parser *r, uint32_t c)
{
    switch (c | 0x20) {
    case 'd':
        add_set(r, &set_digit, c == 'D');
        return true;
    case 'w':
        add_set(r, &set_word, c == 'W');
        return true;
    case 's':
        add_set(r, &set_perl_space, c == 'S');
        return true;
    default:
        return false;
    }
}

static int hex_value(const struct re_parser *r)
{
    if (r->p == r->end)
        return -1;
    uint8_t c = *r->p, lower = c | 0x20;

    if (c >= '0' && c <= '9')
        return c - '0';
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* After \x: two digits, or any number in braces. */
static uint32_t parse_hex(struct re_parser *r)
{
    bool braces = take(r, '{');
    uint32_t c = 0;
    int n = 0;

    for (; hex_value(r) >= 0 && (braces || n < 2) && c <= CODE_POINT_MAX; n++, r->p++)
        c = c * 16 + (uint32_t)hex_value(r);
    if ((braces ? n == 0 || !take(r, '}') : n != 2) || c > CODE_POINT_MAX)
        fail(r, "expected hexadecimal digits after \\x");
    return c;
}

/* The character that an escape stands for. */
static uint32_t parse_escape(struct re_parser *r, uint32_t c)
{
    static const char from[] = "afnrtv", to[] = "\a\f\n\r\t\v";
    const char *known = c > 0 && c < 0x80 ? strchr(from, (int)c) : NULL;

    if (known)
        return (uint32_t)to[known - from];
    if (c == 'x')
        return parse_hex(r);
    if (c == 'p' || c == 'P')
        fail(r, "Unicode classes are not supported");
    else if (c >= '1' && c <= '9')
        fail(r, "backreferences are not supported");
    else if (is_word(c))
        fail(r, "unknown escape");
    return c;
}

/* [:name:] after its "[:"; false when it is none. */
static bool parse_named_set(struct re_parser *r)
{
    bool negated = at(r, '^');
    const uint8_t *name = r->p + negated, *p = name;

    while (p < r->end && is_letter(*p))
        p++;
    if (r->end - p < 2 || p[0] != ':' || p[1] != ']')
        return false;
    for (size_t i = 0; i < sizeof(named_sets) / sizeof(named_sets[0]); i++) {
        if (cox_slice_is(cox_slice(name, (size_t)(p - name)), named_sets[i].name)) {
            add_set(r, &named_sets[i], negated);
            r->p = p + 2;
            return true;
        }
    }
    fail(r, "unknown class name");
    return true;
}

/* One end of a range in a class; false when a whole set was there instead. */
static bool parse_class_char(struct re_parser *r, uint32_t *ret)
{
    if (r->end - r->p >= 2 && r->p[0] == '[' && r->p[1] == ':') {
        r->p += 2;
        if (parse_named_set(r))
            return false;
        r->p -= 2;
    }
    *ret = next_char(&r->p, r->end);
    if (*ret != '\\')
        return true;
    if (r->p == r->end) {
        fail(r, "the pattern ends in a backslash");
        return false;
    }
    uint32_t c = next_char(&r->p, r->end);

    if (add_perl_set(r, c))
        return false;
    *ret = parse_escape(r, c);
    return true;
}

/* After "[". */
static void parse_class(struct re_parser *r)
{
    bool negated = take(r, '^'), first = true;
    uint32_t first_range = r->re->n_ranges, low, high;

    while (r->p < r->end && (first || !at(r, ']'))) {
        first = false;
        if (!parse_class_char(r, &low))
            continue;
        high = low;
        if (r->end - r->p >= 2 && r->p[0] == '-' && r->p[1] != ']') {
            r->p++;
            if (!parse_class_char(r, &high) || high < low) {
                fail(r, "bad range in a class");
                return;
            }
        }
        add_range(r, low, high);
    }
    if (!take(r, ']')) {
        fail(r, "a class has no end");
        return;
    }
    struct regex_code *code = put(r, r->flags & FLAG_FOLD ? RE_CLASS_FOLD : RE_CLASS);

    code->negated = negated;
    code->first = (uint16_t)first_range;
    code->n = (uint16_t)(r->re->n_ranges - first_range);
}

/* \Q...\E: the text itself. */
static void parse_quoted(struct re_parser *r)
{
    put(r, RE_NOTHING);
    while (r->p < r->end) {
        if (r->end - r->p >= 2 && r->p[0] == '\\' && r->p[1] == 'E') {
            r->p += 2;
            return;
        }
        put_char(r, next_char(&r->p, r->end));
    }
}

/* After "\". */
static void parse_escaped_atom(struct re_parser *r)
{
    uint32_t first = r->re->n_ranges;

    if (r->p == r->end) {
        fail(r, "the pattern ends in a backslash");
        return;
    }
    uint32_t c = next_char(&r->p, r->end);

    switch (c) {
    case 'A':
        put(r, RE_TEXT_BEGIN);
        return;
    case 'z':
        put(r, RE_TEXT_END);
        return;
    case 'b':
    case 'B':
        put(r, RE_WORD_EDGE)->negated = c == 'B';
        return;
    case 'Q':
        parse_quoted(r);
        return;
    default:
        break;
    }
    if (!add_perl_set(r, c)) {
        put_char(r, parse_escape(r, c));
        return;
    }
    struct regex_code *code = put(r, RE_CLASS);

    code->first = (uint16_t)first;
    code->n = (uint16_t)(r->re->n_ranges - first);
}

/* Flags after "(?", as in (?i) and (?s-m:...). True: a group's content follows. */
static bool parse_flags(struct re_parser *r)
{
    static const char letters[] = "ism";
    bool off = false;

    while (r->p < r->end) {
        uint8_t c = *r->p++;
        const char *known = c ? strchr(letters, c) : NULL;

        if (c == ')')
            return false;
        if (c == ':')
            return true;
        if (c == '-' && !off)
            off = true;
        else if (known)
            r->flags = off ? r->flags & ~(1u << (known - letters)) : r->flags | 1u << (known - letters);
        else
            break;
    }
    fail(r, "unknown group (?...): lookaround is not supported");
    return false;
}

/* (?P<name> or (?<name>: the name means nothing here. */
static bool take_group_name(struct re_parser *r)
{
    const uint8_t *p = r->p;

    if (p < r->end && *p == 'P')
        p++;
    if (p == r->end || *p++ != '<')
        return false;
    const uint8_t *name = p;

    while (p < r->end && is_word(*p))
        p++;
    if (p == name || p == r->end || *p != '>')
        return false;
    r->p = p + 1;
    return true;
}

/* After "(". */
static void parse_group(struct re_parser *r)
{
    unsigned flags = r->flags;

    if (take(r, '?') && !take_group_name(r) && !parse_flags(r)) {
        put(r, RE_NOTHING); /* flags alone hold to the end of the group around */
        return;
    }
    if (++r->depth > REGEX_DEPTH_MAX)
        fail(r, "the pattern has too many groups in groups");
    parse_alternatives(r);
    r->depth--;
    if (!take(r, ')'))
        fail(r, "a group has no end");
    r->flags = flags;
}

static void parse_atom(struct re_parser *r)
{
    uint32_t c = next_char(&r->p, r->end);

    switch (c) {
    case '(':
        parse_group(r);
        break;
    case '[':
        parse_class(r);
        break;
    case '.':
        put(r, r->flags & FLAG_DOT_ALL ? RE_ANY_LINE : RE_ANY);
        break;
    case '^':
        put(r, r->flags & FLAG_LINES ? RE_LINE_BEGIN : RE_TEXT_BEGIN);
        break;
    case '$':
        put(r, r->flags & FLAG_LINES ? RE_LINE_END : RE_TEXT_END);
        break;
    case '\\':
        parse_escaped_atom(r);
        break;
    case '*':
    case '+':
    case '?':
        fail(r, "there is nothing to repeat");
        break;
    default:
        put_char(r, c);
    }
}

static void copy_fragment(struct re_parser *r, uint32_t from, uint32_t len)
{
    for (uint32_t i = 0; i < len && !r->error; i++)
        *put(r, RE_NOTHING) = r->re->code[from + i];
}

static void put_split(struct re_parser *r, uint32_t where, int32_t x, int32_t y)
{
    struct regex_code *code = insert(r, where, RE_SPLIT);

    code->x = (int16_t)x;
    code->y = (int16_t)y;
}

static void star(struct re_parser *r, uint32_t start)
{
    int32_t len = (int32_t)(r->re->n_code - start);

    put_split(r, start, 1, len + 2);
    put(r, RE_JUMP)->x = (int16_t)(-len - 1);
}

/* The fragment from `start`, at least `min` and at most `max` times (UINT32_MAX: any number). */
static void repeat(struct re_parser *r, uint32_t start, uint32_t min, uint32_t max)
{
    uint32_t len = r->re->n_code - start, from = start;
    int32_t over = (int32_t)len + 1;

    if (max == 0) {
        r->re->n_code = start;
        put(r, RE_NOTHING);
        return;
    }
    if (min == 0 && max == UINT32_MAX) {
        star(r, start);
        return;
    }
    if (min == 0) {
        put_split(r, start, 1, over);
        from = start + 1;
    }
    for (uint32_t i = 1; i < min && !r->error; i++)
        copy_fragment(r, from, len);
    if (max == UINT32_MAX) {
        put_split(r, r->re->n_code, -(int32_t)len, 1);
        return;
    }
    for (uint32_t i = min > 0 ? min : 1; i < max && !r->error; i++) {
        put_split(r, r->re->n_code, 1, over);
        copy_fragment(r, from, len);
    }
}

/* "{n}", "{n,}", "{n,m}"; false when the brace is a plain character. */
static bool parse_counts(struct re_parser *r, uint32_t *ret_min, uint32_t *ret_max)
{
    const uint8_t *p = r->p + 1;
    uint32_t v[2] = { 0, UINT32_MAX };
    int n = 0;

    for (; n < 2; n++) {
        const uint8_t *first = p;

        for (uint32_t c = 0; p < r->end && *p >= '0' && *p <= '9'; p++) {
            c = c * 10 + (uint32_t)(*p - '0');
            v[n] = c = c > REGEX_REPEAT_MAX ? REGEX_REPEAT_MAX + 1 : c;
        }
        if (p == first && n == 0)
            return false;
        if (n == 0 && p < r->end && *p == ',')
            p++;
        else
            break;
    }
    if (p == r->end || *p != '}')
        return false;
    if (n == 0)
        v[1] = v[0];
    if (v[0] > REGEX_REPEAT_MAX || (v[1] != UINT32_MAX && (v[1] > REGEX_REPEAT_MAX || v[1] < v[0])))
        fail(r, "bad repeat counts");
    else
        r->p = p + 1;
    *ret_min = v[0];
    *ret_max = v[1];
    return true;
}

static void parse_repeated(struct re_parser *r)
{
    uint32_t start = r->re->n_code, min, max;

    parse_atom(r);
    if (r->p == r->end)
        return;
    if (take(r, '*')) {
        min = 0, max = UINT32_MAX;
    } else if (take(r, '+')) {
        min = 1, max = UINT32_MAX;
    } else if (take(r, '?')) {
        min = 0, max = 1;
    } else if (!at(r, '{') || !parse_counts(r, &min, &max)) {
        return;
    }
    take(r, '?'); /* lazy: the same strings match */
    if (!r->error)
        repeat(r, start, min, max);
    if (at(r, '*') || at(r, '+') || at(r, '?'))
        fail(r, "a repetition of a repetition needs a group");
}

static void parse_alternatives(struct re_parser *r)
{
    struct regex *re = r->re;
    uint32_t start = re->n_code, last_jump = 0; /* index + 1; jumps to the end are chained by `c` */

    for (;;) {
        put(r, RE_NOTHING); /* so that no fragment is empty */
        while (r->p < r->end && !at(r, '|') && !at(r, ')'))
            parse_repeated(r);
        if (!take(r, '|') || r->error)
            break;
        put_split(r, start, 1, (int32_t)(re->n_code - start) + 2);
        put(r, RE_JUMP)->c = last_jump;
        last_jump = start = re->n_code;
    }
    while (last_jump > 0 && !r->error) {
        struct regex_code *jump = &re->code[last_jump - 1];
        uint32_t next = jump->c;

        jump->x = (int16_t)(re->n_code - (last_jump - 1));
        jump->c = 0;
        last_jump = next;
    }
}

const char *regex_compile(struct regex *re, struct cox_slice pattern)
{
    struct re_parser r = { .re = re, .p = pattern.data, .end = pattern.data };

    re->n_code = 0;
    re->n_ranges = 0;
    if (pattern.len > 0)
        r.end += pattern.len;
    parse_alternatives(&r);
    if (!r.error && r.p < r.end)
        r.error = "a `)` has no `(`";
    re->code[re->n_code++] = (struct regex_code){ .op = RE_MATCH };
    return r.error;
}

/* ---- matcher ---- */

struct states {
    uint16_t pc[REGEX_CODE_MAX]; /* that wait for a character */
    uint32_t n;
};

struct matcher {
    const struct regex *re;
    struct states now, next;
    uint32_t seen[REGEX_CODE_MAX]; /* the position (plus 1) at which an instruction was last followed */
    uint16_t stack[REGEX_CODE_MAX];
    uint32_t position;
    bool text_begin, text_end, line_begin, line_end, word_edge;
};

static bool class_has(const struct regex *re, const struct regex_code *code, uint32_t c)
{
    for (uint32_t i = 0; i < code->n; i++) {
        if (c >= re->ranges[code->first + i].low && c <= re->ranges[code->first + i].high)
            return true;
    }
    return false;
}

static bool takes(const struct regex *re, const struct regex_code *code, uint32_t c)
{
    switch ((enum regex_op)code->op) {
    case RE_CHAR:
        return c == code->c;
    case RE_CHAR_FOLD:
        return is_letter(c) && (c | 0x20) == code->c;
    case RE_ANY:
        return c != '\n';
    case RE_ANY_LINE:
        return true;
    case RE_CLASS:
        return class_has(re, code, c) != code->negated;
    case RE_CLASS_FOLD:
        return (class_has(re, code, c) || (is_letter(c) && class_has(re, code, c ^ 0x20))) != code->negated;
    default:
        return false;
    }
}

static bool holds(const struct matcher *m, const struct regex_code *code)
{
    switch ((enum regex_op)code->op) {
    case RE_TEXT_BEGIN:
        return m->text_begin;
    case RE_TEXT_END:
        return m->text_end;
    case RE_LINE_BEGIN:
        return m->line_begin;
    case RE_LINE_END:
        return m->line_end;
    case RE_WORD_EDGE:
        return m->word_edge != code->negated;
    default:
        return true;
    }
}

static void visit(struct matcher *m, uint32_t *n_stack, uint32_t pc)
{
    if (m->seen[pc] == m->position)
        return;
    m->seen[pc] = m->position;
    m->stack[(*n_stack)++] = (uint16_t)pc;
}

/* Follows everything that takes no character, from pc. True: the pattern has matched. */
static bool follow(struct matcher *m, uint32_t start)
{
    uint32_t n_stack = 0;

    visit(m, &n_stack, start);
    while (n_stack > 0) {
        uint32_t pc = m->stack[--n_stack];
        const struct regex_code *code = &m->re->code[pc];

        if (code->op == RE_MATCH)
            return true;
        if (code->op == RE_SPLIT || code->op == RE_JUMP) {
            visit(m, &n_stack, (uint32_t)((int32_t)pc + code->x));
            if (code->op == RE_SPLIT)
                visit(m, &n_stack, (uint32_t)((int32_t)pc + code->y));
        } else if (code->op < RE_SPLIT) {
            m->now.pc[m->now.n++] = (uint16_t)pc;
        } else if (holds(m, code)) {
            visit(m, &n_stack, pc + 1);
        }
    }
    return false;
}

static void look_around(struct matcher *m, bool begin, uint32_t before, bool end, uint32_t after)
{
    bool word_before = !begin && is_word(before), word_after = !end && is_word(after);

    m->text_begin = begin;
    m->text_end = end;
    m->line_begin = begin || before == '\n';
    m->line_end = end || after == '\n';
    m->word_edge = word_before != word_after;
    m->position++;
}

bool regex_search(const struct regex *re, struct cox_slice text)
{
    const uint8_t *p = text.data, *end = text.len > 0 ? p + text.len : p;
    struct matcher m = { .re = re };
    uint32_t before = 0;

    for (bool begin = true;; begin = false) {
        bool at_end = p == end;
        uint32_t c = at_end ? 0 : next_char(&p, end);

        look_around(&m, begin, before, at_end, c);
        m.now.n = 0;
        for (uint32_t i = 0; i < m.next.n; i++) {
            if (follow(&m, m.next.pc[i]))
                return true;
        }
        if (follow(&m, 0))
            return true;
        if (at_end)
            return false;
        m.next.n = 0;
        for (uint32_t i = 0; i < m.now.n; i++) {
            if (takes(re, &re->code[m.now.pc[i]], c))
                m.next.pc[m.next.n++] = (uint16_t)(m.now.pc[i] + 1);
        }
        before = c;
    }
}
