/* Any bytes as what a server of the Model Context Protocol says: the first byte chooses transport and
 * question, the rest are its messages, a line each, as they are or as the answer to what it was asked last.
 * The same bytes as a stream of events. */
#include "fuzz.h"

#include "mcp/client.h"
#include "mcp/events.h"
#include "mcp/tools.h"

#include "cox/base/units.h"
#include "cox/json.h"

#include <string.h>

#define SENT_MAX 20000u

struct peer {
    struct mcp_client *client;
    uint64_t last_id;
    unsigned n_sent, n_done;
    bool broken;
};

static void on_send(void *user, const struct mcp_outgoing *m)
{
    struct peer *p = user;

    COX_ASSERT(cox_json_check(m->text, NULL) == COX_OK && !memchr(m->text.data, '\n', m->text.len));
    COX_ASSERT(++p->n_sent < SENT_MAX);
    for (size_t i = 0; i < m->params.len; i++)
        COX_ASSERT(m->params.data[i] == '\n' || m->params.data[i] == '\t' ||
                   (m->params.data[i] >= 32 && m->params.data[i] < 127));
    if (m->id)
        p->last_id = m->id;
}

static void on_drop(void *user, uint64_t id)
{
    (void)user;
    COX_ASSERT(id > 0);
}

static void on_ready(void *user)
{
    (void)user;
}

static void on_broken(void *user)
{
    ((struct peer *)user)->broken = true;
}

static void on_done(struct mcp_request *r, struct outcome *o)
{
    struct peer *p = r->user;

    p->n_done++;
    COX_ASSERT(o->code < COX_CODE_NR && o->message.len <= COX_ERROR_MESSAGE_LEN_MAX);
    COX_ASSERT(cox_utf8_ok(cox_buf_slice(&o->message)));
    COX_ASSERT(o->output.len > 0 || o->code != COX_CODE_NONE);
    COX_ASSERT(o->output.len == 0 || cox_json_check(cox_buf_slice(&o->output), NULL) == COX_OK);
}

static void on_log(struct mcp_request *r, struct cox_slice text)
{
    (void)r;
    (void)text;
}

static void take(struct peer *p, struct cox_slice line, bool via)
{
    mcp_client_take(p->client, line, via ? p->last_id : 0);
    if (line.len > 1 && line.data[0] == '#')
        mcp_client_rejected(p->client, p->last_id, 200 + 100 * (line.data[1] & 3) + (line.data[1] >> 2 & 7),
                            cox_slice(line.data + 2, line.len - 2), (line.data[1] & 128) != 0);
    else if (line.len > 0 && line.data[0] == '!')
        mcp_client_probe_late(p->client);
}

/* "@..." becomes the answer to the last request: {"jsonrpc":"2.0","id":N,...}. */
static void take_answer(struct peer *p, struct cox_slice rest, bool via)
{
    struct cox_buf text = { 0 };

    cox_buf_printf(&text, "{\"jsonrpc\":\"2.0\",\"id\":%llu,", (unsigned long long)p->last_id);
    cox_buf_append_slice(&text, rest);
    cox_buf_append_str(&text, "}");
    mcp_client_take(p->client, cox_buf_slice(&text), via ? p->last_id : 0);
    cox_buf_fini(&text);
}

static bool on_event(void *user, struct cox_slice data)
{
    *(uint64_t *)user = *(uint64_t *)user * 31 + cox_hash64(data.data, data.len);
    return true;
}

/* However it is cut, the same events come. */
static void check_events(struct cox_slice all)
{
    uint64_t whole = 0, pieces = 0;
    struct mcp_events a = { 0 }, b = { 0 };
    enum cox_err err = mcp_events_feed(&a, all, 1000, on_event, &whole), last = COX_OK;

    for (size_t i = 0; i < all.len && last == COX_OK; i++)
        last = mcp_events_feed(&b, cox_slice(all.data + i, 1), 1000, on_event, &pieces);
    COX_ASSERT(err != COX_OK || (last == COX_OK && whole == pieces && a.n == b.n));
    COX_ASSERT(err != COX_OK || cox_slice_eq(cox_buf_slice(&a.last_id), cox_buf_slice(&b.last_id)));
    mcp_events_fini(&a);
    mcp_events_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct mcp_client_ops ops = {
        .send = on_send, .drop = on_drop, .ready = on_ready, .broken = on_broken
    };
    struct peer p = { 0 };
    struct mcp_request r = { .what = size > 0 && data[0] & 1 ? MCP_LIST_TOOLS : MCP_CALL_TOOL,
                             .tool = cox_slice_str("\"t\""),
                             .arguments = cox_slice_str("{\"a\":\"\xc3\xa4\\n\",\"b\":7,\"c\":{\"d\":true}}"),
                             .on_done = on_done,
                             .on_log = on_log,
                             .user = &p };
    bool http = size > 0 && data[0] & 2;
    struct cox_slice left = size > 0 ? cox_slice(data + 1, size - 1) : cox_slice(NULL, 0);

    check_events(left);
    p.client = mcp_client_create(&ops, &p, http);
    mcp_client_ask(p.client, &r);
    while (left.len > 0) {
        const uint8_t *end = memchr(left.data, '\n', left.len);
        size_t len = end ? (size_t)(end - left.data) : left.len;

        if (len > 0 && left.data[0] == '@')
            take_answer(&p, cox_slice(left.data + 1, len - 1), http);
        else
            take(&p, cox_slice(left.data, len), http);
        left = cox_slice(left.data + len + (end != NULL), left.len - len - (end != NULL));
    }
    if (p.n_done == 0)
        mcp_client_cancel(p.client, &r);
    COX_ASSERT(p.n_done <= 1);
    mcp_client_destroy(p.client);
    return 0;
}
