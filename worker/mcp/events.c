#include "events.h"

#include <string.h>

void mcp_events_fini(struct mcp_events *e)
{
    cox_buf_fini(&e->last_id);
    cox_buf_fini(&e->line);
    cox_buf_fini(&e->data);
    cox_buf_fini(&e->id);
}

void mcp_events_restart(struct mcp_events *e)
{
    cox_buf_clear(&e->line);
    cox_buf_clear(&e->data);
    cox_buf_clear(&e->id);
    e->has_data = e->has_id = e->cr = e->begun = false;
}

static void set_id(struct mcp_events *e, struct cox_slice value)
{
    if (value.len > MCP_EVENT_ID_LEN_MAX)
        return;
    for (size_t i = 0; i < value.len; i++)
        if (value.data[i] < 32) /* it goes into a header */
            return;
    cox_buf_clear(&e->id);
    cox_buf_append_slice(&e->id, value);
    e->has_id = true;
}

static void set_retry(struct mcp_events *e, struct cox_slice value)
{
    int64_t ms = 0;

    for (size_t i = 0; i < value.len; i++) {
        if (value.data[i] < '0' || value.data[i] > '9' || ms > 1000000000)
            return;
        ms = ms * 10 + (value.data[i] - '0');
    }
    if (value.len > 0)
        e->retry_ms = ms;
}

static void take_field(struct mcp_events *e)
{
    const uint8_t *colon = e->line.len > 0 ? memchr(e->line.data, ':', e->line.len) : NULL;
    size_t name_len = colon ? (size_t)(colon - e->line.data) : e->line.len;
    struct cox_slice name = cox_slice(e->line.data, name_len), value = { 0 };

    if (colon)
        value = cox_slice(colon + 1, e->line.len - name_len - 1);
    if (value.len > 0 && value.data[0] == ' ')
        value = cox_slice(value.data + 1, value.len - 1);
    if (cox_slice_is(name, "data")) {
        if (e->has_data)
            cox_buf_append_str(&e->data, "\n");
        cox_buf_append_slice(&e->data, value);
        e->has_data = true;
    } else if (cox_slice_is(name, "id")) {
        set_id(e, value);
    } else if (cox_slice_is(name, "retry")) {
        set_retry(e, value);
    }
}

static bool dispatch(struct mcp_events *e, bool (*on_event)(void *user, struct cox_slice data), void *user)
{
    struct cox_buf data = e->data;
    bool go_on = true;

    if (!e->has_data && !e->has_id)
        return true;
    e->n++;
    if (e->has_id) {
        cox_buf_clear(&e->last_id);
        cox_buf_append_slice(&e->last_id, cox_buf_slice(&e->id));
    }
    e->has_data = e->has_id = false;
    e->data = (struct cox_buf){ 0 };
    if (data.len > 0)
        go_on = on_event(user, cox_buf_slice(&data));
    cox_buf_fini(&data);
    return go_on;
}

static bool end_line(struct mcp_events *e, bool (*on_event)(void *user, struct cox_slice data), void *user)
{
    static const uint8_t mark[] = { 0xEF, 0xBB, 0xBF };
    bool go_on = true;

    if (!e->begun && e->line.len >= sizeof(mark) && memcmp(e->line.data, mark, sizeof(mark)) == 0) {
        e->line.len -= sizeof(mark);
        memmove(e->line.data, e->line.data + sizeof(mark), e->line.len);
    }
    e->begun = true;
    if (e->line.len == 0)
        go_on = dispatch(e, on_event, user);
    else if (e->line.data[0] != ':')
        take_field(e);
    cox_buf_clear(&e->line);
    return go_on;
}

/* How far the line goes on in `piece`. */
static size_t line_len(struct cox_slice piece)
{
    const uint8_t *lf = piece.len > 0 ? memchr(piece.data, '\n', piece.len) : NULL;
    size_t len = lf ? (size_t)(lf - piece.data) : piece.len;
    const uint8_t *cr = len > 0 ? memchr(piece.data, '\r', len) : NULL;

    return cr ? (size_t)(cr - piece.data) : len;
}

enum cox_err mcp_events_feed(struct mcp_events *e, struct cox_slice piece, size_t len_max,
                             bool (*on_event)(void *user, struct cox_slice data), void *user)
{
    while (piece.len > 0) {
        size_t len = e->cr && piece.data[0] == '\n' ? 0 : line_len(piece);

        if (e->cr && piece.data[0] == '\n') { /* the line had ended with CR already */
            e->cr = false;
            piece = cox_slice(piece.data + 1, piece.len - 1);
            continue;
        }
        e->cr = false;
        if (e->line.len + e->data.len + len > len_max)
            return COX_ERR_FULL;
        cox_buf_append(&e->line, piece.data, len);
        if (len == piece.len)
            return COX_OK;
        e->cr = piece.data[len] == '\r';
        piece = cox_slice(piece.data + len + 1, piece.len - len - 1);
        if (!end_line(e, on_event, user))
            return COX_OK;
    }
    return COX_OK;
}
