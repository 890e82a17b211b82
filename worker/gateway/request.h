/* The head of a request to the gateway, read strictly: what two readers could take for different things is
 * refused. Pure. */
#ifndef COX_WORKER_GATEWAY_REQUEST_H
#define COX_WORKER_GATEWAY_REQUEST_H

#include "cox/base/buf.h"

#define REQUEST_HEAD_LEN_MAX 8192u

enum request_method { REQUEST_GET, REQUEST_HEAD, REQUEST_POST, REQUEST_OTHER };

struct request {
    enum request_method method;
    struct cox_slice path; /* as it came: nothing is decoded */
    struct cox_slice key;  /* of Authorization: Bearer; empty: none came */
    bool is_old;           /* HTTP/1.0: its answer cannot come in chunks */
    bool has_len, expects; /* Content-Length; Expect: 100-continue */
    uint64_t len;
};

/* `head` ends with the empty line. Returns 0, or the status that says what is wrong. Slices point into it. */
int request_read(struct cox_slice head, struct request *ret);

/* Appends the lines of a head that was read which somebody behind the gateway may see: about the body, and
 * what names the request. Nothing that says who asks. */
void request_fields(struct cox_slice head, struct cox_buf *out);

#endif
