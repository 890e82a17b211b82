/* Documents that must not compile: every kind of bad input, with the place and the words of the answer. */
#include "task_fixture.h"

#define HEAD "{`api_version`: `v1`, `name`: `t`, "
#define STEP(body) HEAD "`steps`: {`a`: {" body "}}}"
#define RUN "`run`: {`argv`: [`true`]}"

struct bad {
    const char *document;
    const char *path;
    const char *message;
};

static void refuse_all(const struct bad *cases, size_t n)
{
    for (size_t i = 0; i < n; i++)
        refused(cases[i].document, NULL, cases[i].path, 1, cases[i].message);
}
#define REFUSE_ALL(cases) refuse_all(cases, sizeof(cases) / sizeof((cases)[0]))

static void test_a_good_document_compiles(void **state)
{
    struct compiled c;

    (void)state;
    must_compile(&c, STEP(RUN), NULL); /* the control: the cases below differ from it in one thing */
    compiled_fini(&c);
}

static void test_text_that_is_not_json(void **state)
{
    static const struct bad cases[] = {
        { " \t\r", "", "without content" },
        { "{", "", "not valid JSON" },
        { "{`api_version`: `v1`} x", "", "not valid JSON" },
        { "{`steps`: {`a`: {`run`: tru}}}", "steps.a.run", "not valid JSON" },
        { "[1, 2", "[1]", "not valid JSON" },
        { "{`name`: 123456789012345678901234567890}", "name", "number too large" },
        { "{`name`: 1e999}", "name", "number too large" },
        { "{`name`: `a\\u0000b`}", "name", "\\u0000" },
        { "{`name`: `\\ud800`}", "name", "not valid JSON" },
        { "[]", "", "found a list, expected an object" },
        { "null", "", "not valid JSON" },
    };
    struct compiled c;

    (void)state;
    REFUSE_ALL(cases);
    refused("", NULL, "", 0, "without content");
    compile_bytes(&c, cox_slice("{\"name\": \"a\xff\"}", 14), NULL);
    expect_violation(&c, "bytes that are not UTF-8", "name", 1, "not UTF-8");
    compiled_fini(&c);
    compile_bytes(&c, cox_slice("{\"a\":\0 1}", 9), NULL);
    expect_violation(&c, "a NUL byte", "a", 1, "not valid JSON");
    compiled_fini(&c);
}

static void test_a_syntax_error_has_its_line(void **state)
{
    (void)state;
    refused("{`api_version`: `v1`,\n `name`: `t`,\n `steps`: {\n  `a`: {,}}}", NULL, "steps.a", 4,
            "not valid JSON");
}

static void test_the_same_key_twice(void **state)
{
    static const struct bad cases[] = {
        { "{`name`: `a`, `name`: `b`}", "name", "twice" },
        { HEAD "`steps`: {`a`: {`timeout`: `1s`, " RUN ", `timeout`: `2s`}}}", "steps.a.timeout", "twice" },
        { HEAD "`steps`: {`a`: {`run`: {`argv`: [`x`, {`k`: 1, `k`: 2}]}}}}", "steps.a.run.argv[1].k",
          "twice" },
    };

    (void)state;
    REFUSE_ALL(cases);
}

static void test_too_large(void **state)
{
    struct cox_buf document = { 0 };
    struct compiled c;

    (void)state;
    cox_buf_append_str(&document, "{\"name\":\"");
    memset(cox_buf_extend(&document, COX_DOCUMENT_LEN_MAX), 'x', COX_DOCUMENT_LEN_MAX);
    cox_buf_append_str(&document, "\"}");
    compile_bytes(&c, cox_buf_slice(&document), NULL);
    expect_violation(&c, "5 MiB", "", 1, "of 4194315 bytes, expected at most 4194304");
    compiled_fini(&c);
    cox_buf_fini(&document);
}

static void nest(struct cox_buf *b, unsigned depth)
{
    for (unsigned i = 0; i < depth; i++)
        cox_buf_append_str(b, "[");
    for (unsigned i = 0; i < depth; i++)
        cox_buf_append_str(b, "]");
}

static void test_too_deep(void **state)
{
    (void)state;
    for (unsigned over = 0; over <= 1; over++) {
        struct cox_buf document = quoted(HEAD "`outputs`: {`x`: ");
        struct cox_buf tail = quoted("}, `steps`: {`a`: {" RUN "}}}");
        struct compiled c;

        nest(&document, COX_JSON_DEPTH_MAX - 2 + over);
        cox_buf_append_slice(&document, cox_buf_slice(&tail));
        compile_bytes(&c, cox_buf_slice(&document), NULL);
        if (over) {
            assert_int_equal(c.violations.n, 1);
            assert_non_null(strstr(c.violations.items[0].message, "64 levels of nesting"));
            assert_memory_equal(c.violations.items[0].path, "outputs.x[0][0]", 15);
        } else {
            assert_int_equal(c.err, COX_OK);
        }
        compiled_fini(&c);
        cox_buf_fini(&document);
        cox_buf_fini(&tail);
    }
}

static void test_a_million_brackets(void **state)
{
    struct cox_buf document = { 0 };
    struct compiled c;

    (void)state;
    memset(cox_buf_extend(&document, 1000000), '[', 1000000);
    compile_bytes(&c, cox_buf_slice(&document), NULL);
    assert_int_equal(c.violations.n, 1);
    assert_non_null(strstr(c.violations.items[0].message, "levels of nesting"));
    compiled_fini(&c);
    cox_buf_fini(&document);
}

static void test_misspelled_fields(void **state)
{
    static const struct bad cases[] = {
        { STEP(RUN ", `tmeout`: `1s`"), "steps.a.tmeout", "did you mean `timeout`?" },
        { STEP("`rnu`: {`argv`: [`true`]}, " RUN), "steps.a.rnu", "did you mean `run`?" },
        { STEP("`run`: {`argv`: [`true`], `ouput`: `json`}"), "steps.a.run.ouput", "did you mean `output`?" },
        { STEP(RUN ", `retry`: {`initial_backof`: `1s`}"), "steps.a.retry.initial_backof",
          "did you mean `initial_backoff`?" },
        { STEP(RUN ", `retry`: {`backoff`: `1s`}"), "steps.a.retry.backoff",
          "expected one of max_attempts, initial_backoff" },
        { STEP(RUN ", `zzzz`: 1"), "steps.a.zzzz", "unknown field; expected one of run, uses, http, jq" },
        { HEAD "`imputs`: {}, `steps`: {`a`: {" RUN "}}}", "imputs", "did you mean `inputs`?" },
        { HEAD "`x.y z`: 1, `steps`: {`a`: {" RUN "}}}", "[\"x.y z\"]", "unknown field" },
    };

    (void)state;
    REFUSE_ALL(cases);
}

static void test_missing_fields(void **state)
{
    static const struct bad cases[] = {
        { "{`name`: `t`, `steps`: {`a`: {" RUN "}}}", "api_version", "missing; expected \"v1\"" },
        { "{`api_version`: `v1`, `steps`: {`a`: {" RUN "}}}", "name", "missing; expected a name" },
        { HEAD "`labels`: {}}", "steps", "missing; expected an object of steps" },
        { STEP("`run`: {}"), "steps.a.run.argv", "missing; expected a list of strings" },
        { HEAD "`inputs`: {`x`: {}}, `steps`: {`a`: {" RUN "}}}", "inputs.x.type", "missing" },
    };

    (void)state;
    REFUSE_ALL(cases);
}

static void test_wrong_types(void **state)
{
    static const struct bad cases[] = {
        { "{`api_version`: 1, `name`: `t`, `steps`: {`a`: {" RUN "}}}", "api_version",
          "found the integer 1, expected \"v1\"" },
        { "{`api_version`: `v2`, `name`: `t`, `steps`: {`a`: {" RUN "}}}", "api_version",
          "found the string \"v2\", expected \"v1\"" },
        { "{`api_version`: `v1`, `name`: `Big Name`, `steps`: {`a`: {" RUN "}}}", "name",
          "expected a name of a-z" },
        { HEAD "`steps`: []}", "steps", "found a list, expected an object of steps" },
        { HEAD "`steps`: {}}", "steps", "found 0 steps, expected 1 to 100000" },
        { HEAD "`steps`: {`a`: 7}}", "steps.a", "found the integer 7, expected an object" },
        { HEAD "`steps`: {`A`: {" RUN "}}}", "steps.A", "step name" },
        { HEAD "`labels`: {`a`: 1}, `steps`: {`a`: {" RUN "}}}", "labels.a",
          "found the integer 1, expected a string" },
        { HEAD "`priority`: 101, `steps`: {`a`: {" RUN "}}}", "priority",
          "expected an integer from -100 to 100" },
        { HEAD "`fail_fast`: `yes`, `steps`: {`a`: {" RUN "}}}", "fail_fast", "expected true or false" },
        { HEAD "`budget`: {`tokens`: -1}, `steps`: {`a`: {" RUN "}}}", "budget.tokens", "an integer from 0" },
        { HEAD "`budget`: {`cost`: `5`}, `steps`: {`a`: {" RUN "}}}", "budget.cost", "a number from 0" },
        { HEAD "`budget`: {`cpu_seconds`: -1}, `steps`: {`a`: {" RUN "}}}", "budget.cpu_seconds",
          "a number from 0" },
        { HEAD "`budget`: {`steps`: 0}, `steps`: {`a`: {" RUN "}}}", "budget.steps", "an integer from 1" },
        { HEAD "`budget`: {`steps`: 1}, `steps`: {`a`: {" RUN "}, `b`: {" RUN "}}}", "budget.steps",
          "found 2 steps in the document" },
        { HEAD "`budget`: {`timeout`: `soon`}, `steps`: {`a`: {" RUN "}}}", "budget.timeout",
          "found the string \"soon\", expected a duration" },
        { STEP("`run`: [`true`]"), "steps.a.run", "found a list, expected an object" },
        { STEP("`run`: {`argv`: []}"), "steps.a.run.argv", "found no program" },
        { STEP("`run`: {`argv`: [``]}"), "steps.a.run.argv", "found no program" },
        { STEP("`run`: {`argv`: [`sleep`, 5]}"), "steps.a.run.argv[1]",
          "found the integer 5, expected a string" },
        { STEP("`run`: {`argv`: [`x`], `env`: {`A`: true}}"), "steps.a.run.env.A", "found the boolean true" },
        { STEP("`run`: {`argv`: [`x`], `env`: {`A=B`: `c`}}"), "steps.a.run.env[\"A=B\"]", "without `=`" },
        { STEP("`run`: {`argv`: [`x`], `output`: `yaml`}"), "steps.a.run.output",
          "expected \"text\" or \"json\"" },
        { STEP("`uses`: `lint`"), "steps.a.uses", "a program and its major version" },
        { STEP("`uses`: `lint@x`"), "steps.a.uses", "a program and its major version" },
        { STEP("`uses`: `lint@01`"), "steps.a.uses", "a program and its major version" },
        { STEP("`uses`: `@1`"), "steps.a.uses", "a program and its major version" },
        { STEP("`uses`: `l@1`, `with`: [1]"), "steps.a.with", "found a list, expected an object" },
        { STEP(RUN ", `timeout`: 10"), "steps.a.timeout", "found the integer 10, expected a duration" },
        { STEP(RUN ", `timeout`: `-1s`"), "steps.a.timeout", "expected a duration" },
        { STEP(RUN ", `timeout`: `99999d`"), "steps.a.timeout", "expected at most 3650 days" },
        { STEP(RUN ", `allow_failure`: null"), "steps.a.allow_failure",
          "found null, expected true or false" },
        { STEP(RUN ", `needs`: `b`"), "steps.a.needs", "expected a list of step names" },
        { STEP(RUN ", `needs`: [1]"), "steps.a.needs[0]", "expected the name of a step" },
        { STEP(RUN ", `if`: `success()`"), "steps.a.if", "expected one expression such as" },
        { STEP(RUN ", `if`: 1"), "steps.a.if", "found the integer 1, expected one expression" },
        { STEP(RUN ", `if`: `${{ true }} `"), "steps.a.if", "expected one expression" },
        { STEP(RUN ", `resources`: {`cpu`: `lots`}"), "steps.a.resources.cpu", "expected a number of cores" },
        { STEP(RUN ", `resources`: {`cpu`: -1}"), "steps.a.resources.cpu", "expected a number of cores" },
        { STEP(RUN ", `resources`: {`memory`: `1GB`}"), "steps.a.resources.memory", "expected a size" },
        { STEP(RUN ", `resources`: {`disk`: -5}"), "steps.a.resources.disk", "expected a size" },
        { STEP(RUN ", `requires`: `arch = amd64`"), "steps.a.requires",
          "found `arch = amd64`, expected `LABEL == VALUE`" },
        { STEP(RUN ", `requires`: `a == b, `"), "steps.a.requires", "expected `LABEL == VALUE`" },
        { STEP(RUN ", `with`: {}"), "steps.a.with", "expected `uses` beside it" },
    };

    (void)state;
    REFUSE_ALL(cases);
}

static void test_retry(void **state)
{
    static const struct bad cases[] = {
        { STEP(RUN ", `retry`: 3"), "steps.a.retry", "expected an object such as" },
        { STEP(RUN ", `retry`: {`max_attempts`: 0}"), "steps.a.retry.max_attempts", "from 1 to 1000" },
        { STEP(RUN ", `retry`: {`max_attempts`: 1001}"), "steps.a.retry.max_attempts", "from 1 to 1000" },
        { STEP(RUN ", `retry`: {`initial_backoff`: 5}"), "steps.a.retry.initial_backoff",
          "expected a duration" },
        { STEP(RUN ", `retry`: {`initial_backoff`: `9s`, `max_backoff`: `1s`}"), "steps.a.retry.max_backoff",
          "no shorter than `initial_backoff`" },
        { STEP(RUN ", `retry`: {`multiplier`: 0.5}"), "steps.a.retry.multiplier", "from 1 to 100" },
        { STEP(RUN ", `retry`: {`on`: [`TIMEOUTS`]}"), "steps.a.retry.on[0]", "did you mean `TIMEOUT`?" },
        { STEP(RUN ", `retry`: {`on`: [7]}"), "steps.a.retry.on[0]", "expected an error code" },
        { STEP(RUN ", `retry`: {`on`: [`TIMEOUT`, `CANCELLED`]}"), "steps.a.retry.on[1]", "stays cancelled" },
        { STEP(RUN ", `retry`: {`on`: [`WORKER_LOST`]}"), "steps.a.retry.on[0]", "retried anyway" },
        { STEP(RUN ", `retry`: {`on`: [`PREEMPTED`]}"), "steps.a.retry.on[0]", "retried anyway" },
        { STEP(RUN ", `retry`: {`on`: [`INPUT_INVALID`]}"), "steps.a.retry.on[0]", "refused again" },
        { HEAD "`defaults`: {`retry`: {`on`: [``]}}, `steps`: {`a`: {" RUN "}}}", "defaults.retry.on[0]",
          "expected an error code" },
    };

    (void)state;
    REFUSE_ALL(cases);
}

static void test_kinds(void **state)
{
    (void)state;
    refused(STEP("`needs`: []"), NULL, "steps.a", 1, "found no kind, expected exactly one");
    refused(STEP(RUN ", `uses`: `x@1`"), NULL, "steps.a", 1,
            "found `run` and `uses`, expected exactly one kind");
    refused(STEP(RUN ", `fallback`: {`timeout`: `1s`}"), NULL, "steps.a.fallback", 1, "found no kind");
    refused(STEP(RUN ", `fallback`: {" RUN ", `needs`: []}"), NULL, "steps.a.fallback.needs", 1,
            "unknown field");
}

static void test_what_comes_later_is_refused_and_not_ignored(void **state)
{
    static const struct bad cases[] = {
        { STEP("`run`: {`argv`: [`x`], `sandbox`: `soft`}"), "steps.a.run.sandbox", "expected \"none\"" },
        { STEP("`uses`: `./tools/grep.py`"), "steps.a.uses", "the document has no `bundle`" },
        { HEAD "`bundle`: `./agent`, `steps`: {`a`: {" RUN "}}}", "bundle", "expected \"sha256:\" and 64" },
        { HEAD "`kind`: `template`, `steps`: {`a`: {" RUN "}}}", "kind", "`cox template apply` takes" },
        { HEAD "`kind`: `job`, `steps`: {`a`: {" RUN "}}}", "kind", "expected \"task\"" },
    };

    (void)state;
    REFUSE_ALL(cases);
}

static void test_inputs(void **state)
{
#define WITH_INPUTS(inputs) HEAD "`inputs`: {" inputs "},\n `steps`: {`a`: {" RUN "}}}"
    static const struct {
        const char *declared, *given, *path;
        uint32_t line; /* 0: what is wrong is not in the document */
        const char *message;
    } cases[] = {
        { "`repo`: {`type`: `string`}", NULL, "inputs.repo", 1,
          "missing; this input has no default, expected a string" },
        { "`repo`: {`type`: `string`}", "{`repo`: 5}", "inputs.repo", 0,
          "found the integer 5, expected a string" },
        { "`n`: {`type`: `integer`}", "{`n`: 1.5}", "inputs.n", 0,
          "found the number 1.5, expected an integer" },
        { "`n`: {`type`: `number`}", "{`n`: `1`}", "inputs.n", 0, "expected a number" },
        { "`n`: {`type`: `boolean`}", "{`n`: null}", "inputs.n", 0, "found null, expected true or false" },
        { "`n`: {`type`: `array`}", "{`n`: {}}", "inputs.n", 0, "expected a list" },
        { "`n`: {`type`: `object`}", "{`n`: []}", "inputs.n", 0, "expected an object" },
        { "`n`: {`type`: `int`}", "{`n`: 1}", "inputs.n.type", 1, "expected \"string\", \"integer\"" },
        { "`n`: {`type`: `integer`, `default`: `x`}", NULL, "inputs.n.default", 1, "expected an integer" },
        { "`n`: {`type`: `integer`, `defualt`: 1, `required`: false}", NULL, "inputs.n.defualt", 1,
          "did you mean `default`?" },
        { "`N`: {`type`: `integer`, `default`: 1}", NULL, "inputs.N", 1, "input name" },
        { "`n`: 5", NULL, "inputs.n", 1, "found the integer 5, expected an object" },
        { "`repo`: {`type`: `string`, `default`: ``}", "{`rep`: `x`}", "inputs.rep", 0,
          "unknown input; did you mean `repo`?" },
        { "", "{`x`: 1}", "inputs.x", 0, "unknown input" },
        { "", "[1]", "inputs", 0, "found a list, expected an object" },
        { "", "{`x`: ", "inputs.x", 0, "not valid JSON" },
        { "", "{`x`: 1, `x`: 2}", "inputs.x", 0, "twice" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char document[400];

        snprintf(document, sizeof(document), WITH_INPUTS("%s"), cases[i].declared);
        refused(document, cases[i].given, cases[i].path, cases[i].line, cases[i].message);
    }
}

static void test_expressions_that_name_what_is_not_there(void **state)
{
#define TWO(body)                                                                                            \
    HEAD "`inputs`: {`repo`: {`type`: `string`, `default`: ``}}, `steps`: {`scan`: {" RUN "}, `a`: {" body   \
         "}}}"
    static const struct bad cases[] = {
        { TWO("`run`: {`argv`: [`x`, `${{ steps.scna.output }}`]}"), "steps.a.run.argv[1]",
          "unknown step `scna`; did you mean `scan`?" },
        { TWO(RUN ", `needs`: [`scam`]"), "steps.a.needs[0]", "unknown step `scam`; did you mean `scan`?" },
        { TWO(RUN ", `if`: `${{ steps.nowhere.output }}`"), "steps.a.if", "unknown step `nowhere`" },
        { TWO("`run`: {`argv`: [`x`], `env`: {`A`: `${{ inputs.rep }}`}}"), "steps.a.run.env.A",
          "unknown input `rep`; did you mean `repo`?" },
        { TWO("`run`: {`argv`: [`x`], `stdin`: `${{ steps.scan.outputs }}`}"), "steps.a.run.stdin",
          "a step has no `outputs`, expected `output`, `errors`, `artifacts`, `status` or `error`; did you "
          "mean "
          "`output`?" },
        { TWO("`uses`: `x@1`, `with`: {`l`: [1, {`k k`: `${{ steps.scan }}`}]}"),
          "steps.a.with.l[1][\"k k\"]", "expected `steps.scan.output`" },
        { TWO(RUN ", `if`: `${{ steps }}`"), "steps.a.if", "expected a step by its name" },
        { TWO(RUN ", `if`: `${{ steps[inputs.repo].output }}`"), "steps.a.if",
          "expected a step by its name" },
        { TWO(RUN ", `if`: `${{ steps.a.output }}`"), "steps.a.if", "must not refer to itself" },
        { TWO(RUN ", `needs`: [`a`]"), "steps.a.needs[0]", "must not need itself" },
        { TWO("`run`: {`argv`: [`${{ error }}`]}"), "steps.a.run.argv[0]", "in a `fallback` only" },
        { TWO("`run`: {`argv`: [`${{ args.x }}`]}"), "steps.a.run.argv[0]", "tools of an agent only" },
        { TWO("`run`: {`argv`: [`${{ item }}`]}"), "steps.a.run.argv[0]", "for each item of a `map` only" },
        { TWO("`run`: {`argv`: [`${{ index }}`]}"), "steps.a.run.argv[0]", "for each item of a `map` only" },
        { TWO("`run`: {`argv`: [`${{ secrets.X }}`]}"), "steps.a.run.argv[0]", "sees the arguments" },
        { TWO("`run`: {`argv`: [`${{ success() }}`]}"), "steps.a.run.argv[0]", "in `if` only" },
        { TWO("`run`: {`argv`: [`${{ step.scan.output }}`]}"), "steps.a.run.argv[0]",
          "did you mean `steps`?" },
        { HEAD "`steps`: {`a`: {" RUN "}}, `outputs`: {`x`: [`${{ steps.b.output }}`]}}", "outputs.x[0]",
          "unknown step `b`" },
    };

    (void)state;
    REFUSE_ALL(cases);
}

static void test_cycles(void **state)
{
    static const struct bad cases[] = {
        { HEAD "`steps`: {`a`: {" RUN ", `needs`: [`b`]}, `b`: {" RUN ", `needs`: [`a`]}}}", "steps.a",
          "a -> b -> a" },
        { HEAD "`steps`: {`z`: {" RUN ", `needs`: [`c`]}, `b`: {" RUN ", `if`: `${{ steps.c.output }}`}, "
               "`c`: {`run`: {`argv`: [`${{ steps.d.status }}`]}}, `d`: {" RUN ", `needs`: [`b`]}}}",
          "steps.b", "b -> c -> d -> b" },
        { HEAD "`steps`: {`a`: {" RUN ", `fallback`: {`run`: {`argv`: [`${{ steps.b.output }}`]}}}, "
               "`b`: {" RUN ", `needs`: [`a`]}}}",
          "steps.a", "a -> b -> a" },
    };
    struct cox_buf ring = quoted(HEAD "`steps`: {");
    struct compiled c;

    (void)state;
    REFUSE_ALL(cases);
    for (int i = 0; i < 50000; i++)
        cox_buf_printf(&ring, "%s\"s%d\": {\"run\": {\"argv\": [\"x\"]}, \"needs\": [\"s%d\"]}", i ? "," : "",
                       i, (i + 1) % 50000);
    cox_buf_append_str(&ring, "}}");
    compile_bytes(&c, cox_buf_slice(&ring), NULL);
    expect_violation(&c, "a ring of 50,000 steps", "steps.s0", 1, "s0 -> s1 -> s2");
    assert_non_null(strstr(c.violations.items[0].message, "... (50000 steps) -> s0"));
    compiled_fini(&c);
    cox_buf_fini(&ring);
}

static void test_lines_point_into_the_text(void **state)
{
    (void)state;
    refused("{`api_version`: `v1`,\n"
            " `name`: `t`,\n"
            " `steps`: {\n"
            "  `first`: {`run`: {`argv`: [\n"
            "    `x`,\n"
            "    `${{ 1 + }}`\n"
            "  ]}}}}",
            NULL, "steps.first.run.argv[1]", 6, "found its end, expected a value");
    refused("{`api_version`: `v1`,\n"
            " `name`: `t`,\n"
            " `steps`: {`first`:\n"
            "   {`run`: {}}}}",
            NULL, "steps.first.run.argv", 4, "missing");
}

static void test_only_so_many_are_reported_and_the_rest_counted(void **state)
{
    struct cox_buf document = quoted(HEAD "`steps`: {");
    struct compiled c;

    (void)state;
    for (int i = 0; i < 100000; i++)
        cox_buf_printf(&document, "%s\"s%d\":{\"rum\":1}", i ? "," : "", i);
    cox_buf_append_str(&document, "}}");
    compile_bytes(&c, cox_buf_slice(&document), NULL);
    assert_int_equal(c.violations.n, COX_VIOLATIONS_MAX);
    assert_int_equal(c.violations.n_more, 200000 - COX_VIOLATIONS_MAX); /* unknown field, and no kind */
    compiled_fini(&c);
    cox_buf_fini(&document);
}

static void test_too_many_steps(void **state)
{
    struct cox_buf document = quoted(HEAD "`steps`: {");
    struct compiled c;

    (void)state;
    for (unsigned i = 0; i <= COX_TASK_STEPS_MAX; i++)
        cox_buf_printf(&document, "%s\"s%u\":{\"uses\":\"x@1\"}", i ? "," : "", i);
    cox_buf_append_str(&document, "}}");
    compile_bytes(&c, cox_buf_slice(&document), NULL);
    expect_violation(&c, "100,001 steps", "steps", 1, "found 100001 steps, expected 1 to 100000");
    compiled_fini(&c);
    cox_buf_fini(&document);
}

/* Steps and fallbacks that differ in what they ask of a worker; like ones are one class. */
static void put_classes(struct cox_buf *document, unsigned n)
{
    struct cox_buf head = quoted(HEAD "`steps`: {`a`: {" RUN "}, `b`: {" RUN "}");

    cox_buf_clear(document);
    cox_buf_append_slice(document, cox_buf_slice(&head));
    for (unsigned i = 2; i < n; i++)
        cox_buf_printf(document, ",\"s%u\":{\"uses\":\"x@1\",\"resources\":{\"memory\":%u}}", i, i);
    cox_buf_append_str(document, ",\"last\":{\"uses\":\"x@1\",\"fallback\":{\"uses\":\"x@1\"}}}}");
    cox_buf_fini(&head);
}

static void test_too_many_classes(void **state)
{
    struct cox_buf document = { 0 };
    struct compiled c;

    (void)state;
    put_classes(&document, COX_TASK_CLASSES_MAX);
    compile_bytes(&c, cox_buf_slice(&document), NULL);
    assert_int_equal(c.err, COX_OK);
    assert_int_equal(c.image.n_classes, COX_TASK_CLASSES_MAX);
    compiled_fini(&c);
    put_classes(&document, COX_TASK_CLASSES_MAX + 1);
    compile_bytes(&c, cox_buf_slice(&document), NULL);
    expect_violation(&c, "4,097 classes", "steps", 1, "found 4097 different combinations");
    compiled_fini(&c);
    cox_buf_fini(&document);
}

static void test_labels(void **state)
{
    static const struct cox_slice none = { 0 };
    char long_name[COX_LABEL_LEN_MAX + 2];
    struct cox_label given = { .value = none };
    struct cox_buf document = quoted(STEP(RUN));
    struct cox_task_source source = { .document = cox_buf_slice(&document), .labels = &given, .n_labels = 1 };
    struct compiled c;

    (void)state;
    memset(long_name, 'n', sizeof(long_name));
    given.name = cox_slice(long_name, COX_LABEL_LEN_MAX + 1);
    compile_source(&c, &source);
    expect_violation(&c, "a long label", "labels", 1, "expected a name of 1 to 256");
    compiled_fini(&c);
    given.name = cox_slice("\xc3", 1);
    compile_source(&c, &source);
    expect_violation(&c, "a broken label", "labels", 1, "not UTF-8");
    compiled_fini(&c);
    cox_buf_fini(&document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_document_compiles),
        cmocka_unit_test(test_text_that_is_not_json),
        cmocka_unit_test(test_a_syntax_error_has_its_line),
        cmocka_unit_test(test_the_same_key_twice),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_too_deep),
        cmocka_unit_test(test_a_million_brackets),
        cmocka_unit_test(test_misspelled_fields),
        cmocka_unit_test(test_missing_fields),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_retry),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_what_comes_later_is_refused_and_not_ignored),
        cmocka_unit_test(test_inputs),
        cmocka_unit_test(test_expressions_that_name_what_is_not_there),
        cmocka_unit_test(test_cycles),
        cmocka_unit_test(test_lines_point_into_the_text),
        cmocka_unit_test(test_only_so_many_are_reported_and_the_rest_counted),
        cmocka_unit_test(test_too_many_steps),
        cmocka_unit_test(test_too_many_classes),
        cmocka_unit_test(test_labels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
