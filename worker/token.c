#include "token.h"

#include "cox/base/alloc.h"
#include "cox/base/log.h"

#include <stdio.h>
#include <string.h>

#define TOKEN_LEN_MAX 512

char *token_authorization(const char *path)
{
    char text[TOKEN_LEN_MAX + 2] = "";
    FILE *f = path ? fopen(path, "re") : NULL;
    char *authorization = NULL;

    if (!path)
        return NULL;
    if (f && fgets(text, sizeof(text), f))
        text[strcspn(text, " \t\r\n")] = '\0';
    if (f)
        (void)fclose(f);
    if (*text)
        authorization = cox_asprintf("Bearer %s", text);
    else
        cox_log(COX_LOG_ERROR, "there is no token in the file", "file", path, NULL);
    memset(text, 0, sizeof(text));
    return authorization;
}
