#include "fuzz_mutate.h"

#include "cox/json.h"
#include "cox/wire.h"

#include <string.h>

#define DEPTH_MAX 8

uint32_t fuzz_draw(struct fuzz_chance *c, uint32_t n)
{
    c->state ^= c->state << 13;
    c->state ^= c->state >> 7;
    c->state ^= c->state << 17;
    return (uint32_t)((c->state >> 11) % n);
}

#define PICK(c, table) (table)[fuzz_draw(c, sizeof(table) / sizeof(*(table)))]

/* Values that mean something to somebody. */
static const char *const texts[] = {
    "\"t0-000001\"", "\"t0-000002\"",
    "\"t0-00000z\"", "\"a\"",
    "\"b\"",         "\"m[0]\"",
    "\"m\"",         "\"w1\"",
    "\"w2\"",        "\"run\"",
    "\"lint@1\"",    "\"child@1\"",
    "\"1.4.2\"",     "\"\"",
    "\"TIMEOUT\"",   "\"EXIT_NONZERO\"",
    "\"go\"",        "\"k\"",
    "\"cox_\"",      "\"\\u00e4\\ud83d\\ude00\"",
    "\"MQ==\"",      "\"nightly\"",
    "\"bad name\"",  "\"sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b\"",
};
static const char *const values[] = {
    "null",
    "true",
    "1",
    "-1",
    "1.5e300",
    "[]",
    "{}",
    "[1,2,3]",
    "{\"x\":1}",
    "\"x\"",
    "{\"steps\":{}}",
    "{\"steps\":{\"x\":{\"run\":{\"argv\":[\"true\"]}}},\"state\":{\"n\":1}}",
    "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{\"a\":{\"run\":{\"argv\":[\"true\"]}}}}",
    "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{\"m\":{\"map\":{\"over\":[1,2,3]},\"uses\":\"lint@1\"}"
    "}}",
    "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{\"a\":{\"wait\":{\"signal\":\"go\"}},\"b\":{\"needs\":"
    "[\"a\"],"
    "\"approval\":{\"prompt\":\"?\"}}}}",
    "{\"api_version\":\"v1\",\"name\":\"t\",\"steps\":{\"a\":{\"task\":{\"ref\":\"child@1\"}},\"b\":{"
    "\"race\":[{"
    "\"wait\":{\"for\":\"9s\"}},{\"uses\":\"lint@1\"}]}}}",
    "{\"$blob\":\"sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b\"}",
};
static const char *const numbers[] = { "0",
                                       "1",
                                       "2",
                                       "3",
                                       "4",
                                       "7",
                                       "16",
                                       "255",
                                       "65536",
                                       "4294967295",
                                       "\"9223372036854775807\"",
                                       "\"18446744073709551615\"",
                                       "-1" };
static const char *const times[] = { "\"0s\"",  "\"1s\"", "\"3600s\"", "\"-1s\"", "\"315576000000s\"",
                                     "\"0.5s\"" };
static const char *const stamps[] = { "\"2026-01-01T00:00:00Z\"", "\"1970-01-01T00:00:00Z\"",
                                      "\"9999-12-31T23:59:59Z\"", "\"2026-06-01T00:00:00.5Z\"" };

static void put_value(struct fuzz_chance *c, const ProtobufCFieldDescriptor *f, struct cox_slice old,
                      struct cox_buf *out, int depth);

static void put_name(struct cox_buf *out, const ProtobufCFieldDescriptor *f)
{
    cox_json_quote(out, cox_wire_name(f));
    cox_put_u8(out, ':');
}

static void put_object(struct fuzz_chance *c, const ProtobufCMessageDescriptor *kind, struct cox_slice old,
                       struct cox_buf *out, int depth)
{
    const ProtobufCFieldDescriptor *f =
        kind->n_fields > 0 ? &kind->fields[fuzz_draw(c, kind->n_fields)] : NULL;
    bool first = true, found = false, drop = fuzz_draw(c, 8) == 0;

    cox_put_u8(out, '{');
    for (struct cox_json_walk w = cox_json_walk(old); cox_json_next(&w);) {
        bool this = f && w.key.len > 0 && cox_json_string_is(w.key, cox_wire_name(f));
        found |= this;
        if (this && drop)
            continue;
        cox_buf_append_str(out, first ? "" : ",");
        first = false;
        cox_buf_append_slice(out, w.key);
        cox_put_u8(out, ':');
        if (this)
            put_value(c, f, w.value, out, depth + 1);
        else
            cox_buf_append_slice(out, w.value);
    }
    if (f && !found) {
        cox_buf_append_str(out, first ? "" : ",");
        put_name(out, f);
        put_value(c, f, cox_slice(NULL, 0), out, depth + 1);
    }
    cox_put_u8(out, '}');
}

static void put_enum(struct fuzz_chance *c, const ProtobufCEnumDescriptor *kind, struct cox_buf *out)
{
    const ProtobufCEnumValue *v = &kind->values[fuzz_draw(c, kind->n_values)];

    if (fuzz_draw(c, 10) == 0)
        cox_buf_append_str(out, PICK(c, numbers));
    else
        cox_json_quote(out, cox_slice_str(cox_wire_enum_text(kind, v->value)));
}

static void put_single(struct fuzz_chance *c, const ProtobufCFieldDescriptor *f, struct cox_slice old,
                       struct cox_buf *out, int depth)
{
    if (cox_wire_is_json(f)) {
        cox_buf_append_str(out, PICK(c, values));
        return;
    }
    switch (f->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        if (depth >= DEPTH_MAX)
            cox_buf_append_str(out, "null");
        else if (cox_wire_known(f->descriptor) == COX_WIRE_TIMESTAMP)
            cox_buf_append_str(out, PICK(c, stamps));
        else if (cox_wire_known(f->descriptor) == COX_WIRE_DURATION)
            cox_buf_append_str(out, PICK(c, times));
        else if (cox_wire_known(f->descriptor) == COX_WIRE_WRAPPER)
            cox_buf_append_str(out, PICK(c, numbers));
        else
            put_object(c, f->descriptor, old, out, depth);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        put_enum(c, f->descriptor, out);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        cox_buf_append_str(out, fuzz_draw(c, 2) ? "true" : "false");
        break;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
        cox_buf_append_str(out, PICK(c, texts));
        break;
    default:
        cox_buf_append_str(out, PICK(c, numbers));
    }
}

/* One of the old items changes, goes or stands twice; or there is one more. */
static void put_list(struct fuzz_chance *c, const ProtobufCFieldDescriptor *f, struct cox_slice old,
                     struct cox_buf *out, int depth)
{
    bool map = cox_wire_is_map(f), first = true;
    uint32_t at = fuzz_draw(c, 4), i = 0, what = fuzz_draw(c, 4);

    cox_put_u8(out, map ? '{' : '[');
    for (struct cox_json_walk w = cox_json_walk(old); cox_json_next(&w); i++) {
        for (uint32_t n = i == at && what == 0 ? 0 : i == at && what == 1 && !map ? 2 : 1; n > 0; n--) {
            cox_buf_append_str(out, first ? "" : ",");
            first = false;
            if (map) {
                cox_buf_append_slice(out, w.key);
                cox_put_u8(out, ':');
            }
            if (i == at && what == 2 && !map)
                put_single(c, f, w.value, out, depth);
            else
                cox_buf_append_slice(out, w.value);
        }
    }
    if (i == 0 || what == 3) {
        cox_buf_append_str(out, first ? "" : ",");
        if (map) {
            cox_buf_append_str(out, PICK(c, texts));
            cox_buf_append_str(out, ":");
            cox_buf_append_str(out, PICK(c, texts));
        } else {
            put_single(c, f, cox_slice(NULL, 0), out, depth);
        }
    }
    cox_put_u8(out, map ? '}' : ']');
}

static void put_value(struct fuzz_chance *c, const ProtobufCFieldDescriptor *f, struct cox_slice old,
                      struct cox_buf *out, int depth)
{
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        put_list(c, f, old, out, depth);
    else
        put_single(c, f, old, out, depth);
}

void fuzz_mutate_message(struct fuzz_chance *c, const ProtobufCMessageDescriptor *kind, struct cox_slice json,
                         struct cox_buf *out)
{
    if (cox_json_check(json, NULL) != COX_OK || cox_json_kind(json) != COX_JSON_OBJECT)
        json = cox_slice_str("{}");
    put_object(c, kind, json, out, 0);
}
