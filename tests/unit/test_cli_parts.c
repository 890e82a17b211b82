/* Parts of the command line that need no orchestrator: bundles, lines of inputs, trees of steps. */
#include "bundle.h"
#include "for_each.h"
#include "terminal.h"
#include "tree.h"

#include "cox/base/alloc.h"
#include "cox/limits.h"

#include "check.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <zlib.h>

/* ---- bundles --------------------------------------------------------------------------------------------
 */

static char root[] = "/tmp/cox-bundle.XXXXXX";

static void put(const char *dir, const char *path, const char *text, mode_t mode, time_t when)
{
    char *full = cox_asprintf("%s/%s/%s", root, dir, path);
    struct timespec times[2] = { { .tv_sec = when }, { .tv_sec = when } };

    for (char *s = strchr(full + strlen(root) + 1, '/'); s; s = strchr(s + 1, '/')) {
        *s = '\0';
        (void)mkdir(full, 0755);
        *s = '/';
    }
    FILE *f = fopen(full, "we");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(full, mode), 0);
    assert_int_equal(utimensat(AT_FDCWD, full, times, 0), 0);
    cox_free(full);
}

static enum cox_err pack(const char *dir, struct cox_buf *out, struct cox_buf *error)
{
    char *full = cox_asprintf("%s/%s", root, dir);

    cox_buf_clear(out);
    cox_buf_clear(error);
    enum cox_err err = cli_bundle_pack(full, out, error);

    cox_free(full);
    return err;
}

static void unpack(struct cox_slice gz, struct cox_buf *tar)
{
    z_stream z = { .next_in = (unsigned char *)(uintptr_t)gz.data, .avail_in = (unsigned)gz.len };

    cox_buf_clear(tar);
    cox_buf_reserve(tar, 1 << 20);
    z.next_out = tar->data;
    z.avail_out = 1 << 20;
    assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
    assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
    tar->len = (size_t)z.total_out;
    inflateEnd(&z);
}

/* "NAME type mode size" of each entry. */
static void list(const struct cox_buf *tar, struct cox_buf *out)
{
    cox_buf_clear(out);
    for (size_t at = 0; at + 512 <= tar->len && tar->data[at];) {
        const char *h = (const char *)tar->data + at;
        size_t size = strtoul(h + 124, NULL, 8);
        cox_buf_printf(out, "%.100s %c %.7s %zu\n", h, h[156], h + 100, size);
        assert_string_equal(h + 136, "00000000000"); /* no time */
        at += 512 + (size + 511) / 512 * 512;
    }
}

static void test_a_bundle_is_the_same_bytes(void **state)
{
    struct cox_buf one = { 0 }, two = { 0 }, tar = { 0 }, names = { 0 }, error = { 0 };
    char hash[CLI_HASH_LEN + 1], other[CLI_HASH_LEN + 1];

    (void)state;
    /* The same folder, made in another order, at another time, with other rights of others. */
    put("one", "b.txt", "bee", 0600, 1000);
    put("one", "tools/run", "#!/bin/sh\n", 0700, 2000);
    put("one", "a/z", "zed", 0644, 3000);
    put("one", ".git/config", "x", 0644, 1);
    put("two", "a/z", "zed", 0664, 9);
    put("two", "tools/run", "#!/bin/sh\n", 0755, 8);
    put("two", "b.txt", "bee", 0644, 7);
    put("two", "tools/__pycache__/x.pyc", "junk", 0644, 7);
    assert_int_equal(pack("one", &one, &error), COX_OK);
    assert_int_equal(pack("two", &two, &error), COX_OK);
    assert_true(cox_slice_eq(cox_buf_slice(&one), cox_buf_slice(&two)));
    cli_hash(cox_buf_slice(&one), hash);
    assert_int_equal(strlen(hash), CLI_HASH_LEN);
    unpack(cox_buf_slice(&one), &tar);
    list(&tar, &names);
    assert_string_equal(cox_buf_cstr(&names), "a 5 0000755 0\n"
                                              "a/z 0 0000644 3\n"
                                              "b.txt 0 0000644 3\n"
                                              "tools 5 0000755 0\n"
                                              "tools/run 0 0000755 10\n");
    put("two", "b.txt", "bye", 0644, 7); /* as long as before */
    assert_int_equal(pack("two", &two, &error), COX_OK);
    cli_hash(cox_buf_slice(&two), other);
    assert_string_not_equal(hash, other);
    cox_buf_fini(&one);
    cox_buf_fini(&two);
    cox_buf_fini(&tar);
    cox_buf_fini(&names);
    cox_buf_fini(&error);
}

static void test_a_bundle_keeps_to_itself(void **state)
{
    struct cox_buf out = { 0 }, error = { 0 };
    char *link = cox_asprintf("%s/links/sub/link", root), *missing = cox_asprintf("%s/nowhere", root);
    static const char *const bad[] = { "/etc/passwd", "../../x", "../sub/../../x" };

    (void)state;
    put("links", "sub/file", "x", 0644, 1);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(symlink(bad[i], link), 0);
        assert_int_equal(pack("links", &out, &error), COX_ERR_INVALID);
        assert_non_null(strstr(cox_buf_cstr(&error), "sub/link: the link leads out of the bundle"));
        unlink(link);
    }
    assert_int_equal(symlink("../sub/../sub/file", link), 0); /* inside, and no worker would take it */
    assert_int_equal(pack("links", &out, &error), COX_ERR_INVALID);
    assert_non_null(strstr(cox_buf_cstr(&error), "sub/link: the link goes up after a name"));
    unlink(link);
    assert_int_equal(symlink("../sub/file", link), 0);
    assert_int_equal(pack("links", &out, &error), COX_OK);
    unlink(link);
    assert_int_equal(mkfifo(link, 0600), 0);
    assert_int_equal(pack("links", &out, &error), COX_ERR_INVALID);
    assert_int_equal(cli_bundle_pack(missing, &out, &error), COX_ERR_IO);
    cox_free(link);
    cox_free(missing);
    cox_buf_fini(&out);
    cox_buf_fini(&error);
}

static void test_what_is_left_out(void **state)
{
    static const struct {
        const char *patterns, *path;
        bool is_dir, ignored;
    } cases[] = {
        { "*.o\n", "a.o", false, true },
        { "*.o\n", "src/deep/a.o", false, true },
        { "*.o\n!keep.o\n", "src/keep.o", false, false },
        { "!keep.o\n*.o\n", "keep.o", false, true },
        { "/build\n", "build", true, true },
        { "/build\n", "src/build", true, false },
        { "build/\n", "src/build", true, true },
        { "build/\n", "src/build", false, false },
        { "doc/*.txt\n", "doc/a.txt", false, true },
        { "doc/*.txt\n", "doc/sub/a.txt", false, false },
        { "doc/**/*.txt\n", "doc/sub/deep/a.txt", false, true },
        { "doc/**/*.txt\n", "doc/a.txt", false, true },
        { "**/tmp\n", "a/b/tmp", true, true },
        { "logs/**\n", "logs/a/b", false, true },
        { "logs/**\n", "logs", true, false },
        { "# *.c\n\n  \n", "a.c", false, false },
        { "a[bc]?\r\n", "abx", false, true },
        { "x", "y/x", false, true },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        if (cli_bundle_ignores(cox_slice_str(cases[i].patterns), cases[i].path, cases[i].is_dir) !=
            cases[i].ignored)
            fail_msg("%s under %s: expected %s", cases[i].path, cases[i].patterns,
                     cases[i].ignored ? "left out" : "kept");
    }
}

/* ---- lines ----------------------------------------------------------------------------------------------
 */

static void test_lines_of_inputs(void **state)
{
    static char text[] = "{\"a\":1}\n\n  \r\n{\"b\": [1, 2]}\r\nnot json\n[1]\nlast";
    static const char *const merged[] = { "{\"a\":1,\"z\":0}", "{\"b\":[1, 2],\"a\":7,\"z\":0}", NULL, NULL,
                                          NULL };
    static const size_t numbers[] = { 1, 4, 5, 6, 7 };
    FILE *in = fmemopen(text, strlen(text), "r");
    struct cox_buf line = { 0 }, out = { 0 }, error = { 0 };
    size_t number = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(merged); i++) {
        assert_true(cli_next_line(in, &line, &number));
        assert_int_equal(number, numbers[i]);
        cox_buf_clear(&out);
        cox_buf_clear(&error);
        bool ok = cli_merge_inputs(&out, cox_slice_str("{\"a\":7,\"z\":0}"), cox_buf_slice(&line), &error);
        assert_int_equal(ok, merged[i] != NULL);
        if (ok)
            assert_string_equal(cox_buf_cstr(&out), merged[i]);
        else
            assert_non_null(strstr(cox_buf_cstr(&error), "expected"));
    }
    assert_false(cli_next_line(in, &line, &number));
    assert_int_equal(line.len, 0);
    fclose(in);
    cox_buf_fini(&line);
    cox_buf_fini(&out);
    cox_buf_fini(&error);
}

static void test_a_line_has_a_bound(void **state)
{
    FILE *in = tmpfile();
    struct cox_buf line = { 0 };
    size_t number = 0;

    (void)state;
    for (size_t i = 0; i <= COX_DOCUMENT_LEN_MAX; i++)
        fputc('x', in);
    rewind(in);
    assert_false(cli_next_line(in, &line, &number));
    assert_true(line.len > COX_DOCUMENT_LEN_MAX);
    assert_int_equal(number, 1);
    fclose(in);
    cox_buf_fini(&line);
}

/* ---- trees ----------------------------------------------------------------------------------------------
 */

static void test_children_stand_under_their_parents(void **state)
{
    static const char *const names[] = { "a",    "b",         "child.x", "a[1]",        "child", "b.c.d",
                                         "a[0]", "a[1].deep", "lone.z",  "b.t1.look.0", "b.t1" };
    static const struct {
        const char *name;
        unsigned depth;
        const char *leaf; /* of it, what is behind its parent's name */
    } expected[] = { { "a", 0, "a" },
                     { "a[1]", 1, "[1]" },
                     { "a[1].deep", 2, "deep" },
                     { "a[0]", 1, "[0]" },
                     { "b", 0, "b" },
                     { "b.c.d", 1, "c.d" },
                     { "b.t1", 1, "t1" },
                     { "b.t1.look.0", 2, "look.0" },
                     { "child", 0, "child" },
                     { "child.x", 1, "x" },
                     { "lone.z", 0, "lone.z" } };
    struct cli_branch *order = cli_tree_order(ARRAY_LEN(names), names);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        assert_string_equal(names[order[i].step], expected[i].name);
        assert_int_equal(order[i].depth, expected[i].depth);
        assert_string_equal(names[order[i].step] + order[i].leaf, expected[i].leaf);
    }
    cox_free(order);
    cox_free(cli_tree_order(0, NULL));
}

static void test_the_live_view_fits(void **state)
{
    struct cli_tree *tree = cli_tree_create();
    struct cox_buf out = { 0 };
    char address[32];

    (void)state;
    for (int i = 0; i < 100; i++) {
        Coxswain__V1__Step step = COXSWAIN__V1__STEP__INIT;
        snprintf(address, sizeof(address), "t0-1/step_%d", i);
        step.address = address;
        step.status = i == 77 ? COXSWAIN__V1__STEP_STATUS__STEP_STATUS_RUNNING
                              : COXSWAIN__V1__STEP_STATUS__STEP_STATUS_SUCCEEDED;
        cli_tree_update(tree, &step);
    }
    assert_int_equal(cli_tree_put(tree, &out, 10, 80, false), 2); /* what runs, and how many more */
    assert_non_null(strstr(cox_buf_cstr(&out), "step_77"));
    assert_non_null(strstr(cox_buf_cstr(&out), "and 99 more steps"));
    cox_buf_clear(&out);
    assert_int_equal(cli_tree_put(tree, &out, 100, 80, false), 100);
    cli_tree_destroy(tree);
    cox_buf_fini(&out);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static int remove_root(void **state)
{
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- exit codes -----------------------------------------------------------------------------------------
 */

static void test_exit_codes(void **state)
{
    static const struct {
        enum cox_rpc_status status;
        int code;
    } cases[] = { { COX_RPC_OK, 0 },
                  { COX_RPC_INVALID_ARGUMENT, 2 },
                  { COX_RPC_ALREADY_EXISTS, 2 },
                  { COX_RPC_FAILED_PRECONDITION, 2 },
                  { COX_RPC_UNIMPLEMENTED, 2 },
                  { COX_RPC_NOT_FOUND, 3 },
                  { COX_RPC_PERMISSION_DENIED, 4 },
                  { COX_RPC_UNAUTHENTICATED, 4 },
                  { COX_RPC_UNAVAILABLE, 5 },
                  { COX_RPC_RESOURCE_EXHAUSTED, 5 },
                  { COX_RPC_INTERNAL, 5 } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(cli_exit_of(&(struct cox_rpc_error){ .status = cases[i].status }), cases[i].code);
}

/* Whole, and byte by byte: where a piece ends says nothing. */
static void expect_shown(const char *written, const char *shown)
{
    size_t len = strlen(written);

    for (size_t piece = 1; piece <= len; piece += len - 1 > 0 ? len - 1 : 1) {
        struct terminal_text t = { 0 };
        struct cox_buf out = { 0 };

        for (size_t at = 0; at < len; at += piece)
            terminal_put(&t, cox_slice(written + at, len - at < piece ? len - at : piece), &out);
        terminal_end(&t, &out);
        assert_string_equal(cox_buf_cstr(&out), shown);
        cox_buf_fini(&out);
    }
}

static void test_a_terminal_obeys_no_step(void **state)
{
    (void)state;
    expect_shown("text\tand\r\nlines, \xc3\xa4\xe2\x82\xac \xc2\xa7",
                 "text\tand\r\nlines, \xc3\xa4\xe2\x82\xac \xc2\xa7");
    expect_shown("\x1b[31;1mred\x1b[38:5:1m", "\x1b[31;1mred\x1b[38:5:1m\x1b[0m");
    expect_shown("\x1b]0;title\a.", "?]0;title?.");
    expect_shown("\x1b]52;c;cm0=\x1b\\.", "?]52;c;cm0=?\\.");
    expect_shown("\x1b[2J\x1b[6n\x1b[?25l", "?[2J?[6n?[?25l");
    expect_shown("\x1b\x1b[1mx", "?\x1b[1mx\x1b[0m");
    expect_shown("\xc2\x9b"
                 "2Jx\xc2\xc2\x9b",
                 "?2Jx\xc2?");
    expect_shown("\b\x7f\x05", "???");
    expect_shown("\x1b[1111111111111111111111111111111111111m", "?[1111111111111111111111111111111111111m");
    expect_shown("cut \x1b[3", "cut ?[3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_bundle_is_the_same_bytes),
        cmocka_unit_test(test_a_bundle_keeps_to_itself),
        cmocka_unit_test(test_what_is_left_out),
        cmocka_unit_test(test_lines_of_inputs),
        cmocka_unit_test(test_a_line_has_a_bound),
        cmocka_unit_test(test_children_stand_under_their_parents),
        cmocka_unit_test(test_the_live_view_fits),
        cmocka_unit_test(test_exit_codes),
        cmocka_unit_test(test_a_terminal_obeys_no_step),
    };

    if (!mkdtemp(root))
        return 1;
    return cmocka_run_group_tests(tests, NULL, remove_root);
}
