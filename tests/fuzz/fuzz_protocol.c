/* Any bytes as what a worker and a program say to each other. The first byte says which:
 *
 *   d  what --describe prints (then, behind a NUL byte, the name that the file has): a program, or why not
 *   r  the JSON of a `run` step: what a process is started with, or why not
 *   c  a call's input (then, behind a NUL byte, what it goes on with): one line of JSON, whatever is in it
 *   o  what a process wrote, as output and as the words of its failure
 *
 * What it answers to a call is the target `answer`. */
#include "fuzz.h"

#include "handlers/answer.h"
#include "handlers/run_output.h"
#include "handlers/run_spec.h"
#include "program.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/json.h"
#include "cox/limits.h"
#include "cox/schema.h"

#include <string.h>

static struct cox_slice cut_at_nul(struct cox_slice *rest)
{
    const uint8_t *nul = rest->len > 0 ? memchr(rest->data, 0, rest->len) : NULL;
    struct cox_slice ret = cox_slice(rest->data, nul ? (size_t)(nul - rest->data) : rest->len);

    *rest = nul ? cox_slice(nul + 1, rest->len - ret.len - 1) : cox_slice(NULL, 0);
    return ret;
}

static void check_schema(const struct cox_buf *schema)
{
    struct cox_buf why = { 0 };

    if (schema->len > 0)
        COX_ASSERT(cox_schema_check(cox_buf_slice(schema), &why) == COX_OK);
    cox_buf_fini(&why);
}

static void check_describe(struct cox_slice in)
{
    struct cox_slice printed = cut_at_nul(&in), file = cut_at_nul(&in);
    char *name = file.len > 0 ? cox_strndup((const char *)file.data, file.len) : NULL;
    char *major = name ? strchr(name, '@') : NULL;
    struct cox_buf why = { 0 };
    struct program *p;

    if (major)
        *major++ = 0;
    if (program_read("/p", printed, name, major, &p, &why) != COX_OK) {
        COX_ASSERT(why.len > 0);
    } else {
        COX_ASSERT(why.len == 0 && strlen(p->name) <= COX_NAME_LEN_MAX && (!name || !strcmp(name, p->name)));
        COX_ASSERT(strncmp(p->handler, p->name, strlen(p->name)) == 0 && p->handler[strlen(p->name)] == '@');
        COX_ASSERT(cox_utf8_ok(cox_slice_str(p->description)) && strlen(p->version) > 0);
        check_schema(&p->input_schema);
        check_schema(&p->output_schema);
        program_unref(p);
    }
    cox_free(name);
    cox_buf_fini(&why);
}

static const struct cox_agent_assign assign = {
    .ref = { 1, 2, { 3, 4 } },
    .attempt = 1,
    .task_id = { (const uint8_t *)"t0-000001", 9 },
    .step_name = { (const uint8_t *)"a", 1 },
    .idempotency_key = { (const uint8_t *)"k", 1 },
};

static void check_run(struct cox_slice in)
{
    const struct call_args args = { .assign = &assign, .spec = in, .dir = "/d", .spool_dir = "/d" };
    struct cox_arena arena = { 0 };
    struct run_spec spec;
    const char *why = NULL;

    if (cox_json_check(in, NULL) != COX_OK)
        return; /* it has been checked before it comes here */
    if (run_spec_read(&arena, NULL, &args, &spec, &why) != COX_OK) {
        COX_ASSERT(why && why[0]);
    } else {
        COX_ASSERT(spec.argv[0] && spec.paths[0]);
        for (char **e = spec.envp; *e; e++)
            COX_ASSERT(strchr(*e, '='));
    }
    cox_arena_fini(&arena);
}

static void check_call(struct cox_slice in)
{
    struct cox_slice input = cut_at_nul(&in);
    struct cox_agent_assign a = assign;
    const uint32_t index = 5;
    const struct call_args args = { .assign = &a, .dir = "/d", .bundle_dir = "/b", .index = &index };
    struct cox_buf line = { 0 };

    if (cox_json_check(input, NULL) != COX_OK || (in.len > 0 && cox_json_check(in, NULL) != COX_OK))
        return;
    a.continuation_json = in;
    answer_ask(&line, 7, input, &args, false);
    COX_ASSERT(line.data[line.len - 1] == '\n' &&
               memchr(line.data, '\n', line.len) == line.data + line.len - 1);
    COX_ASSERT(cox_json_check(cox_slice(line.data, line.len - 1), NULL) == COX_OK);
    cox_buf_fini(&line);
}

static void check_output(struct cox_slice in)
{
    struct cox_slice out = cut_at_nul(&in);
    struct cox_buf text = { 0 }, message = { 0 };

    run_output_text(&text, 3, out, in);
    COX_ASSERT(cox_json_check(cox_buf_slice(&text), NULL) == COX_OK && cox_utf8_ok(cox_buf_slice(&text)));
    cox_buf_clear(&text);
    if (run_output_json(&text, out, &message) == COX_OK)
        COX_ASSERT(message.len == 0 && cox_json_check(cox_buf_slice(&text), NULL) == COX_OK);
    else
        COX_ASSERT(message.len > 0 && message.len <= COX_ERROR_MESSAGE_LEN_MAX);
    cox_buf_clear(&message);
    run_failure_message(&message, 3 << 8, in);
    COX_ASSERT(message.len > 0 && message.len <= COX_ERROR_MESSAGE_LEN_MAX);
    COX_ASSERT(cox_utf8_ok(cox_buf_slice(&message)));
    cox_buf_fini(&text);
    cox_buf_fini(&message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cox_slice rest = size > 0 ? cox_slice(data + 1, size - 1) : cox_slice(NULL, 0);

    switch (size > 0 ? data[0] : 0) {
    case 'd':
        check_describe(rest);
        break;
    case 'r':
        check_run(rest);
        break;
    case 'c':
        check_call(rest);
        break;
    case 'o':
        check_output(rest);
        break;
    default:
        break;
    }
    return 0;
}
