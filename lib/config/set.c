#include "cox/base/units.h"
#include "cox/config.h"

#include <stdlib.h>
#include <string.h>

const char *cox_config_set_text(void *field, char *text)
{
    *(const char **)field = text;
    return *text ? NULL : "something";
}

const char *cox_config_set_switch(void *field, char *text)
{
    bool on = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;

    *(bool *)field = on;
    return on || strcmp(text, "false") == 0 || strcmp(text, "0") == 0 ? NULL : "true or false";
}

const char *cox_config_set_duration(void *field, char *text)
{
    return cox_parse_duration_ms(cox_slice_str(text), field) ? "a duration such as 30s or 10m" : NULL;
}

const char *cox_config_set_size(void *field, char *text)
{
    return cox_parse_size(cox_slice_str(text), field) ? "a size such as 512M or 64Mi" : NULL;
}

const char *cox_config_set_address(void *field, char *text)
{
    static const char expected[] = "HOST:PORT, such as 127.0.0.1:7600";
    const char *colon = strrchr(text, ':');
    char *end;

    *(const char **)field = text;
    if (!colon || colon == text || colon[1] < '0' || colon[1] > '9')
        return expected;
    return strtol(colon + 1, &end, 10) <= 65535 && *end == '\0' ? NULL : expected;
}

const char *cox_config_set_log_level(void *field, char *text)
{
    return cox_log_parse_level(text, field) ? "debug, info, warn or error" : NULL;
}

const char *cox_config_set_log_format(void *field, char *text)
{
    return cox_log_parse_format(text, field) ? "text or json" : NULL;
}
