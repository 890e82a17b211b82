/* A task document as the user wrote it, and what is wrong with it, told with the user's own lines. */
#ifndef CLI_DOCUMENT_H
#define CLI_DOCUMENT_H

#include "cli.h"

#include "cox/yaml.h"

struct cli_document {
    const char *name;    /* as errors show it: the path, or "-" */
    struct cox_buf text; /* as read */
    bool is_yaml;
    struct cox_yaml yaml;  /* valid when is_yaml */
    struct cox_buf pinned; /* the JSON with its bundle's hash; empty: as it was read */
};

/* Reads a file or, for "-", standard input. A name that ends in .json is JSON, one in .yaml or .yml YAML;
 * else text that is JSON is JSON. On CLI_USAGE it has said what is wrong; cli_document_fini in either case.
 */
enum cli_exit cli_document_load(struct cli_document *d, const char *path);
void cli_document_fini(struct cli_document *d);
struct cox_slice cli_document_json(const struct cli_document *d);

/* A folder named as the document's bundle is packed, written to the orchestrator when that lacks it (with
 * `send`), and replaced by its hash. Prints errors. */
enum cli_exit cli_document_pin(struct cli *cli, struct cli_document *d, bool send);

/* Line in the file for a path in the document; `json_line` is the line in the JSON text that was sent. */
unsigned cli_document_line(const struct cli_document *d, const char *path, unsigned json_line);

/* "file.yaml:12: steps.scan.run: expected ..." on standard error. A message may begin with "line N: ". */
void cli_document_violation(const struct cli_document *d, const char *path, const char *message,
                            unsigned json_line);
/* A server's error about the document. */
void cli_document_error(const struct cli *cli, const struct cli_document *d,
                        const struct cox_rpc_error *error);

#endif
