/* HTTP/1.1 for the simulated server: enough of it, kept alive, thousands of connections, with the ill manners
 * that faults need. One request of a connection at a time; pipelined ones wait. Thread: the loop's.
 */
#ifndef COX_MODELSIM_HTTP_H
#define COX_MODELSIM_HTTP_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

#include <event2/event.h>

#define HTTP_HEAD_LEN_MAX (64u << 10)
#define HTTP_BODY_LEN_MAX (64u << 20)
#define HTTP_OUT_LEN_MAX (64u << 20) /* not taken by the client: it is cut off */

struct http_server;
struct http_conn;

struct http_request {
    struct cox_slice method, path, query, head, body;
};
/* The value of a header, trimmed; empty: none. */
struct cox_slice http_header(const struct http_request *q, const char *name);

struct http_config {
    struct event_base *base;
    const char *address;  /* "127.0.0.1:0" */
    const char *identity; /* the Server header */
    /* Answer now or later. */
    void (*on_request)(void *user, struct http_conn *c, const struct http_request *q);
    void *user;
};
/* Errors: COX_ERR_INVALID (no such address), COX_ERR_UNAVAILABLE (cannot listen). */
COX_MUST_CHECK enum cox_err http_listen(const struct http_config *config, struct http_server **ret);
void http_destroy(struct http_server *s); /* connections too; NULL is allowed */
uint16_t http_port(const struct http_server *s);
/* Refuses connections, and breaks those that there are; or listens again, on the same port. */
COX_MUST_CHECK enum cox_err http_refuse(struct http_server *s, bool refuse);
size_t http_n_connections(const struct http_server *s);

/* Told once when the client is gone before the answer is whole; NULL: no more. */
void http_watch(struct http_conn *c, void (*on_gone)(void *user), void *user);

/* A whole answer. `headers` are lines that end in CRLF, or "". */
void http_answer(struct http_conn *c, int status, const char *content_type, const char *headers,
                 struct cox_slice body);
/* Bytes as they are, a whole answer: made by http_put_answer beforehand. */
void http_answer_raw(struct http_conn *c, struct cox_slice bytes);
void http_put_answer(struct cox_buf *out, const char *identity, int status, const char *content_type,
                     const char *headers, struct cox_slice body);

/* An answer in pieces. What is put is sent by http_flush. */
void http_begin(struct http_conn *c, int status, const char *content_type, const char *headers);
void http_put(struct http_conn *c, struct cox_slice piece);
void http_put_raw(struct http_conn *c, struct cox_slice bytes); /* without the framing of a chunk */
void http_flush(struct http_conn *c);
void http_end(struct http_conn *c);

/* Broken off: reset; or no more is sent, and the client has to close. on_gone is not told of a reset. */
void http_reset(struct http_conn *c);
void http_half_close(struct http_conn *c);

#endif
