/* The contract as data: the descriptor set that protoc made of proto/, embedded in the library. It answers
 * which methods stream and which file declares a name. Read once, then constant: any thread may look. */
#include "rpc_internal.h"

#include "cox/base/alloc.h"

extern const unsigned char rpc_protoset[];
extern const size_t rpc_protoset_len;

static struct {
    Google__Protobuf__FileDescriptorSet *set;
    struct cox_mapb files;   /* name -> FileDescriptorProto */
    struct cox_mapb symbols; /* full name -> FileDescriptorProto */
    struct cox_mapb methods; /* path -> MethodDescriptorProto */
} contract;

/* Declares `scope`.`name`; `scope` is then extended to it when `enter` is set. Returns the scope's old
 * length. */
static size_t declare(struct cox_buf *scope, const char *name, Google__Protobuf__FileDescriptorProto *file)
{
    size_t len = scope->len;

    if (len > 0)
        cox_buf_append_str(scope, ".");
    cox_buf_append_str(scope, name);
    cox_mapb_set(&contract.symbols, cox_buf_slice(scope), file);
    return len;
}

/* An enum's values are siblings of the enum, as in C++. */
static void add_enum(struct cox_buf *scope, Google__Protobuf__EnumDescriptorProto *type,
                     Google__Protobuf__FileDescriptorProto *file)
{
    scope->len = declare(scope, type->name, file);
    for (size_t i = 0; i < type->n_value; i++)
        scope->len = declare(scope, type->value[i]->name, file);
}

/* Recursion follows the nesting of our own .proto files. */
static void add_message(struct cox_buf *scope, Google__Protobuf__DescriptorProto *type,
                        Google__Protobuf__FileDescriptorProto *file)
{
    size_t len = declare(scope, type->name, file);

    for (size_t i = 0; i < type->n_field; i++)
        scope->len = declare(scope, type->field[i]->name, file);
    for (size_t i = 0; i < type->n_enum_type; i++)
        add_enum(scope, type->enum_type[i], file);
    for (size_t i = 0; i < type->n_nested_type; i++)
        add_message(scope, type->nested_type[i], file);
    scope->len = len;
}

static void add_service(struct cox_buf *scope, Google__Protobuf__ServiceDescriptorProto *service,
                        Google__Protobuf__FileDescriptorProto *file)
{
    size_t len = declare(scope, service->name, file);
    struct cox_buf path = { 0 };

    for (size_t i = 0; i < service->n_method; i++) {
        cox_buf_clear(&path);
        cox_buf_printf(&path, "/%s/%s", cox_buf_cstr(scope), service->method[i]->name);
        cox_mapb_set(&contract.methods, cox_buf_slice(&path), service->method[i]);
        scope->len = declare(scope, service->method[i]->name, file);
    }
    cox_buf_fini(&path);
    scope->len = len;
}

static void add_file(Google__Protobuf__FileDescriptorProto *file)
{
    struct cox_buf scope = { 0 };

    cox_mapb_set(&contract.files, cox_slice_str(file->name), file);
    cox_buf_append_str(&scope, file->package);
    for (size_t i = 0; i < file->n_message_type; i++)
        add_message(&scope, file->message_type[i], file);
    for (size_t i = 0; i < file->n_enum_type; i++)
        add_enum(&scope, file->enum_type[i], file);
    for (size_t i = 0; i < file->n_service; i++)
        add_service(&scope, file->service[i], file);
    cox_buf_fini(&scope);
}

void rpc_descriptors_init(void)
{
    contract.set = google__protobuf__file_descriptor_set__unpack(NULL, rpc_protoset_len, rpc_protoset);
    if (!contract.set) /* the bytes are our own */
        cox_out_of_memory();
    for (size_t i = 0; i < contract.set->n_file; i++)
        add_file(contract.set->file[i]);
}

void rpc_descriptors_fini(void)
{
    cox_mapb_fini(&contract.files);
    cox_mapb_fini(&contract.symbols);
    cox_mapb_fini(&contract.methods);
    google__protobuf__file_descriptor_set__free_unpacked(contract.set, NULL);
    contract.set = NULL;
}

const Google__Protobuf__MethodDescriptorProto *rpc_descriptors_method(struct cox_slice path)
{
    return cox_mapb_get(&contract.methods, path);
}

const Google__Protobuf__FileDescriptorProto *rpc_descriptors_symbol(const char *name)
{
    return cox_mapb_get(&contract.symbols, cox_slice_str(name));
}

const Google__Protobuf__FileDescriptorProto *rpc_descriptors_file(const char *name)
{
    return cox_mapb_get(&contract.files, cox_slice_str(name));
}
