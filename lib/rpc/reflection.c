/* grpc.reflection, v1 and v1alpha: both have the same messages, so one implementation answers under two
 * names. An answer holds the one file asked for; a client asks for its imports by name. */
#include "rpc_internal.h"

#include "cox/base/alloc.h"

#include <grpc/health/v1/health.pb-c.h>
#include <grpc/reflection/v1/reflection.pb-c.h>

#define V1ALPHA_NAME "grpc.reflection.v1alpha.ServerReflection"

struct rpc_reflection {
    const char **names; /* of the services served */
    size_t n_names;
    ProtobufCServiceDescriptor v1alpha;
};

static void set_error(Grpc__Reflection__V1__ServerReflectionResponse *response,
                      Grpc__Reflection__V1__ErrorResponse *error, enum cox_rpc_status status,
                      const char *message)
{
    error->error_code = (int32_t)status;
    error->error_message = (char *)message;
    response->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    response->error_response = error;
}

static enum cox_err send_file(struct cox_rpc_call *call,
                              Grpc__Reflection__V1__ServerReflectionResponse *response,
                              const Google__Protobuf__FileDescriptorProto *file)
{
    Grpc__Reflection__V1__FileDescriptorResponse files = GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
    ProtobufCBinaryData packed = { 0 };
    struct cox_buf bytes = { 0 };

    if (file) {
        packed.len = google__protobuf__file_descriptor_proto__get_packed_size(file);
        packed.data = cox_buf_extend(&bytes, packed.len);
        google__protobuf__file_descriptor_proto__pack(file, packed.data);
        files.n_file_descriptor_proto = 1;
        files.file_descriptor_proto = &packed;
        response->message_response_case =
            GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
        response->file_descriptor_response = &files;
    } else {
        set_error(response, &error, COX_RPC_NOT_FOUND, "not part of the contract");
    }
    enum cox_err err = cox_rpc_send(call, &response->base);

    cox_buf_fini(&bytes);
    return err;
}

static enum cox_err send_services(struct cox_rpc_call *call,
                                  Grpc__Reflection__V1__ServerReflectionResponse *response,
                                  const struct rpc_reflection *reflection)
{
    Grpc__Reflection__V1__ListServiceResponse list = GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
    Grpc__Reflection__V1__ServiceResponse *services = cox_calloc(reflection->n_names, sizeof(*services));
    Grpc__Reflection__V1__ServiceResponse **pointers = cox_calloc(reflection->n_names, sizeof(*pointers));

    for (size_t i = 0; i < reflection->n_names; i++) {
        grpc__reflection__v1__service_response__init(&services[i]);
        services[i].name = (char *)reflection->names[i];
        pointers[i] = &services[i];
    }
    list.service = pointers;
    list.n_service = reflection->n_names;
    response->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    response->list_services_response = &list;
    enum cox_err err = cox_rpc_send(call, &response->base);

    cox_free(services);
    cox_free(pointers);
    return err;
}

/* The contract has no extensions: to ask for one is to ask for what is not there. */
static enum cox_err send_refusal(struct cox_rpc_call *call,
                                 Grpc__Reflection__V1__ServerReflectionResponse *response,
                                 enum cox_rpc_status status, const char *message)
{
    Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;

    set_error(response, &error, status, message);
    return cox_rpc_send(call, &response->base);
}

static void on_message(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Grpc__Reflection__V1__ServerReflectionRequest *request = (const void *)message;
    Grpc__Reflection__V1__ServerReflectionResponse response =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;
    enum cox_err err = COX_OK;

    response.valid_host = request->host;
    response.original_request = (Grpc__Reflection__V1__ServerReflectionRequest *)(void *)message;
    switch (request->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        err = send_file(call, &response, rpc_descriptors_file(request->file_by_filename));
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        err = send_file(call, &response, rpc_descriptors_symbol(request->file_containing_symbol));
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        err = send_services(call, &response, user);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
        err = send_refusal(call, &response, COX_RPC_NOT_FOUND, "the contract has no extensions");
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__NOT_SET:
    default:
        err = send_refusal(call, &response, COX_RPC_INVALID_ARGUMENT, "a question of no known kind");
        break;
    }
    if (err == COX_ERR_FULL)
        cox_rpc_cancel(call, &(struct cox_rpc_error){ .status = COX_RPC_RESOURCE_EXHAUSTED,
                                                      .message = "answers are not read" });
}

static void on_half_close(struct cox_rpc_call *call, void *user)
{
    (void)user;
    cox_rpc_finish(call);
}

static const struct cox_rpc_method methods[] = {
    { "ServerReflectionInfo", { .on_message = on_message, .on_half_close = on_half_close } },
};

struct rpc_reflection *rpc_reflection_create(const struct cox_rpc_service *services, size_t n_services)
{
    struct rpc_reflection *reflection = COX_NEW(struct rpc_reflection);

    reflection->v1alpha = grpc__reflection__v1__server_reflection__descriptor;
    reflection->v1alpha.name = V1ALPHA_NAME;
    reflection->names = cox_calloc(n_services + 3, sizeof(*reflection->names));
    for (size_t i = 0; i < n_services; i++)
        reflection->names[reflection->n_names++] = services[i].descriptor->name;
    reflection->names[reflection->n_names++] = grpc__health__v1__health__descriptor.name;
    reflection->names[reflection->n_names++] = grpc__reflection__v1__server_reflection__descriptor.name;
    reflection->names[reflection->n_names++] = V1ALPHA_NAME;
    return reflection;
}

void rpc_reflection_destroy(struct rpc_reflection *reflection)
{
    if (!reflection)
        return;
    cox_free(reflection->names);
    cox_free(reflection);
}

void rpc_reflection_services(struct rpc_reflection *reflection,
                             struct cox_rpc_service services[RPC_REFLECTION_SERVICES])
{
    services[0] = (struct cox_rpc_service){ &grpc__reflection__v1__server_reflection__descriptor, methods,
                                            sizeof(methods) / sizeof(methods[0]), reflection };
    services[1] = services[0];
    services[1].descriptor = &reflection->v1alpha;
}
