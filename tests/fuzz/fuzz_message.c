/* Any text as what people and workers say to a coxd, a line each:
 *
 *   SubmitTask {"document": ...}   a call with its message, as JSON; Attach and PutBlob stay open
 *   SubmitTask #0a02...            the same as bytes of protobuf
 *   > {...}  or  >3 {...}          a further message of the newest open stream, or of the call with a number
 *   /3  -3                         that call is half-closed, left by its caller
 *   +1500                          milliseconds pass
 *   !  *                           a checkpoint; a restart
 *   # history                      as the first line: metrics are kept over time, for GetHistory
 *
 * Nothing ends it; whatever leaves is readable by any reader; every call is answered, by a status with words
 * if not by a message; invariants hold; and the log alone gives the same state. */
#include "fuzz_coxd.h"
#include "fuzz_mutate.h"

#include "cox/base/units.h"
#include "cox/wire.h"

#include <stdlib.h>
#include <string.h>

#define LINES_MAX 40
#define PASS_MS_MAX 100000000LL

static bool take_number(struct cox_slice *s, int64_t max, int64_t *ret)
{
    int64_t n = 0;
    size_t i = 0;

    for (; i < s->len && s->data[i] >= '0' && s->data[i] <= '9' && n <= max; i++)
        n = n * 10 + (s->data[i] - '0');
    *s = cox_slice(s->data + i, s->len - i);
    *ret = n > max ? max : n;
    return i > 0;
}

static struct cox_slice trim(struct cox_slice s)
{
    while (s.len > 0 && s.data[0] == ' ')
        s = cox_slice(s.data + 1, s.len - 1);
    return s;
}

static int hex(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static ProtobufCMessage *read_bytes(const ProtobufCMessageDescriptor *kind, struct cox_slice text)
{
    struct cox_buf bytes = { 0 };

    for (size_t i = 0; i + 1 < text.len && hex(text.data[i]) >= 0 && hex(text.data[i + 1]) >= 0; i += 2)
        cox_put_u8(&bytes, (uint8_t)(hex(text.data[i]) << 4 | hex(text.data[i + 1])));
    ProtobufCMessage *m = protobuf_c_message_unpack(kind, NULL, bytes.len, bytes.data);
    cox_buf_fini(&bytes);
    return m;
}

/* NULL: refused before any service sees it. */
static ProtobufCMessage *read_message(const ProtobufCMessageDescriptor *kind, struct cox_slice text)
{
    struct cox_buf error = { 0 };
    ProtobufCMessage *m = NULL;

    if (text.len > 0 && text.data[0] == '#')
        return read_bytes(kind, cox_slice(text.data + 1, text.len - 1));
    if (cox_wire_from_json(kind, text, &m, &error) != COX_OK) {
        COX_ASSERT(error.len > 0);
        m = NULL;
    }
    cox_buf_fini(&error);
    return m;
}

static void say(struct fuzz_coxd *c, uint32_t call, const ProtobufCMessageDescriptor *kind,
                struct cox_slice text)
{
    ProtobufCMessage *m = read_message(kind, text);

    if (m)
        fuzz_coxd_send(c, call, m);
    else
        fuzz_coxd_cancel(c, call);
    if (m)
        protobuf_c_message_free_unpacked(m, NULL);
}

static uint32_t newest_stream(const struct fuzz_coxd *c)
{
    for (uint32_t i = fuzz_coxd_n_calls(c); i-- > 0;) {
        const struct fuzz_method *m = fuzz_coxd_method(c, i);
        if (m && m->takes_many)
            return i;
    }
    return UINT32_MAX;
}

static void run_command(struct fuzz_coxd *c, uint8_t what, struct cox_slice rest)
{
    const struct fuzz_method *m;
    int64_t n = 0;
    bool has_number = take_number(&rest, PASS_MS_MAX, &n);

    switch (what) {
    case '>':
        if (!has_number)
            n = newest_stream(c);
        m = fuzz_coxd_method(c, (uint32_t)n);
        if (m)
            say(c, (uint32_t)n, m->input, trim(rest));
        break;
    case '/':
        fuzz_coxd_half_close(c, (uint32_t)n);
        break;
    case '-':
        fuzz_coxd_cancel(c, (uint32_t)n);
        break;
    case '+':
        fuzz_coxd_pass(c, n);
        break;
    case '!':
        fuzz_coxd_checkpoint(c);
        break;
    case '*':
        fuzz_coxd_restart(c);
        break;
    default:
        break;
    }
}

static void run_line(struct fuzz_coxd *c, struct cox_slice line, bool history)
{
    const uint8_t *space = line.len > 0 ? memchr(line.data, ' ', line.len) : NULL;
    struct cox_slice name = cox_slice(line.data, space ? (size_t)(space - line.data) : line.len);
    struct fuzz_method m;

    if (!history && cox_slice_is(name, "GetHistory"))
        return;
    if (name.len > 0 && fuzz_coxd_find(c, name, &m)) {
        uint32_t call = fuzz_coxd_n_calls(c);
        fuzz_coxd_call(c, &m);
        say(c, call, m.input, trim(cox_slice(line.data + name.len, line.len - name.len)));
    } else if (line.len > 0) {
        run_command(c, line.data[0], cox_slice(line.data + 1, line.len - 1));
    }
    fuzz_coxd_settle(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool history = size >= 9 && memcmp(data, "# history", 9) == 0;
    bool slow = history || (size > 0 && memmem(data, size, "WatchStats", 10));
    struct fuzz_coxd *c = fuzz_coxd_create(history, slow);
    const uint8_t *p = data, *end = data + size;

    for (int n = 0; p < end && n < LINES_MAX; n++) {
        const uint8_t *stop = memchr(p, '\n', (size_t)(end - p));
        stop = stop ? stop : end;
        run_line(c, cox_slice(p, (size_t)(stop - p)), history);
        p = stop + 1;
    }
    fuzz_coxd_destroy(c);
    return 0;
}

/* ---- mutation: half of the time a line's message is changed by its type ---- */

static const ProtobufCMessageDescriptor *kind_of_line(struct cox_slice line, size_t *ret_head)
{
    static struct fuzz_coxd *names; /* only its tables are used */
    const uint8_t *space = line.len > 0 ? memchr(line.data, ' ', line.len) : NULL;
    struct fuzz_method m;

    if (!names)
        names = fuzz_coxd_create(false, false);
    *ret_head = space ? (size_t)(space - line.data) + 1 : 0;
    if (!space)
        return NULL;
    if (line.data[0] == '>')
        return fuzz_coxd_find(names, cox_slice_str("Attach"), &m) ? m.input : NULL;
    return fuzz_coxd_find(names, cox_slice(line.data, *ret_head - 1), &m) ? m.input : NULL;
}

/* libFuzzer's; the replay has none and does not mutate. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t size_max) __attribute__((weak));
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed)
{
    struct cox_buf out = { 0 };
    struct fuzz_chance chance = { seed * 2654435761u + 1 };
    size_t from = 0, to, head;

    if (size == 0 || fuzz_draw(&chance, 3) == 0)
        return LLVMFuzzerMutate(data, size, size_max);
    for (from = fuzz_draw(&chance, (uint32_t)size); from > 0 && data[from - 1] != '\n'; from--)
        ;
    for (to = from; to < size && data[to] != '\n'; to++)
        ;
    const struct cox_slice line = cox_slice(data + from, to - from);
    const ProtobufCMessageDescriptor *kind = kind_of_line(line, &head);
    const struct cox_slice old = cox_slice(line.data + head, line.len - head);

    cox_buf_append(&out, data, from + head);
    if (kind)
        fuzz_mutate_message(&chance, kind, old, &out);
    else
        cox_buf_append_slice(&out, old);
    if (!kind || fuzz_draw(&chance, 8) == 0) { /* the line once more, or another command */
        static const char *const more[] = {
            "\n+1000", "\n+60000", "\n*", "\n!", "\n/0", "\n-0", "\n+10000000"
        };
        cox_buf_append_str(&out, more[fuzz_draw(&chance, sizeof(more) / sizeof(*more))]);
    }
    cox_buf_append(&out, data + to, size - to);
    if (out.len > size_max)
        out.len = size_max;
    memcpy(data, out.data, out.len);
    size = out.len;
    cox_buf_fini(&out);
    return size;
}
