/* protobuf-c messages <-> JSON text, by their descriptors: one mapping for the command line and for HTTP.
 *
 *   fields     names as in the proto; all are present, an absent message is null
 *   enums      without their prefix: TASK_STATUS_RUNNING is "RUNNING"; unknown values are numbers
 *   integers   of 64 bits: numbers up to 2^53, strings beyond
 *   Timestamp  "2026-01-02T03:04:05.678Z"; Duration "1.5s"; wrappers (Int32Value ...) as plain values
 *   bytes      base64; maps are objects
 *   x_json     a string or bytes field of such a name holds JSON text: shown as that JSON under the name "x",
 *              digit for digit; empty is null. So are bytes called `json` or `document`, under their own name
 *   doubles    shortest digits that read back the same; "NaN", "Infinity", "-Infinity"
 *
 * Reading takes what writing gives, and more: unprefixed or prefixed enum names or numbers, integers of any
 * width as strings, durations such as "10m", null for "not set", fields in any order or left out.
 * Thread: any.
 */
#ifndef COX_WIRE_H
#define COX_WIRE_H

#include "cox/base/buf.h"
#include "cox/base/err.h"

#include <protobuf-c/protobuf-c.h>

/* Appends `message` as compact JSON. Cost: O(message), no tree. */
void cox_wire_put_json(struct cox_buf *out, const ProtobufCMessage *message);

/* For unpacking: memory that cannot fail to arrive, so that NULL says that the bytes are no such message.
 * What it gave may be freed without it. */
extern ProtobufCAllocator cox_wire_allocator;

/* Makes a message of JSON text.
 *   ret_message  [out] on COX_OK; freed by protobuf_c_message_free_unpacked(message, NULL)
 *   error        gets a sentence that names the place, "steps[2].status: expected one of READY ..., found 7"
 * Errors: COX_ERR_INVALID for text that is not JSON, an unknown or repeated field, a value of another type or
 * out of range, a string with U+0000. */
COX_MUST_CHECK enum cox_err cox_wire_from_json(const ProtobufCMessageDescriptor *descriptor,
                                               struct cox_slice text, ProtobufCMessage **ret_message,
                                               struct cox_buf *error);

/* ---- the mapping itself, for those who describe it or build JSON for it ---- */

/* Which of google.protobuf's types with a JSON form of their own it is. */
enum cox_wire_known { COX_WIRE_PLAIN, COX_WIRE_TIMESTAMP, COX_WIRE_DURATION, COX_WIRE_WRAPPER };
enum cox_wire_known cox_wire_known(const ProtobufCMessageDescriptor *descriptor);

/* A map: a repeated message made by protoc, with a key and a value. */
bool cox_wire_is_map(const ProtobufCFieldDescriptor *field);

/* A field that holds JSON text. */
bool cox_wire_is_json(const ProtobufCFieldDescriptor *field);

/* The field's name in JSON. */
struct cox_slice cox_wire_name(const ProtobufCFieldDescriptor *field);

/* The value's name without the prefix; NULL for a value the enum lacks. */
const char *cox_wire_enum_text(const ProtobufCEnumDescriptor *descriptor, int value);

/* Standard base64 (RFC 4648), with padding. Decoding accepts text without padding and the URL alphabet. */
void cox_wire_put_base64(struct cox_buf *out, struct cox_slice bytes);
COX_MUST_CHECK enum cox_err cox_wire_parse_base64(struct cox_buf *out, struct cox_slice text);

#endif
