#include "retry_after.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#define MS_MAX (3600 * 1000)
#define UNREAD_MS 1000

static const char *as_text(struct cox_slice s, char ret[64])
{
    size_t len = s.len < 63 ? s.len : 63;

    if (len > 0)
        memcpy(ret, s.data, len);
    ret[len] = '\0';
    return ret;
}

static int64_t bounded(double ms)
{
    return ms > MS_MAX ? MS_MAX : ms > 0 ? (int64_t)ms : 0;
}

int64_t retry_after_ms(struct cox_slice text, struct cox_slice date, int64_t wall_ms)
{
    char said[64], now_said[64], *end;

    if (text.len == 0)
        return -1;
    double s = strtod(as_text(text, said), &end);

    if (end != said && s >= 0)
        return bounded(s * 1000);
    time_t until = curl_getdate(said, NULL), now = curl_getdate(as_text(date, now_said), NULL);

    if (until < 0)
        return UNREAD_MS;
    return bounded(now < 0 ? (double)until * 1000 - (double)wall_ms : difftime(until, now) * 1000);
}
