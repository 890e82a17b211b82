/* URLs of model servers, as people write them: "http://10.0.0.7:8000", with or without "/v1" and a slash at
 * the end. Pure. Thread: any. */
#ifndef COX_ORCHESTRATOR_INFERENCE_ENDPOINT_URL_H
#define COX_ORCHESTRATOR_INFERENCE_ENDPOINT_URL_H

#include "cox/base/buf.h"

#define ENDPOINT_URL_LEN_MAX 2048u

/* Appends the one spelling of it: "http://10.0.0.7:8000/v1". Scheme and host in lower case, no default port,
 * no slash at the end, "/v1" where no path is said. False: it is none, `out` is as it was. */
bool endpoint_url_read(struct cox_slice text, struct cox_buf *out);
#define ENDPOINT_URL_EXPECTED "a URL such as http://10.0.0.7:8000/v1, without user, query and fragment"

/* Of such a spelling. */
void endpoint_url_put_name(struct cox_buf *out, const char *url); /* "10.0.0.7:8000"; and a path but "/v1" */
void endpoint_url_put_root(struct cox_buf *out, const char *url); /* without "/v1" at its end */

#endif
