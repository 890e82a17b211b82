/* Any bytes as what a connection brings: a head, a body in chunked coding behind it, its target as a route
 * and a query, its body as JSON of the route's message. Refused with a status and words, or taken; and what a
 * cut makes of it: a head is not whole before its last byte. */
#include "fuzz.h"

#include "edge/map.h"
#include "edge/route.h"

#include "cox/base/units.h"
#include "cox/wire.h"

#include <string.h>

static void check_chunked(struct cox_slice in)
{
    struct edge_chunked whole = { 0 }, pieces = { 0 };
    struct cox_buf a = { 0 }, b = { 0 };
    size_t taken = edge_parse_chunked(&whole, in, SIZE_MAX, &a), at = 0, n = 0;

    COX_ASSERT(taken == SIZE_MAX || (taken <= in.len && a.len <= in.len));
    while (at < in.len && pieces.state != EDGE_CHUNK_DONE) {
        n = edge_parse_chunked(&pieces, cox_slice(in.data + at, 1), SIZE_MAX, &b);
        if (n == SIZE_MAX)
            break;
        at += n;
    }
    COX_ASSERT((taken == SIZE_MAX) == (n == SIZE_MAX)); /* however it is cut, it means the same */
    COX_ASSERT(taken == SIZE_MAX || (taken == at && cox_slice_eq(cox_buf_slice(&a), cox_buf_slice(&b))));
    cox_buf_fini(&a);
    cox_buf_fini(&b);
}

static void check_mapping(const struct route *r, const struct edge_param *path, size_t n_path,
                          struct cox_slice query, const struct edge_head *h, struct cox_slice body)
{
    static struct edge_param params[EDGE_PARAMS_MAX];
    struct cox_buf memory = { 0 }, packed = { 0 };
    struct map_error error = { { 0 }, { 0 } };
    size_t n = edge_parse_query(query, &memory, params);

    if (n != SIZE_MAX && r->service) {
        const struct map_input in = {
            route_input(r), path, n_path, params, n, body, edge_header(h, "idempotency-key")
        };
        if (map_request(&in, &packed, &error))
            COX_ASSERT(error.description.len > 0 && packed.len == 0);
        ProtobufCMessage *m =
            protobuf_c_message_unpack(route_input(r), &cox_wire_allocator, packed.len, packed.data);
        COX_ASSERT(m);
        protobuf_c_message_free_unpacked(m, NULL);
    }
    map_error_fini(&error);
    cox_buf_fini(&memory);
    cox_buf_fini(&packed);
}

static void check_target(const struct edge_head *h, struct cox_slice body)
{
    const uint8_t *mark = memchr(h->target.data, '?', h->target.len);
    size_t len = mark ? (size_t)(mark - h->target.data) : h->target.len;
    struct edge_param params[ROUTE_PARAMS_MAX];
    struct cox_buf memory = { 0 }, allowed = { 0 };
    size_t n = 0;
    const struct route *r =
        route_find(h->method, cox_slice(h->target.data, len), &memory, params, &n, &allowed);

    for (size_t i = 0; r && i < n; i++)
        COX_ASSERT(params[i].value.len > 0 && cox_utf8_ok(params[i].value));
    if (r)
        check_mapping(r, params, n,
                      cox_slice(h->target.data + len + (mark != NULL), h->target.len - len - (mark != NULL)),
                      h, body);
    cox_buf_fini(&memory);
    cox_buf_fini(&allowed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct edge_head h;
    const char *why = NULL;
    size_t len = 0, cut_len = 0;
    int status = edge_parse_head(cox_slice(data, size), &h, &len, &why);

    COX_ASSERT(len <= size);
    if (status) {
        COX_ASSERT(status >= 400 && status < 600 && why && len == 0);
        return 0;
    }
    if (len == 0)
        return 0;
    COX_ASSERT(h.n_headers <= EDGE_HEADERS_MAX && h.target.data[0] == '/');
    check_target(&h, cox_slice(data + len, size - len));
    check_chunked(cox_slice(data + len, size - len));
    COX_ASSERT(edge_parse_head(cox_slice(data, len - 1), &h, &cut_len, &why) == 0 && cut_len == 0);
    return 0;
}
