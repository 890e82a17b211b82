#include "roman.h"

#include <stdio.h>
#include <string.h>

static int failed;

static void expect(int n, const char *expected)
{
    char found[32] = "";

    (void)roman(n, found, sizeof(found));
    if (strcmp(found, expected) == 0)
        return;
    printf("FAIL roman(%d) is \"%s\", expected \"%s\"\n", n, found, expected);
    failed++;
}

int main(void)
{
    expect(0, "");
    expect(1, "I");
    expect(4, "IV");
    expect(9, "IX");
    expect(1666, "MDCLXVI");
    expect(1994, "MCMXCIV");
    expect(4000, "");
    printf("%d failed\n", failed);
    return failed != 0;
}
