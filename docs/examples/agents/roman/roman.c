#include "roman.h"

#include <string.h>

static const struct {
    int value;
    const char *digits;
} numerals[] = {
    { 1000, "M" }, { 500, "D" }, { 100, "C" }, { 50, "L" }, { 10, "X" }, { 5, "V" }, { 1, "I" },
};

int roman(int n, char *text, size_t size)
{
    size_t used = 0;

    if (n < 1 || n > 3999)
        return 0;
    for (size_t i = 0; i < sizeof(numerals) / sizeof(numerals[0]); i++) {
        for (; n >= numerals[i].value; n -= numerals[i].value) {
            size_t len = strlen(numerals[i].digits);
            if (used + len >= size)
                return 0;
            memcpy(text + used, numerals[i].digits, len);
            used += len;
        }
    }
    text[used] = '\0';
    return 1;
}
