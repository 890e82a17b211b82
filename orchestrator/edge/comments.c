#include "openapi.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"

#include <google/protobuf/descriptor.pb-c.h>
#include <string.h>

extern const unsigned char edge_protoset[];
extern const size_t edge_protoset_len;

/* Field numbers of descriptor.proto, of which the paths of source locations are made. */
enum {
    FILE_MESSAGE = 4,
    FILE_ENUM = 5,
    FILE_SERVICE = 6,
    MESSAGE_FIELD = 2,
    MESSAGE_NESTED = 3,
    MESSAGE_ENUM = 4,
    ENUM_VALUE = 2,
    SERVICE_METHOD = 2
};

static void dot(struct cox_buf *name, const char *part)
{
    cox_buf_printf(name, "%s%s", name->len > 0 ? "." : "", part);
}

/* The path from within a message; false when it leads to something that we do not describe. */
static bool name_in_message(const Google__Protobuf__DescriptorProto *m, const int32_t *path, size_t n,
                            struct cox_buf *name)
{
    for (;; path += 2, n -= 2) {
        dot(name, m->name);
        if (n == 0)
            return true;
        if (n < 2)
            return false;
        size_t i = (size_t)path[1];
        if (path[0] == MESSAGE_FIELD && n == 2) {
            dot(name, m->field[i]->name);
            return true;
        }
        if (path[0] != MESSAGE_NESTED)
            return false;
        m = m->nested_type[i];
    }
}

static bool name_of(const Google__Protobuf__FileDescriptorProto *file, const int32_t *path, size_t n,
                    struct cox_buf *name)
{
    if (n < 2)
        return false;
    size_t i = (size_t)path[1];

    dot(name, file->package);
    if (path[0] == FILE_MESSAGE)
        return name_in_message(file->message_type[i], path + 2, n - 2, name);
    if (path[0] == FILE_ENUM) {
        dot(name, file->enum_type[i]->name);
        if (n == 4 && path[2] == ENUM_VALUE)
            dot(name, file->enum_type[i]->value[path[3]]->name);
        return n == 2 || n == 4;
    }
    if (path[0] != FILE_SERVICE)
        return false;
    dot(name, file->service[i]->name);
    if (n == 4 && path[2] == SERVICE_METHOD)
        dot(name, file->service[i]->method[path[3]]->name);
    return n == 2 || n == 4;
}

/* Lines become one; the space behind each "//" goes. */
static char *one_line(const char *comment)
{
    char *text = cox_strdup(comment), *to = text;

    for (const char *from = text; *from; from++) {
        char c = *from == '\n' ? ' ' : *from;
        if (c == ' ' && (to == text || to[-1] == ' '))
            continue;
        *to++ = c;
    }
    while (to > text && to[-1] == ' ')
        to--;
    *to = '\0';
    return text;
}

static void add_file(struct comments *c, const Google__Protobuf__FileDescriptorProto *file)
{
    struct cox_buf name = { 0 };

    for (size_t i = 0; file->source_code_info && i < file->source_code_info->n_location; i++) {
        const Google__Protobuf__SourceCodeInfo__Location *l = file->source_code_info->location[i];
        cox_buf_clear(&name);
        if (l->leading_comments && name_of(file, l->path, l->n_path, &name))
            cox_free(cox_mapb_set(&c->by_name, cox_buf_slice(&name), one_line(l->leading_comments)));
    }
    cox_buf_fini(&name);
}

void comments_init(struct comments *c)
{
    Google__Protobuf__FileDescriptorSet *set =
        google__protobuf__file_descriptor_set__unpack(NULL, edge_protoset_len, edge_protoset);

    *c = (struct comments){ { 0 } };
    COX_ASSERT(set);
    for (size_t i = 0; i < set->n_file; i++)
        add_file(c, set->file[i]);
    google__protobuf__file_descriptor_set__free_unpacked(set, NULL);
}

void comments_fini(struct comments *c)
{
    size_t it = 0;
    struct cox_slice key;
    void *text;

    while (cox_mapb_next(&c->by_name, &it, &key, &text))
        cox_free(text);
    cox_mapb_fini(&c->by_name);
}

const char *comments_get(const struct comments *c, const char *scope, const char *name)
{
    struct cox_buf key = { 0 };

    dot(&key, scope);
    if (name)
        dot(&key, name);
    const char *text = cox_mapb_get(&c->by_name, cox_buf_slice(&key));

    cox_buf_fini(&key);
    return text;
}
