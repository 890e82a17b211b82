/* The reference's generated parts, docs/reference/{cli,configuration}.md, are what the tables say. With
 * COX_UPDATE=1 it writes them anew. */
#include "cli.h"
#include "config.h"

#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct cox_config_program worker_config_program;
extern const struct cox_config_program modelsim_config_program;

static struct cox_buf read_file(const char *path)
{
    FILE *f = fopen(path, "re");
    struct cox_buf text = { 0 };
    size_t n = 1;

    if (!f)
        fail_msg("%s is not there", path);
    while (n > 0) {
        cox_buf_reserve(&text, 65536);
        n = fread(text.data + text.len, 1, 65536, f);
        text.len += n;
    }
    fclose(f);
    return text;
}

/* Everything between "<!-- NAME -->" and "<!-- end -->" is ours. */
static void put_between(struct cox_buf *out, const char *old, const char *name, const char *generated)
{
    char begin[64];

    snprintf(begin, sizeof(begin), "<!-- %s -->\n", name);
    const char *start = strstr(old, begin), *end = start ? strstr(start, "<!-- end -->") : NULL;

    if (!end)
        fail_msg("the marks of %s are not there", name);
    cox_buf_append(out, old, (size_t)(start - old) + strlen(begin));
    cox_buf_append_str(out, generated);
    cox_buf_append_str(out, end);
}

static void check_file(const char *path, const char *name, const char *generated)
{
    const char *update = getenv("COX_UPDATE");
    struct cox_buf old = read_file(path), new = { 0 };

    put_between(&new, cox_buf_cstr(&old), name, generated);
    if (strcmp(cox_buf_cstr(&old), cox_buf_cstr(&new)) != 0) {
        if (!update || !*update)
            fail_msg("%s: part %s is not what the table says; write it with COX_UPDATE=1", path, name);
        FILE *f = fopen(path, "we");
        assert_non_null(f);
        assert_int_equal(fwrite(new.data, 1, new.len, f), new.len);
        assert_int_equal(fclose(f), 0);
    }
    cox_buf_fini(&old);
    cox_buf_fini(&new);
}

static void test_verbs(void **state)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    (void)state;
    fputs("| verb | does |\n|---|---|\n", out);
    for (size_t i = 0; i < cli_n_verbs; i++) {
        fprintf(out, "| `%s%s", cli_verbs[i].name, *cli_verbs[i].args ? " " : "");
        for (const char *s = cli_verbs[i].args; *s; s++)
            fprintf(out, "%s%c", *s == '|' ? "\\" : "", *s);
        fprintf(out, "` | %s |\n", cli_verbs[i].summary);
    }
    for (size_t i = 0; i < cli_n_verbs; i++) {
        fprintf(out, "\n### %s\n\n```\n", cli_verbs[i].name);
        cli_help_own(out, &cli_verbs[i]);
        fputs("```\n", out);
    }
    fclose(out);
    check_file(REFERENCE "/cli.md", "verbs", text);
    free(text);
}

static void check_program(const char *file, const struct cox_config_program *program)
{
    struct cox_buf text = { 0 };

    cox_config_put_markdown(&text, program);
    check_file(file, program->name, cox_buf_cstr(&text));
    cox_buf_fini(&text);
}

static void test_keys(void **state)
{
    (void)state;
    check_program(REFERENCE "/configuration.md", &coxd_config_program);
    check_program(REFERENCE "/configuration.md", &worker_config_program);
    check_program(REFERENCE "/configuration.md", &cli_program);
    check_program(REFERENCE "/modelsim.md", &modelsim_config_program);
}

/* The table is searched by halves, and every verb says how it is used. */
static void test_the_table_of_verbs(void **state)
{
    (void)state;
    for (size_t i = 0; i < cli_n_verbs; i++) {
        const struct cli_verb *v = &cli_verbs[i];
        assert_true(i == 0 || strcmp(cli_verbs[i - 1].name, v->name) < 0);
        assert_ptr_equal(cli_find_verb(v->name), v);
        char example[80];
        snprintf(example, sizeof(example), "cox %s", v->name);
        if (!strstr(v->help, "Example") || !strstr(v->help, example))
            fail_msg("%s: its help has no example", v->name);
        for (const char *line = v->help; *line; line += strcspn(line, "\n"), line += *line == '\n') {
            if (strcspn(line, "\n") > 120)
                fail_msg("%s: a line of its help is longer than 120: %.40s...", v->name, line);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verbs),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_the_table_of_verbs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
