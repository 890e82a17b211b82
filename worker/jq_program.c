#include "jq_program.h"

#include <jq.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static jv answer_error(const char *code, jv message)
{
    return jv_object_set(jv_object(), jv_string("error"),
                         jv_object_set(jv_object_set(jv_object(), jv_string("code"), jv_string(code)),
                                       jv_string("message"), message));
}

/* What went wrong while compiling, as jq says it: the first message tells most. */
static void on_error(void *user, jv message)
{
    jv *ret = user;

    if (jv_get_kind(*ret) == JV_KIND_NULL)
        *ret = message;
    else
        jv_free(message);
}

static jv text_of(jv error)
{
    return jv_get_kind(error) == JV_KIND_STRING ? error : jv_dump_string(error, 0);
}

/* One result, or null for none. */
static jv results(jq_state *jq)
{
    jv first = jq_next(jq), second;

    if (!jv_is_valid(first)) {
        jv error = jv_invalid_get_msg(first);

        if (jv_get_kind(error) != JV_KIND_NULL)
            return answer_error("INPUT_INVALID", text_of(error));
        jv_free(error);
        return jv_object_set(jv_object(), jv_string("output"), jv_null());
    }
    second = jq_next(jq);
    if (!jv_is_valid(second)) {
        jv error = jv_invalid_get_msg(second);

        if (jv_get_kind(error) == JV_KIND_NULL) {
            jv_free(error);
            return jv_object_set(jv_object(), jv_string("output"), first);
        }
        jv_free(first);
        return answer_error("INPUT_INVALID", text_of(error));
    }
    jv_free(first);
    jv_free(second);
    return answer_error(
        "OUTPUT_INVALID",
        jv_string("the program gave more than one result; [ ... ] around it makes a list of them"));
}

static jv evaluate(jv input)
{
    jv program = jv_object_get(jv_copy(input), jv_string("program"));
    jv value = jv_object_get(input, jv_string("input"));
    jv why = jv_null();
    jq_state *jq = jq_init();
    jv answer;

    if (!jv_is_valid(value)) {
        jv_free(value);
        value = jv_null();
    }
    if (!jq || jv_get_kind(program) != JV_KIND_STRING) {
        jv_free(value);
        answer = answer_error("INPUT_INVALID", jv_string("jq.program: expected a string"));
    } else {
        jq_set_error_cb(jq, on_error, &why);
        if (jq_compile(jq, jv_string_value(program))) {
            jq_start(jq, value, 0);
            answer = results(jq);
        } else {
            jv_free(value);
            answer = answer_error("INPUT_INVALID", text_of(jv_copy(why)));
        }
    }
    if (jq)
        jq_teardown(&jq);
    jv_free(why);
    jv_free(program);
    return answer;
}

static void serve(const char *line)
{
    jv call = jv_parse(line);
    jv answer;

    if (jv_get_kind(call) != JV_KIND_OBJECT) {
        jv_free(call);
        return;
    }
    answer = evaluate(jv_object_get(jv_copy(call), jv_string("input")));
    answer = jv_object_set(answer, jv_string("id"), jv_object_get(call, jv_string("id")));
    jv_dumpf(answer, stdout, 0);
    putchar('\n');
    fflush(stdout);
}

int jq_main(void)
{
    char *line = NULL;
    size_t cap = 0;

#if !defined(__SANITIZE_ADDRESS__) &&                                                                        \
    !defined(__SANITIZE_THREAD__) /* whose shadow is larger than any limit */
    setrlimit(RLIMIT_AS, &(struct rlimit){ JQ_MEMORY_LEN_MAX, JQ_MEMORY_LEN_MAX });
#endif
    /* `import` would read whatever JSON the worker may: no file can be opened any more. */
    tzset();
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 3, 3 });
    while (getline(&line, &cap, stdin) > 0)
        serve(line);
    free(line);
    return EXIT_SUCCESS;
}
