/* What writing and reading share: how a descriptor is shown as JSON. Private to lib/wire. */
#ifndef COX_WIRE_SHAPE_H
#define COX_WIRE_SHAPE_H

#include "cox/wire.h"

#define COX_WIRE_INT_EXACT_MAX (1LL << 53)

/* Years 0001 to 9999, and what google/protobuf/duration.proto allows. */
#define COX_WIRE_TIME_S_MIN (-62135596800LL)
#define COX_WIRE_TIME_S_MAX 253402300799LL
#define COX_WIRE_DURATION_S_MAX 315576000000LL
#define COX_WIRE_NANOS 1000000000

/* Bytes of one value of the field in its message, or in the array of a repeated one. */
size_t cox_wire_value_size(const ProtobufCFieldDescriptor *field);

#endif
