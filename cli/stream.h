/* Reading a stream of answers. */
#ifndef CLI_STREAM_H
#define CLI_STREAM_H

#include "cli.h"

/* One call that answers with a stream: `on_one` gets each message and says whether it wants more. CLI_OK when
 * the server ended it well or on_one had enough; CLI_INTERRUPTED; else *ret_error says why, nothing has been
 * printed. Is not tried again: what was read is the caller's to judge. */
enum cli_exit cli_stream(struct cli *cli, const ProtobufCServiceDescriptor *service, const char *method,
                         const ProtobufCMessage *request,
                         bool (*on_one)(void *user, const ProtobufCMessage *message), void *user,
                         struct cox_rpc_error **ret_error);

#endif
