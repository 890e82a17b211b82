/* What openapi.c, schema.c and comments.c share: JSON of schemas, from descriptors. */
#ifndef COX_ORCHESTRATOR_EDGE_OPENAPI_H
#define COX_ORCHESTRATOR_EDGE_OPENAPI_H

#include "cox/base/buf.h"
#include "cox/base/list.h"
#include "cox/base/map.h"

#include <protobuf-c/protobuf-c.h>

/* ---- comments.c: what proto/ says of a name ---- */

struct comments {
    struct cox_mapb by_name; /* "coxswain.v1.Task.id" -> char * */
};
void comments_init(struct comments *c);
void comments_fini(struct comments *c);
/* NULL when there is none. */
const char *comments_get(const struct comments *c, const char *scope, const char *name);

/* ---- schema.c ---- */

struct schemas {
    struct comments comments;
    struct cox_mapb seen; /* names of messages and enums whose schemas are wanted -> struct schema * */
    struct cox_list list; /* of them, in the order of their first use */
};

/* Begins a member or an item: a comma where one is due, then the key, if any. */
void schema_key(struct cox_buf *out, const char *key);
void schema_text(struct cox_buf *out, const char *key, const char *text); /* "key":"text"; nothing for NULL */

/* The schema of a field's value; what it refers to is noted in `s`. `answer`: it is part of one. */
void schema_put_field(struct schemas *s, struct cox_buf *out, const ProtobufCMessageDescriptor *message,
                      const ProtobufCFieldDescriptor *field, bool answer);
void schema_put_ref(struct schemas *s, struct cox_buf *out, const ProtobufCMessageDescriptor *message,
                    bool answer);
/* Every schema noted, those they lead to included, as members of an object. */
void schema_put_all(struct schemas *s, struct cox_buf *out);
void schema_fini(struct schemas *s);

#endif
