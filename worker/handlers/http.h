/* The `http` handler: one request a call, on the thread's event loop, without a process. */
#ifndef COX_WORKER_HANDLERS_HTTP_H
#define COX_WORKER_HANDLERS_HTTP_H

#include "handler.h"
#include "reach.h"

#define HTTP_REDIRECTS_MAX 5
#define HTTP_HEADERS_LEN_MAX (64u << 10)
#define HTTP_BODY_LEN_MAX (64u << 20)

struct http;

/* `reach` is copied. */
struct http *http_create(struct handler_host *host, const struct reach *reach);
void http_destroy(struct http *http); /* its calls are destroyed before. NULL is allowed */

/* As other handlers start. */
struct call *http_call(struct http *http, const struct call_args *args,
                       void (*on_done)(struct call *call, struct outcome *outcome),
                       void (*on_log)(struct call *call, enum livelog_stream stream, struct cox_slice data),
                       void *user);

#endif
