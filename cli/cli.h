/* What the files of `cox` share. One process, one verb, one thread that does everything, and one that waits
 * for Ctrl-C while a call is under way. Text for people goes to standard error, results to standard output.
 */
#ifndef CLI_H
#define CLI_H

#include "cox/base/buf.h"
#include "cox/base/err.h"
#include "cox/config.h"
#include "cox/rpc.h"
#include "cox/tls.h"

#include <stdio.h>

/* ---- exit codes: part of the contract ---- */
enum cli_exit {
    CLI_OK = 0,
    CLI_TASK_FAILED = 1,
    CLI_USAGE = 2,
    CLI_NOT_FOUND = 3,
    CLI_DENIED = 4,
    CLI_UNAVAILABLE = 5,
    CLI_TIMED_OUT = 124,
    CLI_INTERRUPTED = 130
};

enum cli_format { CLI_TABLE, CLI_WIDE, CLI_JSON, CLI_JSONL, CLI_YAML, CLI_NAME, CLI_FORMAT_NR };

struct cli;

struct cli_option {
    const char *name;  /* without the dashes */
    char letter;       /* 0: none */
    const char *value; /* what its value is called; NULL: a switch */
    const char *help;
};

struct cli_verb {
    const char *name; /* "task submit" */
    const char *args; /* "FILE|-", for the usage line */
    unsigned args_min;
    unsigned args_max;
    enum cli_exit (*run)(struct cli *cli);
    const struct cli_option *options; /* ended by a NULL name; may be NULL */
    const char *summary;              /* one line */
    const char *help;                 /* more, with examples */
};

/* An option as it was given. */
struct cli_given {
    const struct cli_option *option;
    const char *value;
};

struct cli {
    const struct cli_verb *verb;
    const char *group; /* "task" when only that was given */
    bool help;
    struct cli_given *given;
    size_t n_given;
    const char **args;
    size_t n_args;

    struct cox_config *config; /* holds the texts of what follows */
    const char *config_path;   /* of the file, which need not exist; NULL: there is no home */
    char *config_default;
    const char *context; /* NULL: none */
    char *context_default;
    const char *address;
    const char *token; /* NULL: none, as the next */
    const char *tenant;
    struct cox_tls_files tls; /* of NULLs: plaintext */
    const char *flag_address; /* as flags, or NULL: what a new context is made of */
    const char *flag_token;
    const char *flag_tenant;
    struct cox_tls_files flag_tls;
    enum cli_format format;
    bool quiet;
    bool no_color;
    bool color; /* standard error may be coloured */
    bool bar;   /* standard error is a terminal that can redraw a line */
    int64_t connect_timeout_ms;

    struct cox_rpc_loop *loop; /* NULL until the first call */
    struct cox_rpc_channel *channel;
};

/* ---- args.c ---- */
/* The options of every verb, which the configuration file may give too. */
extern const struct cox_config_program cli_program;

/* Reads the command line, the environment and the file. On CLI_USAGE it has said what is wrong. */
enum cli_exit cli_parse(struct cli *cli, int argc, char **argv);
void cli_parse_fini(struct cli *cli);
/* The last value given for an option, NULL when it was not given; a switch has the value "". */
const char *cli_get(const struct cli *cli, const char *option);
bool cli_has(const struct cli *cli, const char *option);
/* The duration given for an option, `fallback` when it was not given. */
enum cli_exit cli_get_duration(const struct cli *cli, const char *option, int64_t fallback_ms,
                               int64_t *ret_ms);
/* The number from 1 on given for an option. */
enum cli_exit cli_get_count(const struct cli *cli, const char *option, uint32_t fallback, uint32_t *ret);

/* ---- contexts.c ---- */
/* ~/.config/coxswain/config.yaml, freed by the caller; NULL without a home. */
char *cli_config_default_path(void);
/* The current context that the file names, freed by the caller; NULL: none. */
char *cli_current_context(const struct cox_yaml *file);
/* Writes a context, which becomes the current one when `use`; what is NULL is kept. Without any of the four
 * it is deleted. Files are written as absolute paths. CLI_USAGE: said why. */
enum cli_exit cli_put_context(struct cli *cli, const char *name, const char *address, const char *token,
                              const char *tenant, const struct cox_tls_files *tls, bool use);

/* ---- verbs.c ---- */
extern const struct cli_verb cli_verbs[]; /* sorted by name */
extern const size_t cli_n_verbs;
const struct cli_verb *cli_find_verb(const char *name);
bool cli_is_group(const char *word);
/* Says that there is no such verb: planned, or misspelled and what is near. */
enum cli_exit cli_unknown_verb(const char *name);

/* ---- help.c ---- */
void cli_help_program(FILE *out);
void cli_help_group(FILE *out, const char *group);
void cli_help_verb(FILE *out, const struct cli_verb *verb);
void cli_help_own(FILE *out, const struct cli_verb *verb); /* without the options of every verb */

/* ---- output.c ---- */
/* "cox: ..." on standard error. */
void cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A remark on standard error, not with --quiet. */
void cli_note(const struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool cli_structured(const struct cli *cli); /* json, jsonl or yaml is wanted */
/* Prints checked JSON text in the structured format that is wanted; pretty JSON when none is. */
void cli_print_json(const struct cli *cli, struct cox_slice json);
void cli_print_message(const struct cli *cli, const ProtobufCMessage *message);
void cli_put_yaml(struct cox_buf *out, struct cox_slice json);

/* A table of text: cells by rows, columns aligned on printing. */
struct cli_table {
    struct cox_buf text; /* cells, each ended by NUL */
    size_t n_cells;
    size_t n_columns;
};
void cli_table_row(struct cli_table *t, size_t n,
                   const char *const *cells);         /* the first row is the heading */
void cli_table_print(struct cli_table *t, FILE *out); /* and empties it */

/* Rows of a table, or JSON of all members, as they come. */
struct cli_listing {
    struct cli_table table;
    struct cox_buf json;
    struct cox_buf beside; /* members beside the array, in JSON: "a":1,"b":2 */
    size_t n;
};
/* `json` is what stands for it in JSON, `cells` in the table. */
void cli_listing_add(struct cli_listing *l, const struct cli *cli, const char *name, struct cox_slice json,
                     size_t n_cells, const char *const *cells);
/* Prints what is to be printed at once, as {"PLURAL": [...]} in JSON; frees. */
void cli_listing_finish(struct cli_listing *l, const struct cli *cli, const char *plural);

/* Tells how one of several things went: its id, or a member of "results" in JSON; an error on standard error.
 * `status` says what it is now better than `done`, or is NULL. */
void cli_report_done(const struct cli *cli, struct cli_listing *l, const char *id, enum cli_exit code,
                     const char *done, const char *status, const struct cox_rpc_error *error);

/* The worse of two exit codes. */
enum cli_exit cli_worse(enum cli_exit a, enum cli_exit b);

/* ---- client.c ---- */
void cli_connect(struct cli *cli);
void cli_disconnect(struct cli *cli);
/* One call. UNAVAILABLE, and refusals that name a delay, are tried again for --connect-timeout when
 * `repeatable`. On another code than CLI_OK, *ret_error says why (NULL when interrupted) and nothing has been
 * printed. */
enum cli_exit cli_try(struct cli *cli, const ProtobufCServiceDescriptor *service, const char *method,
                      const ProtobufCMessage *request, bool repeatable, int64_t timeout_ms,
                      ProtobufCMessage **ret_response, struct cox_rpc_error **ret_error);
/* The same, with the error printed; *ret_response is freed by protobuf_c_message_free_unpacked. */
enum cli_exit cli_call(struct cli *cli, const ProtobufCServiceDescriptor *service, const char *method,
                       const ProtobufCMessage *request, bool repeatable, ProtobufCMessage **ret_response);
enum cli_exit cli_exit_of(const struct cox_rpc_error *error);
void cli_print_error(const struct cli *cli, const struct cox_rpc_error *error);
/* The same, of one thing among several: "cox: t0-00000k: ...". */
void cli_print_error_of(const struct cli *cli, const char *of, const struct cox_rpc_error *error);
/* Waits, running the loop; false when interrupted. */
bool cli_pause(struct cli *cli, int64_t ms);
/* A copy on the heap, freed by protobuf_c_message_free_unpacked. */
ProtobufCMessage *cli_copy(const ProtobufCMessage *message);

/* Retry with growing pauses while something is not reachable. */
struct cli_outage {
    int64_t since_ns; /* 0: none */
    unsigned tries;
};
/* After a failure: pauses and returns CLI_OK to try again, CLI_UNAVAILABLE when time is up, CLI_INTERRUPTED.
 */
enum cli_exit cli_outage_pause(struct cli *cli, struct cli_outage *o, const struct cox_rpc_error *error);

/* ---- interrupt.c ---- */
/* Before any other thread starts: all must inherit that the signals are held, for one to wait for them. */
void cli_interrupt_hold(void);
void cli_interrupt_start(
    struct cox_rpc_loop *loop); /* from here Ctrl-C is a request; a second one ends at once */
void cli_interrupt_stop(void);
bool cli_interrupted(void);

#endif
