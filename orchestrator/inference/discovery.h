/* Where endpoints are that nobody writes into the configuration: files and names that are looked at again. On
 * threads of its own, for a disk or a name server may be slow; what they find is told on the loop's.
 *
 * Files are looked at every second and read when they have changed: their date, size or inode. (Not inotify:
 * it sees no change on network file systems, nor the exchanged links of a mounted ConfigMap.) Names are
 * resolved every 10 s by the system's resolver, getaddrinfo and res_nquery: they mean what they mean to every
 * other program of this host, /etc/hosts and search domains included.
 *
 * What cannot be read, or does not resolve, changes nothing and is logged once. Thread: the loop's. */
#ifndef COX_ORCHESTRATOR_INFERENCE_DISCOVERY_H
#define COX_ORCHESTRATOR_INFERENCE_DISCOVERY_H

#include "catalogue_text.h"

struct discovery;
struct discovery_source;

/* `found` is the callee's: URLs and perhaps more, of what `source` is watched for. It may be called again
 * with the same. */
typedef void discovery_on_found(void *user, struct endpoint_text *found, size_t n_found);

struct discovery *discovery_create(struct event_base *base, discovery_on_found *on_found);
/* Nothing is told any more. NULL is allowed. */
void discovery_destroy(struct discovery *d);

/* Looks at once, and again and again. */
struct discovery_source *discovery_watch(struct discovery *d, enum discovery_kind kind, const char *what,
                                         void *user);
void discovery_unwatch(struct discovery *d, struct discovery_source *s); /* NULL is allowed */

#endif
