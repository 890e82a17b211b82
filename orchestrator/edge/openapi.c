/* /openapi.json, from the table of routes and the descriptors: what is served is what is described. */
#include "openapi.h"

#include "internal.h"

#include "cox/json.h"
#include "cox/wire.h"

#include <ctype.h>
#include <string.h>

#define REF(name) "{\"$ref\":\"#/components/" name "\"}"
#define ERROR_SCHEMA REF("schemas/HttpError")

static const char intro[] =
    "The services of Coxswain as JSON over HTTP/1.1. Field names are those of the protocol; every "
    "field of an answer is present. Enum values have no prefix, 64-bit integers beyond 2^53 are "
    "strings, times are RFC 3339 UTC, durations are texts such as \\\"1.5s\\\". Parameters of the "
    "query may be given by a field's name or, of a repeated field, its singular, once for each "
    "value; a map takes NAME=VALUE.";

static const char events_words[] =
    "Server-sent events: `event` is the kind, `data` the JSON of one message, the property of that "
    "name in the content schema. Lines that begin with a colon keep the connection alive. The stream "
    "ends with the event `end`; after it, a request with Last-Event-ID: end is answered 204, which "
    "tells an EventSource to stay away. When a stream fails it ends with the event `error`, whose "
    "data is an HttpError. A reader that takes nothing for 30 s is cut off.";

static const char components[] =
    "\"responses\":{\"Error\":{\"description\":\"What went wrong. Retry-After is set "
    "where a later attempt may succeed.\",\"headers\":{\"Retry-After\":{\"description\":\"Seconds "
    "to "
    "wait.\",\"schema\":{\"type\":\"integer\"}}},\"content\":{\"application/json\":{\"schema\":" ERROR_SCHEMA
    "}}}},\"schemas\":{\"HttpError\":{\"description\":\"An error, as gRPC has it.\","
    "\"type\":\"object\",\"required\":[\"error\"],\"properties\":{\"error\":{\"type\":\"object\","
    "\"required\":[\"code\",\"status\",\"message\",\"reason\",\"retry_delay_ms\",\"violations\"],"
    "\"properties\":{\"code\":{\"description\":\"gRPC's status code, such as NOT_FOUND.\","
    "\"type\":\"string\"},\"status\":{\"description\":\"The HTTP status.\",\"type\":\"integer\"},"
    "\"message\":{\"description\":\"For people.\",\"type\":\"string\"},\"reason\":{\"description\":\"For "
    "programs, such as NO_TASK; may be "
    "empty.\",\"type\":\"string\"},\"retry_delay_ms\":{\"description\":\"Try "
    "again after this; 0: trying again does not "
    "help.\",\"type\":\"integer\"},\"violations\":{\"type\":\"array\","
    "\"items\":{\"type\":\"object\",\"required\":[\"field\",\"description\"],\"properties\":{\"field\":{"
    "\"description\":\"A "
    "path in the request or the document.\",\"type\":\"string\"},\"description\":{\"description\":\"What "
    "was expected there.\",\"type\":\"string\"}}}}}}}},\"Document\":{\"description\":\"A "
    "document in task format v1.\",\"type\":\"object\",\"required\":[\"api_version\"],"
    "\"properties\":{\"api_version\":{\"type\":\"string\"}},\"additionalProperties\":true}";

/* ---- names ---- */

static void put_path(struct cox_buf *out, const char *pattern)
{
    for (; *pattern; pattern++)
        if (*pattern != '+')
            cox_put_u8(out, (uint8_t)*pattern);
}

/* The method, and where several routes lead to it, what tells them apart. */
static void put_operation_id(struct cox_buf *out, const struct route *r)
{
    bool first = true;

    if (!r->method) {
        for (const char *p = r->pattern; *p; p++)
            if (isalnum((unsigned char)*p))
                cox_put_u8(out, (uint8_t)*p);
        return;
    }
    cox_buf_append_str(out, r->method);
    for (const struct route *other = routes; other < r; other++)
        first = first && !(other->method && strcmp(other->method, r->method) == 0);
    if (first)
        return;
    for (const char *p = strrchr(r->pattern, '/') + 1; *p; p++)
        if (isalnum((unsigned char)*p) || *p == '{' || *p == ':')
            cox_put_u8(out, isalnum((unsigned char)*p) ? (uint8_t)*p : '_');
}

static bool in_path(const struct route *r, struct cox_slice name)
{
    for (const char *p = strchr(r->pattern, '{'); p; p = strchr(p + 1, '{')) {
        const char *at = p + 1 + (p[1] == '+');
        if (strncmp(at, (const char *)name.data, name.len) == 0 && at[name.len] == '}')
            return true;
    }
    return false;
}

static bool is_fixed(const struct route *r, struct cox_slice name)
{
    return r->fixed && strncmp(r->fixed, (const char *)name.data, name.len) == 0 && r->fixed[name.len] == '=';
}

static bool is_query(const ProtobufCFieldDescriptor *f)
{
    return f->type != PROTOBUF_C_TYPE_MESSAGE || cox_wire_is_map(f) ||
           (f->label != PROTOBUF_C_LABEL_REPEATED && cox_wire_known(f->descriptor) != COX_WIRE_PLAIN);
}

/* ---- parameters ---- */

static void put_parameter(struct schemas *s, struct cox_buf *out, const struct route *r,
                          const ProtobufCFieldDescriptor *f)
{
    const ProtobufCMessageDescriptor *type = route_input(r);
    bool path = in_path(r, cox_wire_name(f));

    schema_key(out, NULL);
    cox_buf_append_str(out, "{\"name\":");
    cox_json_quote(out, cox_wire_name(f));
    cox_buf_printf(out, ",\"in\":\"%s\",\"required\":%s", path ? "path" : "query", path ? "true" : "false");
    schema_text(out, "description", comments_get(&s->comments, type->name, f->name));
    schema_key(out, "schema");
    if (cox_wire_is_map(f))
        cox_buf_append_str(out, "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"pattern\":\"=\"}}");
    else if (path)
        cox_buf_append_str(out, "{\"type\":\"string\"}");
    else
        schema_put_field(s, out, type, f, false);
    cox_put_u8(out, '}');
}

static void put_header_parameter(struct cox_buf *out, const char *name, const char *description)
{
    schema_key(out, NULL);
    cox_put_u8(out, '{');
    schema_text(out, "name", name);
    schema_text(out, "in", "header");
    schema_text(out, "description", description);
    cox_buf_append_str(out, ",\"schema\":{\"type\":\"string\"}}");
}

static void put_parameters(struct schemas *s, struct cox_buf *out, const struct route *r)
{
    const ProtobufCMessageDescriptor *type = route_input(r);

    schema_key(out, "parameters");
    cox_put_u8(out, '[');
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &type->fields[i];
        bool path = in_path(r, cox_wire_name(f));
        bool query = !route_has_body(r) && is_query(f) && !is_fixed(r, cox_wire_name(f));
        if (path || query)
            put_parameter(s, out, r, f);
    }
    if (protobuf_c_message_descriptor_get_field_by_name(type, "key"))
        put_header_parameter(out, "Idempotency-Key", "The field `key`, as a header.");
    if (r->kind == ROUTE_EVENTS && protobuf_c_message_descriptor_get_field_by_name(type, "after_seq"))
        put_header_parameter(out, "Last-Event-ID", "The field `after_seq`, as an EventSource sends it.");
    cox_put_u8(out, ']');
}

/* ---- bodies ---- */

static void put_request_fields(struct schemas *s, struct cox_buf *out, const struct route *r)
{
    const ProtobufCMessageDescriptor *type = route_input(r);

    cox_buf_append_str(out, "{\"type\":\"object\",\"properties\":{");
    for (unsigned i = 0; i < type->n_fields; i++) {
        struct cox_slice name = cox_wire_name(&type->fields[i]);
        if (in_path(r, name) || is_fixed(r, name))
            continue;
        schema_key(out, NULL);
        cox_json_quote(out, name);
        cox_put_u8(out, ':');
        schema_put_field(s, out, type, &type->fields[i], false);
    }
    cox_buf_append_str(out, "}}");
}

static void put_request(struct schemas *s, struct cox_buf *out, const struct route *r)
{
    bool document = protobuf_c_message_descriptor_get_field_by_name(route_input(r), "document") != NULL;

    schema_key(out, "requestBody");
    if (r->kind == ROUTE_UPLOAD) {
        cox_buf_append_str(out, "{\"required\":true,\"description\":\"The bytes; Content-Length is needed.\","
                                "\"content\":{\"application/octet-stream\":{\"schema\":{\"type\":\"string\","
                                "\"format\":\"binary\"}}}}");
        return;
    }
    cox_buf_printf(
        out, "{\"required\":%s,\"content\":{\"application/json\":{\"schema\":", document ? "true" : "false");
    if (document)
        cox_buf_append_str(out, "{\"anyOf\":[" REF("schemas/Document") ",");
    put_request_fields(s, out, r);
    if (document)
        cox_buf_append_str(out, "]}");
    cox_buf_append_str(out, "}}}");
}

static void put_event_data(struct schemas *s, struct cox_buf *out, const struct route *r)
{
    static const struct {
        const char *method, *event;
    } events[] = {
        { "WatchTask", "task" }, { "WatchTask", "step" }, { "GetLogs", "log" }, { "WatchStats", "stats" }
    };

    cox_buf_append_str(out, "\"text/event-stream\":{\"schema\":{\"type\":\"string\",\"contentMediaType\":"
                            "\"text/event-stream\",\"contentSchema\":{\"type\":\"object\",\"properties\":{");
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (strcmp(events[i].method, r->method) != 0)
            continue;
        schema_key(out, events[i].event);
        schema_put_ref(s, out, route_output(r), true);
    }
    schema_key(out, "error");
    cox_buf_append_str(out, ERROR_SCHEMA "}}}}");
}

static void put_content(struct schemas *s, struct cox_buf *out, const struct route *r)
{
    switch (r->kind) {
    case ROUTE_UNARY:
    case ROUTE_UPLOAD:
        cox_buf_append_str(out, "\"application/json\":{\"schema\":");
        if (r->result)
            cox_buf_append_str(out, "{}");
        else
            schema_put_ref(s, out, route_output(r), true);
        cox_put_u8(out, '}');
        break;
    case ROUTE_EVENTS:
        put_event_data(s, out, r);
        break;
    case ROUTE_LOGS:
        cox_buf_append_str(out, "\"text/plain\":{\"schema\":{\"type\":\"string\"}},");
        put_event_data(s, out, r);
        break;
    case ROUTE_BLOB:
        cox_buf_append_str(out, "\"application/octet-stream\":{\"schema\":{\"type\":\"string\",\"format\":"
                                "\"binary\"}}");
        break;
    case ROUTE_LIVENESS:
    case ROUTE_READINESS:
    case ROUTE_METRICS:
        cox_buf_append_str(out, "\"text/plain\":{\"schema\":{\"type\":\"string\"}}");
        break;
    case ROUTE_OPENAPI:
    case ROUTE_COMPLETE:
    case ROUTE_MODELS:
    case ROUTE_MODEL:
        cox_buf_append_str(out, "\"application/json\":{\"schema\":{\"type\":\"object\"}}");
        break;
    }
}

/* ---- operations ---- */

static const char *own_summary(const struct route *r)
{
    switch (r->kind) {
    case ROUTE_LIVENESS:
        return "The process lives.";
    case ROUTE_READINESS:
        return "It takes work: 503 with a reason while it recovers, stops, or lacks room.";
    case ROUTE_METRICS:
        return "Metrics in Prometheus' text format.";
    case ROUTE_OPENAPI:
        return "This document.";
    case ROUTE_COMPLETE:
    case ROUTE_MODELS:
    case ROUTE_MODEL:
    case ROUTE_UNARY:
    case ROUTE_EVENTS:
    case ROUTE_LOGS:
    case ROUTE_BLOB:
    case ROUTE_UPLOAD:
        break;
    }
    return NULL;
}

static void put_operation(struct schemas *s, struct cox_buf *out, const struct route *r)
{
    const char *summary = own_summary(r);

    schema_key(out, NULL);
    cox_put_u8(out, '"');
    for (const char *p = r->verb; *p; p++)
        cox_put_u8(out, (uint8_t)tolower((unsigned char)*p));
    cox_buf_append_str(out, "\":{\"operationId\":\"");
    put_operation_id(out, r);
    cox_put_u8(out, '"');
    cox_buf_printf(out, ",\"tags\":[\"%s\"]", r->service ? r->service->short_name : "Operation");
    schema_text(out, "summary", summary ? summary : comments_get(&s->comments, r->service->name, r->method));
    if (r->kind == ROUTE_EVENTS || r->kind == ROUTE_LOGS)
        schema_text(out, "description", events_words);
    if (r->service)
        put_parameters(s, out, r);
    if (route_has_body(r))
        put_request(s, out, r);
    cox_buf_append_str(out, ",\"responses\":{\"200\":{\"description\":\"Done.\",\"content\":{");
    put_content(s, out, r);
    cox_buf_append_str(out, "}},\"4XX\":" REF("responses/Error") ",\"5XX\":" REF("responses/Error") "}}");
}

/* OpenAI describes these. */
static bool is_openai(const struct route *r)
{
    return r->kind == ROUTE_COMPLETE || r->kind == ROUTE_MODELS || r->kind == ROUTE_MODEL;
}

static bool is_first_of_path(size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (strcmp(routes[k].pattern, routes[i].pattern) == 0)
            return false;
    return true;
}

static void put_paths(struct schemas *s, struct cox_buf *out)
{
    for (size_t i = 0; i < n_routes; i++) {
        if (!is_first_of_path(i) || is_openai(&routes[i]))
            continue;
        schema_key(out, NULL);
        cox_put_u8(out, '"');
        put_path(out, routes[i].pattern);
        cox_buf_append_str(out, "\":{");
        for (size_t k = i; k < n_routes; k++)
            if (strcmp(routes[k].pattern, routes[i].pattern) == 0)
                put_operation(s, out, &routes[k]);
        cox_put_u8(out, '}');
    }
}

static void put_tags(struct schemas *s, struct cox_buf *out)
{
    const ProtobufCServiceDescriptor *last = NULL;

    for (size_t i = 0; i < n_routes; i++) {
        const ProtobufCServiceDescriptor *service = routes[i].service;
        if (!service || service == last)
            continue;
        last = service;
        schema_key(out, NULL);
        cox_put_u8(out, '{');
        schema_text(out, "name", service->short_name);
        schema_text(out, "description", comments_get(&s->comments, service->name, NULL));
        cox_put_u8(out, '}');
    }
    cox_buf_append_str(out, ",{\"name\":\"Operation\",\"description\":\"For those who run it.\"}");
}

void openapi_put(struct cox_buf *out, const char *version)
{
    struct schemas s = { .seen = { 0 } };

    comments_init(&s.comments);
    cox_list_init(&s.list);
    cox_buf_printf(
        out,
        "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"Coxswain\",\"version\":\"%s\",\"description\":"
        "\"%s\",\"license\":{\"name\":\"Apache-2.0\",\"identifier\":\"Apache-2.0\"}},"
        "\"servers\":[{\"url\":\"/\"}],\"security\":[],\"tags\":[",
        version, intro);
    put_tags(&s, out);
    cox_buf_append_str(out, "],\"paths\":{");
    put_paths(&s, out);
    cox_buf_append_str(out, "},\"components\":{");
    cox_buf_append_str(out, components);
    schema_put_all(&s, out);
    cox_buf_append_str(out, "}}}\n");
    schema_fini(&s);
}
