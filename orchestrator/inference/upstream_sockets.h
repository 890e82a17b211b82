/* curl's sockets in libevent, with as little to and fro as can be: curl forgets a connection between two
 * requests and asks for it again with the next, while the kernel need not hear of either. */
#ifndef COX_ORCHESTRATOR_INFERENCE_UPSTREAM_SOCKETS_H
#define COX_ORCHESTRATOR_INFERENCE_UPSTREAM_SOCKETS_H

#include <event2/event.h>

struct upstream_sockets;

/* `on_ready` gets what curl_multi_socket_action wants; `multi` is a CURLM. */
struct upstream_sockets *upstream_sockets_create(struct event_base *base, void *multi,
                                                 void (*on_ready)(void *user, int fd, int what), void *user);
void upstream_sockets_destroy(struct upstream_sockets *s); /* after its multi */
/* An easy handle of this multi opens and closes its sockets here. */
void upstream_sockets_use(struct upstream_sockets *s, void *easy);

#endif
