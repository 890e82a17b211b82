/* What is kept of a stream of bytes: its end, and a log that somebody may read while it grows.
 * Bounded, whatever comes. Thread: one. */
#ifndef COX_WORKER_TAIL_H
#define COX_WORKER_TAIL_H

#include "cox/base/buf.h"
#include "cox/base/list.h"

/* The last `len_max` bytes. Cost: amortised O(1) a byte; memory up to twice the bound. */
struct tail {
    struct cox_buf bytes;
    size_t len_max;
    bool cut; /* there was more */
};
void tail_append(struct tail *t, struct cox_slice data);
struct cox_slice tail_slice(const struct tail *t); /* does not begin within a UTF-8 character if it was cut */
void tail_fini(struct tail *t);

/* Where a piece of a log came from; values as in the proto. */
enum livelog_stream { LIVELOG_STDOUT = 1, LIVELOG_STDERR = 2 };

#define LIVELOG_PIECE_LEN_MAX ((size_t)64 << 10)

struct livelog_piece {
    struct cox_list link;
    enum livelog_stream stream;
    struct cox_buf bytes;
};

/* The last `len_max` bytes of both streams, in the order in which they were read, and one reader. */
struct livelog {
    struct cox_list pieces;
    size_t len; /* overhead included */
    size_t len_max;
    struct livelog_piece *unread; /* the reader's next piece; NULL: it has seen all */
    size_t unread_at;             /* and how much of it has been read */
    bool dropped;                 /* pieces that the reader had not seen are gone, or come again */
    bool was_read;                /* some of it */
};
void livelog_init(struct livelog *l, size_t len_max);
void livelog_fini(struct livelog *l);
void livelog_append(struct livelog *l, enum livelog_stream stream, struct cox_slice data);
void livelog_rewind(struct livelog *l); /* the reader begins (again) with the oldest piece that is kept */

/* What comes next for the reader; false: nothing yet. livelog_advance takes it.
 *   ret_data     borrowed until the next append
 *   ret_dropped  something before it is gone, or it begins again */
bool livelog_peek(const struct livelog *l, enum livelog_stream *ret_stream, struct cox_slice *ret_data,
                  bool *ret_dropped);
void livelog_advance(struct livelog *l);

#endif
