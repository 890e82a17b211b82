#include "outward.h"

#include "cox/base/plant.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

/* CURLOPT_OPENSOCKETFUNCTION: each address that a name stands for is tried, so one that may not be reached is
 * passed over. */
static curl_socket_t open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct outward *o = user;
    const struct sockaddr *to = &address->addr;
    char name[NI_MAXHOST] = "?";

    (void)purpose;
    if (reach_permits(o->reach, to) || COX_PLANTED("reaches-all"))
        return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    (void)getnameinfo(to, address->addrlen, name, sizeof(name), NULL, 0, NI_NUMERICHOST);
    (void)snprintf(o->refused, sizeof(o->refused), "%s", name);
    return CURL_SOCKET_BAD;
}

void outward_begin(struct outward *o, CURL *easy, const struct reach *reach)
{
    o->reach = reach;
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, o->error);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, o);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)OUTWARD_CONNECT_LIMIT_MS);
    curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* else ending waits for a name server, and all slots */
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "coxswain/" COX_VERSION);
}

static enum cox_code code_of_failure(CURLcode r)
{
    switch (r) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_BAD_FUNCTION_ARGUMENT:
        return COX_CODE_INPUT_INVALID;
    case CURLE_TOO_MANY_REDIRECTS:
    case CURLE_WEIRD_SERVER_REPLY:
        return COX_CODE_OUTPUT_INVALID;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return COX_CODE_DENIED;
    default:
        return COX_CODE_UNAVAILABLE;
    }
}

void outward_judge(struct outward *o, const char *who, CURLcode r, const struct redactor *redactor,
                   struct outcome *ret)
{
    if (redactor && strlen(o->error) + 1 == sizeof(o->error))
        o->error[0] = 0; /* it was cut, perhaps within a secret, which nobody would know by its half */
    if (r == CURLE_COULDNT_CONNECT && o->refused[0]) {
        ret->code = COX_CODE_DENIED;
        cox_buf_printf(
            &ret->message,
            "%s: %s is not a public address; cox-worker's --http-allow says which others steps may reach",
            who, o->refused);
        return;
    }
    ret->code = code_of_failure(r);
    cox_buf_printf(&ret->message, "%s: ", who);
    outcome_say(ret, cox_slice_str(o->error[0] ? o->error : curl_easy_strerror(r)));
}
