#include "expr_lex.h"

#include "cox/base/units.h"

#include <stdlib.h>
#include <string.h>

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(int c)
{
    return ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_';
}

/* The byte `ahead` of the place being read, -1 behind the end. */
static int peek(const struct lexer *l, size_t ahead)
{
    return l->next + ahead < l->source.len ? l->source.data[l->next + ahead] : -1;
}

static enum token bad(struct lexer *l, const char *why)
{
    l->bad = why;
    return TOKEN_BAD;
}

static int hex_value(int c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* ---- strings ---- */

/* `n` digits of a base as a character. */
static bool lex_code_point(struct lexer *l, int n, uint32_t base)
{
    uint8_t utf8[4];
    uint32_t c = 0;

    for (int i = 0; i < n; i++) {
        int digit = hex_value(peek(l, 0));

        if (digit < 0 || (uint32_t)digit >= base)
            return false;
        c = c * base + (uint32_t)digit;
        l->next++;
    }
    if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return false;
    cox_buf_append(&l->value, utf8, cox_utf8_encode(utf8, c));
    return true;
}

/* After the backslash. */
static bool lex_escape(struct lexer *l)
{
    static const char from[] = "abfnrtv\\?\"'`", to[] = "\a\b\f\n\r\t\v\\?\"'`";
    int c = peek(l, 0);
    const char *known = c > 0 ? strchr(from, c) : NULL;

    if (known) {
        cox_put_u8(&l->value, (uint8_t)to[known - from]);
        l->next++;
        return true;
    }
    if (c >= '0' && c <= '3')
        return lex_code_point(l, 3, 8);
    l->next++;
    if (c == 'x' || c == 'X')
        return lex_code_point(l, 2, 16);
    return c == 'u' ? lex_code_point(l, 4, 16) : c == 'U' ? lex_code_point(l, 8, 16) : false;
}

static enum token lex_string(struct lexer *l, bool raw)
{
    int quote = peek(l, 0);

    cox_buf_clear(&l->value);
    for (l->next++;;) {
        int c = peek(l, 0);

        if (c < 0 || c == '\n')
            return bad(l, "this string has no end");
        l->next++;
        if (c == quote)
            return TOKEN_STRING;
        if (c != '\\' || raw)
            cox_put_u8(&l->value, (uint8_t)c);
        else if (!lex_escape(l))
            return bad(l, "unknown escape in this string");
    }
}

/* ---- numbers ---- */

static enum token lex_hex(struct lexer *l)
{
    size_t first = l->next += 2;

    l->number = 0;
    for (; hex_value(peek(l, 0)) >= 0; l->next++) {
        if (l->number > (UINT64_C(1) << 59))
            return bad(l, "this integer is too large");
        l->number = l->number * 16 + (uint64_t)hex_value(peek(l, 0));
    }
    return l->next > first ? TOKEN_INT : bad(l, "expected hexadecimal digits");
}

static void skip_digits(struct lexer *l)
{
    while (is_digit(peek(l, 0)))
        l->next++;
}

static enum token lex_number(struct lexer *l)
{
    size_t first = l->next;
    bool real = false;

    if (peek(l, 0) == '0' && (peek(l, 1) | 0x20) == 'x')
        return lex_hex(l);
    skip_digits(l);
    if (peek(l, 0) == '.' && is_digit(peek(l, 1))) {
        real = true;
        l->next++;
        skip_digits(l);
    }
    if ((peek(l, 0) | 0x20) == 'e') {
        real = true;
        l->next++;
        if (peek(l, 0) == '+' || peek(l, 0) == '-')
            l->next++;
        if (!is_digit(peek(l, 0)))
            return bad(l, "expected digits of an exponent");
        skip_digits(l);
    }
    if (is_letter(peek(l, 0)))
        return bad(l, "this is neither a number nor a name");
    if (real)
        return TOKEN_DOUBLE;
    l->number = 0;
    for (size_t i = first; i < l->next; i++) {
        uint64_t digit = (uint64_t)(l->source.data[i] - '0');

        if (l->number > ((UINT64_C(1) << 63) - digit) / 10)
            return bad(l, "this integer is too large");
        l->number = l->number * 10 + digit;
    }
    return TOKEN_INT;
}

/* ---- the rest ---- */

static enum token lex_name(struct lexer *l)
{
    size_t first = l->next;

    while (is_letter(peek(l, 0)) || is_digit(peek(l, 0)))
        l->next++;
    return l->next - first == 2 && memcmp(l->source.data + first, "in", 2) == 0 ? TOKEN_IN : TOKEN_NAME;
}

static enum token lex_sign(struct lexer *l)
{
    static const struct {
        char text[3];
        uint8_t token;
    } signs[] = {
        /* longer ones first */
        { "==", TOKEN_EQ },          { "!=", TOKEN_NE },
        { "<=", TOKEN_LE },          { ">=", TOKEN_GE },
        { "&&", TOKEN_AND },         { "||", TOKEN_OR },
        { "<", TOKEN_LT },           { ">", TOKEN_GT },
        { "!", TOKEN_NOT },          { "-", TOKEN_MINUS },
        { "+", TOKEN_PLUS },         { "*", TOKEN_STAR },
        { "/", TOKEN_SLASH },        { "%", TOKEN_PERCENT },
        { ".", TOKEN_DOT },          { ",", TOKEN_COMMA },
        { ":", TOKEN_COLON },        { "?", TOKEN_QUESTION },
        { "(", TOKEN_OPEN_PAREN },   { ")", TOKEN_CLOSE_PAREN },
        { "[", TOKEN_OPEN_BRACKET }, { "]", TOKEN_CLOSE_BRACKET },
    };

    for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++) {
        if (peek(l, 0) != signs[i].text[0] || (signs[i].text[1] && peek(l, 1) != signs[i].text[1]))
            continue;
        l->next += signs[i].text[1] ? 2 : 1;
        return (enum token)signs[i].token;
    }
    switch (peek(l, 0)) {
    case '=':
        return bad(l, "expected `==`");
    case '&':
        return bad(l, "expected `&&`");
    case '|':
        return bad(l, "expected `||`");
    case '{':
        return bad(l, "map literals are not part of the format");
    default:
        return bad(l, "this character has no meaning here");
    }
}

void lexer_next(struct lexer *l)
{
    while (peek(l, 0) == ' ' || peek(l, 0) == '\t' || peek(l, 0) == '\n' || peek(l, 0) == '\r')
        l->next++;
    size_t first = l->next;
    int c = peek(l, 0), after = peek(l, 1);

    if (c < 0) {
        l->token = TOKEN_END;
    } else if ((c | 0x20) == 'r' && (after == '"' || after == '\'')) {
        l->next++;
        l->token = lex_string(l, true);
    } else if (c == '"' || c == '\'') {
        l->token = lex_string(l, false);
    } else if (is_digit(c)) {
        l->token = lex_number(l);
    } else if (is_letter(c)) {
        l->token = lex_name(l);
    } else {
        l->token = lex_sign(l);
    }
    if (l->token == TOKEN_BAD && l->next == first)
        l->next++;
    while (l->token == TOKEN_BAD && (peek(l, 0) & 0xc0) == 0x80 && peek(l, 0) > 0)
        l->next++; /* whole characters, for the message */
    l->text = cox_slice(l->source.data + first, l->next - first);
}

void lexer_init(struct lexer *l, struct cox_slice source)
{
    *l = (struct lexer){ .source = source };
    lexer_next(l);
}

void lexer_fini(struct lexer *l)
{
    cox_buf_fini(&l->value);
}
