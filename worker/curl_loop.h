/* libcurl's multi interface in a libevent loop: its sockets, its timer, and who is told of what has ended.
 * Thread: the loop's. */
#ifndef COX_WORKER_CURL_LOOP_H
#define COX_WORKER_CURL_LOOP_H

#include <curl/curl.h>
#include <event2/event.h>

struct curl_loop {
    struct event_base *base;
    CURLM *multi; /* handles are added and removed by whoever has them */
    struct event *timer;
    void (*on_done)(void *owner, CURLcode result);
};

/* `on_done` is told a handle's CURLOPT_PRIVATE, from the loop; it may remove and clean up the handle. */
void curl_loop_init(struct curl_loop *l, struct event_base *base,
                    void (*on_done)(void *owner, CURLcode result));
void curl_loop_fini(struct curl_loop *l); /* its handles have been removed by then */

#endif
