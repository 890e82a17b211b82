/* What writing and reading share: how a descriptor is shown as JSON. Private to lib/wire. */
#ifndef COX_WIRE_SHAPE_H
#define COX_WIRE_SHAPE_H

#include "cox/wire.h"

enum cox_wire_known { COX_WIRE_PLAIN, COX_WIRE_TIMESTAMP, COX_WIRE_DURATION, COX_WIRE_WRAPPER };

#define COX_WIRE_INT_EXACT_MAX (1LL << 53)

/* Years 0001 to 9999, and what google/protobuf/duration.proto allows. */
#define COX_WIRE_TIME_S_MIN (-62135596800LL)
#define COX_WIRE_TIME_S_MAX 253402300799LL
#define COX_WIRE_DURATION_S_MAX 315576000000LL
#define COX_WIRE_NANOS 1000000000

/* Which of google.protobuf's types with a JSON form of their own it is. */
enum cox_wire_known cox_wire_known(const ProtobufCMessageDescriptor *descriptor);

/* A map: a repeated message made by protoc, with a key and a value. */
bool cox_wire_is_map(const ProtobufCFieldDescriptor *field);

/* A field that holds JSON text. */
bool cox_wire_is_json(const ProtobufCFieldDescriptor *field);

/* The field's name in JSON. */
struct cox_slice cox_wire_name(const ProtobufCFieldDescriptor *field);

/* Bytes of one value of the field in its message, or in the array of a repeated one. */
size_t cox_wire_value_size(const ProtobufCFieldDescriptor *field);

#endif
