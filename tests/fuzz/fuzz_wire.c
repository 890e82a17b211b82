/* Any text as JSON of a message (the first byte chooses which): refused with words, or a message whose JSON
 * reads back as the same message. */
#include "fuzz.h"

#include "cox/wire.h"

#include "coxswain/v1/schedule_service.pb-c.h"
#include "coxswain/v1/stats_service.pb-c.h"
#include "coxswain/v1/task_service.pb-c.h"
#include "coxswain/v1/worker_service.pb-c.h"

#include <string.h>

static const ProtobufCMessageDescriptor *const kinds[] = {
    &coxswain__v1__submit_tasks_request__descriptor,   &coxswain__v1__list_tasks_request__descriptor,
    &coxswain__v1__describe_task_response__descriptor, &coxswain__v1__get_history_response__descriptor,
    &coxswain__v1__get_schedule_response__descriptor,  &coxswain__v1__attach_request__descriptor,
    &coxswain__v1__get_logs_response__descriptor,
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static void pack(const ProtobufCMessage *m, struct cox_buf *out)
{
    protobuf_c_message_pack(m, cox_buf_extend(out, protobuf_c_message_get_packed_size(m)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cox_buf error = { 0 }, json = { 0 }, a = { 0 }, b = { 0 };
    ProtobufCMessage *m, *again;

    if (size == 0)
        return 0;
    const ProtobufCMessageDescriptor *kind = kinds[data[0] % N_KINDS];

    if (cox_wire_from_json(kind, cox_slice(data + 1, size - 1), &m, &error)) {
        COX_ASSERT(error.len > 0);
    } else {
        cox_wire_put_json(&json, m);
        COX_ASSERT(cox_wire_from_json(kind, cox_buf_slice(&json), &again, &error) == COX_OK);
        pack(m, &a);
        pack(again, &b);
        COX_ASSERT(cox_slice_eq(cox_buf_slice(&a), cox_buf_slice(&b)));
        protobuf_c_message_free_unpacked(m, NULL);
        protobuf_c_message_free_unpacked(again, NULL);
    }
    cox_buf_fini(&error);
    cox_buf_fini(&json);
    cox_buf_fini(&a);
    cox_buf_fini(&b);
    return 0;
}
