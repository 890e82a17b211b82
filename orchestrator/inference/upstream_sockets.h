/* curl's sockets in libevent, with as little to and fro as can be: curl forgets a connection between two
 * requests and asks for it again with the next, while the kernel need not hear of either. */
#ifndef COX_ORCHESTRATOR_INFERENCE_UPSTREAM_SOCKETS_H
#define COX_ORCHESTRATOR_INFERENCE_UPSTREAM_SOCKETS_H

#include <event2/event.h>
#include <stdint.h>

struct upstream_sockets;

/* `on_ready` gets what curl_multi_socket_action wants, for the lane that uses the socket. */
typedef void upstream_on_ready(void *lane, int fd, int what);
struct upstream_sockets *upstream_sockets_create(struct event_base *base, upstream_on_ready *on_ready);
void upstream_sockets_destroy(struct upstream_sockets *s); /* after all multis */
/* A multi handle (CURLM) says here what it waits for. */
void upstream_sockets_serve(struct upstream_sockets *s, void *multi, void *lane);
/* A socket for an easy handle of any of them, counted in *n_open until it is closed; -1: errno says why not.
 */
int upstream_sockets_open(struct upstream_sockets *s, int family, int type, int protocol, uint32_t *n_open);
uint32_t upstream_sockets_n_open(const struct upstream_sockets *s);
int upstream_sockets_close(void *sockets, int fd); /* for CURLOPT_CLOSESOCKETFUNCTION */

#endif
