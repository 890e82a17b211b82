/* What requests have in common that a worker makes for steps: where they may go, and what stops them. */
#ifndef COX_WORKER_HANDLERS_OUTWARD_H
#define COX_WORKER_HANDLERS_OUTWARD_H

#include "handler.h"
#include "reach.h"

#include <curl/curl.h>
#include <netinet/in.h>

#define OUTWARD_CONNECT_LIMIT_MS 30000

/* Of one request; stays where it is until its handle is gone. */
struct outward {
    const struct reach *reach;
    char refused[INET6_ADDRSTRLEN]; /* the last address that it may not connect to; "": none */
    char error[CURL_ERROR_SIZE];
};

void outward_begin(struct outward *o, CURL *easy, const struct reach *reach);

/* Why it failed, into `ret`: `who` begins the message. `r` is not CURLE_OK. */
void outward_judge(struct outward *o, const char *who, CURLcode r, const struct redactor *redactor,
                   struct outcome *ret);

#endif
