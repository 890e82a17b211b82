/* HTTP/1.1 requests: heads and chunked bodies (RFC 9112). Pure: bytes in, slices out.
 *
 * Strict where laxness lets two readers of one stream disagree: one Host, one Content-Length or
 * Transfer-Encoding, lines ended by CRLF (in heads a bare LF is taken too; in bodies, whose readers disagree
 * about it, not; a bare CR never), no folding, no white space before the colon. */
#ifndef COX_ORCHESTRATOR_EDGE_PARSE_H
#define COX_ORCHESTRATOR_EDGE_PARSE_H

#include "cox/base/buf.h"

#define EDGE_HEAD_LEN_MAX ((size_t)32 << 10)
#define EDGE_TARGET_LEN_MAX ((size_t)8 << 10)
#define EDGE_HEADERS_MAX 100u

struct edge_header {
    struct cox_slice name;
    struct cox_slice value; /* trimmed */
};

/* Everything is borrowed from the text that was read. */
struct edge_head {
    struct cox_slice method;
    struct cox_slice target; /* "/path?query" */
    struct edge_header headers[EDGE_HEADERS_MAX];
    size_t n_headers;
    unsigned minor; /* HTTP/1.minor: 0 or 1 */
    bool keep_alive;
    bool chunked;
    bool expects_continue;
    bool has_length;
    uint64_t body_len; /* with has_length */
};

/* Reads a head from the front of `in`. *ret_len is its length, the empty line included, 0 when more bytes are
 * needed. Returns 0, or the HTTP status of a refusal with its reason in *ret_why. */
int edge_parse_head(struct cox_slice in, struct edge_head *ret, size_t *ret_len, const char **ret_why);

/* The first header of this name (any case), data NULL when absent; and how many there are. */
struct cox_slice edge_header(const struct edge_head *h, const char *name);
bool edge_header_has(struct cox_slice list, const char *token); /* "gzip, br;q=0": is it offered? */
bool edge_slice_is_nocase(struct cox_slice s, const char *text);

struct edge_chunked {
    enum { EDGE_CHUNK_SIZE, EDGE_CHUNK_DATA, EDGE_CHUNK_DATA_END, EDGE_CHUNK_TRAILER, EDGE_CHUNK_DONE } state;
    uint64_t left;    /* of the chunk */
    size_t line_len;  /* of the size line or the trailer line under way */
    size_t extra_len; /* of all size lines' extensions and trailers */
    unsigned n_digits;
    bool in_extension;
    bool had_cr;
};

/* Takes bytes from the front of `in` and appends what they carry to `out` (at most `out_max` bytes a call).
 * Returns the bytes taken, or SIZE_MAX for what is not chunked coding. Over when state is EDGE_CHUNK_DONE. */
size_t edge_parse_chunked(struct edge_chunked *c, struct cox_slice in, size_t out_max, struct cox_buf *out);

/* A parameter of the path or the query, decoded. */
struct edge_param {
    struct cox_slice name;
    struct cox_slice value;
};
#define EDGE_PARAMS_MAX 128u

/* Appends the characters that percent-encoded text stands for; '+' is a space when `form`. False when an
 * escape is broken or what comes out is not UTF-8 or has a NUL. */
bool edge_decode(struct cox_slice text, bool form, struct cox_buf *out);

/* The parameters of a query, in memory of `*memory`. Returns SIZE_MAX when it is malformed or has too many.
 */
size_t edge_parse_query(struct cox_slice query, struct cox_buf *memory, struct edge_param *ret);

#endif
