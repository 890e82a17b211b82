/* The configuration of models: what is taken, and what is refused with which words. */
#include "catalogue_text.h"
#include "endpoint_url.h"

#include "check.h"

#include "cox/base/alloc.h"
#include "cox/base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct cox_buf said;

static struct catalogue_text *parse(const char *flag, const char *json)
{
    struct catalogue_text *t = NULL;

    cox_buf_clear(&said);
    if (catalogue_parse(&flag, flag ? 1 : 0, cox_slice_str(json), &t, &said))
        assert_null(t);
    else
        assert_int_equal(said.len, 0);
    return t;
}

static void refused(const char *flag, const char *json, const char *words)
{
    if (parse(flag, json))
        fail_msg("%s%s was taken", flag ? flag : "", json ? json : "");
    if (!strstr(cox_buf_cstr(&said), words))
        fail_msg("%s: \"%s\" is not said", cox_buf_cstr(&said), words);
}

static void flags_are_split_where_a_name_begins(void **state)
{
    struct catalogue_text *t =
        parse("a=http://h:1,http://h:2/v1/,b/c:1=https://x.example,a=http://H:3/v1", NULL);

    (void)state;
    assert_non_null(t);
    assert_int_equal(t->n_models, 2);
    assert_string_equal(t->models[0].name, "a");
    assert_int_equal(t->models[0].n_endpoints, 3);
    assert_string_equal(t->models[0].endpoints[0].url, "http://h:1/v1");
    assert_string_equal(t->models[0].endpoints[1].url, "http://h:2/v1");
    assert_string_equal(t->models[0].endpoints[2].url, "http://h:3/v1");
    assert_string_equal(t->models[1].name, "b/c:1");
    assert_string_equal(t->models[1].endpoints[0].url, "https://x.example/v1");
    assert_int_equal(t->models[1].price.per_tokens, 0);
    catalogue_text_free(t);
}

static void a_file_says_everything(void **state)
{
    struct catalogue_text *t = parse(
        NULL, "[{\"name\":\"big\",\"aliases\":[\"default\",\"gpt\"],\"context_tokens\":131072,"
              "\"price\":{\"input\":0.15,\"output\":\"0.6\",\"cached_input\":75e-3,\"currency\":\"EUR\"},"
              "\"endpoints\":[{\"url\":\"http://a:8000\",\"upstream_model\":\"Llama\",\"max_in_flight\":64},"
              "{\"url\":\"http://a:8000\"},\"http://b/openai/\"],\"fallbacks\":[\"small\"]},"
              "{\"name\":\"small\",\"price\":{\"input\":1},\"discovery\":{\"dns\":\"m.example:80\","
              "\"max_in_flight\":3},\"aliases\":null},"
              "{\"name\":\"srv\",\"discovery\":{\"dns\":\"_http._tcp.m.example\"}},"
              "{\"name\":\"of-file\",\"discovery\":{\"file\":\"/tmp/x\"}}]");

    (void)state;
    assert_non_null(t);
    const struct model_text *big = &t->models[0], *small = &t->models[1];

    assert_int_equal(big->n_aliases, 2);
    assert_string_equal(big->aliases[1], "gpt");
    assert_int_equal(big->price.input_micros, 150000);
    assert_int_equal(big->price.output_micros, 600000);
    assert_int_equal(big->price.cached_input_micros, 75000);
    assert_int_equal(big->price.per_tokens, 1000000);
    assert_string_equal(big->price.currency, "EUR");
    assert_int_equal(big->context_tokens, 131072);
    assert_int_equal(big->n_endpoints, 3);
    assert_string_equal(big->endpoints[0].upstream_model, "Llama");
    assert_int_equal(big->endpoints[0].max_in_flight, 64);
    assert_null(big->endpoints[1].upstream_model);
    assert_string_equal(big->endpoints[2].url, "http://b/openai");
    assert_string_equal(big->fallbacks[0], "small");
    assert_int_equal(small->price.cached_input_micros, 1000000); /* as any input */
    assert_string_equal(small->price.currency, "USD");
    assert_int_equal(small->discovery, DISCOVERY_DNS);
    assert_string_equal(small->source, "m.example:80");
    assert_int_equal(small->found.max_in_flight, 3);
    assert_int_equal(t->models[2].discovery, DISCOVERY_DNS);
    assert_int_equal(t->models[3].discovery, DISCOVERY_FILE);
    catalogue_text_free(t);
}

static void what_is_wrong_is_named(void **state)
{
#define ONE(member) "[{\"name\":\"a\",\"endpoints\":[\"http://h\"]," member "}]"
    static const struct {
        const char *flag, *json, *words;
    } rows[] = {
        { "a", NULL, "--model: a; expected NAME=URL[,URL...]" },
        { "http://h", NULL, "--model: http://h; expected NAME=URL" },
        { "a=ftp://h", NULL, "--model: ftp://h; expected a URL" },
        { "a=http://h,", NULL, "--model: ; expected NAME=URL" },
        { "a=http://h:1,http://h:1/v1", NULL, "http://h:1/v1 is there already" },
        { "a b=http://h", NULL, "expected NAME=URL" },
        { NULL, "{}", "models: an object; expected a list" },
        { NULL, "[3]", "models[0]: 3; expected names and values" },
        { NULL, "[{}]", "models[0]: no name" },
        { NULL, "[{\"name\":\"a\"}]", "models[0]: no endpoints; expected endpoints" },
        { NULL, "[{\"name\":\"a\",\"endpoints\":[]}]", "models[0]: no endpoints" },
        { NULL, "[{\"name\":\"-a\",\"endpoints\":[\"http://h\"]}]",
          "models[0].name: \"-a\"; expected a name" },
        { NULL, "[{\"name\":\"a\",\"endpoint\":[\"http://h\"]}]",
          "models[0].endpoint: unknown key; did you mean endpoints?" },
        { NULL, ONE("\"x\":1"), "models[0].x: unknown key; expected name, aliases, price" },
        { NULL, "[{\"name\":\"a\",\"endpoints\":[{\"url\":\"http://h\"},{\"url\":7}]}]",
          "models[0].endpoints[1].url: 7; expected a URL" },
        { NULL, "[{\"name\":\"a\",\"endpoints\":[{\"max_in_flight\":1}]}]",
          "models[0].endpoints[0]: no url" },
        { NULL, "[{\"name\":\"a\",\"endpoints\":[{\"url\":\"http://h\",\"max_in_flight\":0}]}]",
          "max_in_flight: 0; expected a whole number from 1" },
        { NULL, "[{\"name\":\"a\",\"endpoints\":[\"http://h\",\"http://h:80/v1/\"]}]",
          "models[0].endpoints[1]: http://h/v1 is there already" },
        { NULL, "[{\"name\":\"a\",\"endpoints\":[{\"url\":\"http://h\",\"api_key_file\":\"/no/such\"}]}]",
          "models[0].endpoints[0].api_key_file: /no/such: No such file" },
        { NULL, "[{\"name\":\"a\",\"endpoints\":[{\"url\":\"http://h\",\"ca_file\":\"/no/such\"}]}]",
          "ca_file: /no/such: No such file" },
        { NULL, ONE("\"price\":{\"input\":0.0000001}"),
          "models[0].price.input: 0.0000001; expected an amount" },
        { NULL, ONE("\"price\":{\"input\":-1}"), "price.input: -1; expected an amount" },
        { NULL, ONE("\"price\":{\"output\":\"1.2.3\"}"), "expected an amount" },
        { NULL, ONE("\"price\":{\"output\":1e30}"), "expected an amount" },
        { NULL, ONE("\"price\":{\"currency\":\"usd\"}"), "expected a currency such as USD" },
        { NULL, ONE("\"price\":{\"per_token\":1}"), "did you mean per_tokens?" },
        { NULL, ONE("\"context_tokens\":1.5"), "models[0].context_tokens: 1.5; expected a whole number" },
        { NULL, ONE("\"discovery\":{\"file\":\"a\",\"dns\":\"b:1\"}"), "expected file or dns, not both" },
        { NULL, ONE("\"discovery\":{}"), "models[0].discovery: expected file or dns" },
        { NULL, ONE("\"discovery\":{\"dns\":\"host\"}"), "expected HOST:PORT, or the name of an SRV record" },
        { NULL, ONE("\"discovery\":{\"dns\":\"_http._tcp.x:1\"}"), "expected HOST:PORT, or the name" },
        { NULL, ONE("\"aliases\":[\"a\"]"), "a is the name or an alias of a model already" },
        { NULL, ONE("\"aliases\":[\"b\",\"b\"]"), "models[0].aliases[1]: \"b\" is there already" },
        { NULL, ONE("\"fallbacks\":[\"a\"]"), "models[0].fallbacks[0]: a is the model itself" },
        { NULL, ONE("\"fallbacks\":[\"other\"]"), "models[0].fallbacks[0]: other is no model" },
        { "a=http://h", ONE("\"aliases\":[]"), "models[0]: a is the name or an alias of a model already" },
        { "bigger=http://h", ONE("\"fallbacks\":[\"biger\"]"), "biger is no model; did you mean bigger?" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        refused(rows[i].flag, rows[i].json, rows[i].words);
}

static void urls_have_one_spelling(void **state)
{
    static const struct {
        const char *text, *url, *name, *root; /* url NULL: refused */
    } rows[] = {
        { "http://10.0.0.7:8000", "http://10.0.0.7:8000/v1", "10.0.0.7:8000", "http://10.0.0.7:8000" },
        { "HTTP://Host.Example/", "http://host.example/v1", "host.example:80", "http://host.example" },
        { "https://h:443/v1//", "https://h/v1", "h:443", "https://h" },
        { "http://[::1]:8000/v1", "http://[::1]:8000/v1", "[::1]:8000", "http://[::1]:8000" },
        { "https://h/v1beta/openai/", "https://h/v1beta/openai", "h:443/v1beta/openai",
          "https://h/v1beta/openai" },
        { "https://h/api/v1", "https://h/api/v1", "h:443/api/v1", "https://h/api" },
        { "http://", NULL, NULL, NULL },
        { "http://h:", NULL, NULL, NULL },
        { "http://h:0", NULL, NULL, NULL },
        { "http://h:65536", NULL, NULL, NULL },
        { "http://u:p@h", NULL, NULL, NULL },
        { "http://h/?key=1", NULL, NULL, NULL },
        { "http://h/#x", NULL, NULL, NULL },
        { "http://h x", NULL, NULL, NULL },
        { "http://[::1", NULL, NULL, NULL },
        { "http://[]", NULL, NULL, NULL },
        { "h:80", NULL, NULL, NULL },
        { "unix:///x", NULL, NULL, NULL },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct cox_buf url = { 0 }, name = { 0 }, root = { 0 };

        assert_int_equal(endpoint_url_read(cox_slice_str(rows[i].text), &url), rows[i].url != NULL);
        if (rows[i].url) {
            assert_string_equal(cox_buf_cstr(&url), rows[i].url);
            endpoint_url_put_name(&name, rows[i].url);
            assert_string_equal(cox_buf_cstr(&name), rows[i].name);
            endpoint_url_put_root(&root, rows[i].url);
            assert_string_equal(cox_buf_cstr(&root), rows[i].root);
        }
        cox_buf_fini(&url);
        cox_buf_fini(&name);
        cox_buf_fini(&root);
    }
}

/* ---- money ---- */

static void amounts_are_exact(void **state)
{
    const char *env = getenv("COX_TEST_SEED");
    uint64_t seed = env ? strtoull(env, NULL, 10) : (uint64_t)getpid() * 7919;
    struct cox_rng rng;

    (void)state;
    cox_rng_init(&rng, seed);
    for (int i = 0; i < 2000; i++) {
        uint64_t micros = cox_rng_u64(&rng) >> (14 + cox_rng_below(&rng, 50));
        char *json =
            cox_asprintf("[{\"name\":\"a\",\"endpoints\":[\"http://h\"],\"price\":{\"input\":%llu.%06llu}}]",
                         (unsigned long long)(micros / 1000000), (unsigned long long)(micros % 1000000));
        struct catalogue_text *t = parse(NULL, json);

        if (micros > 1000000000000000u) { /* a billion is too dear */
            check_seeded(t == NULL, seed);
        } else {
            check_seeded(t != NULL, seed);
            check_seeded(t->models[0].price.input_micros == micros, seed);
        }
        catalogue_text_free(t);
        cox_free(json);
    }
}

static void a_call_costs_what_the_price_says(void **state)
{
    const struct model_price price = { 150000, 600000, 75000, 1000000, "USD" };
    const struct model_price dear = { UINT64_MAX, UINT64_MAX, 0, 1, "USD" }, free_of_charge = { 0 };

    (void)state;
    assert_int_equal(model_cost_micros(&price, 1000000, 0, 1000000), 750000);
    assert_int_equal(model_cost_micros(&price, 1000000, 400000, 0), 90000 + 30000);
    assert_int_equal(model_cost_micros(&price, 1, 0, 0), 1); /* 0.15 of a millionth, rounded up */
    assert_int_equal(model_cost_micros(&price, 0, 0, 0), 0);
    assert_int_equal(model_cost_micros(&price, 10, 20, 0), 1); /* no more is cached than came */
    assert_true(model_cost_micros(&dear, 2, 0, 2) == UINT64_MAX);
    assert_int_equal(model_cost_micros(&free_of_charge, 1000, 0, 1000), 0);
}

/* ---- keys ---- */

static struct catalogue_text *parse_with_key(const char *key, mode_t mode)
{
    char path[] = "/tmp/cox-key-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0 && write(fd, key, strlen(key)) == (ssize_t)strlen(key) && fchmod(fd, mode) == 0);
    close(fd);
    char *json = cox_asprintf(
        "[{\"name\":\"a\",\"endpoints\":[{\"url\":\"http://h\",\"api_key_file\":\"%s\"}]}]", path);
    struct catalogue_text *t = parse(NULL, json);

    cox_free(json);
    unlink(path);
    return t;
}

static void a_key_comes_from_a_file_that_others_cannot_change(void **state)
{
    struct catalogue_text *t = parse_with_key("\n sk-123 \n", 0600);

    (void)state;
    assert_non_null(t);
    assert_string_equal(t->models[0].endpoints[0].bearer, "sk-123");
    catalogue_text_free(t);
    assert_null(parse_with_key("sk-123", 0660));
    assert_non_null(strstr(cox_buf_cstr(&said), "chmod go-w"));
    assert_null(parse_with_key("sk-1 sk-2", 0600));
    assert_non_null(strstr(cox_buf_cstr(&said), "one key and nothing else"));
    assert_null(strstr(cox_buf_cstr(&said), "sk-1"));
    assert_null(parse_with_key("\n", 0600));
    assert_non_null(strstr(cox_buf_cstr(&said), "empty"));
}

/* ---- files that are watched ---- */

static void check_list(const char *text, size_t n, const char *words)
{
    struct endpoint_text *found = NULL;
    size_t n_found = 0;

    cox_buf_clear(&said);
    if (endpoints_parse(cox_slice_str(text), &found, &n_found, &said)) {
        if (!words || !strstr(cox_buf_cstr(&said), words))
            fail_msg("%s: %s", text, cox_buf_cstr(&said));
        return;
    }
    assert_null(words);
    assert_int_equal(n_found, n);
    endpoints_free(found, n_found);
}

static void a_list_is_json_or_lines(void **state)
{
    (void)state;
    check_list("http://a:1\n\n  # b is being repaired\r\n http://b:2 \r\n", 2, NULL);
    check_list("# none\n", 0, NULL);
    check_list("[]", 0, NULL);
    check_list(" [\"http://a\", {\"url\": \"http://b\", \"upstream_model\": \"m\", \"max_in_flight\": 2}] ",
               2, NULL);
    check_list("", 0, "empty; expected URLs, or [] for none");
    check_list("http://a\nb:2\n", 0, "line 2: b:2; expected a URL");
    check_list("http://a\nhttp://a/\n", 0, "line 2: http://a/v1 is there already");
    check_list("[\"http://a\",]", 0, "column 13 of line 1 of the JSON: expected");
    check_list("[\"http://a\",{\"url\":\"x\"}]", 0, "[1].url: \"x\"; expected a URL");
    check_list("[{\"url\":\"http://a\",\"api_key_file\":\"/etc/shadow\"}]", 0,
               "[0].api_key_file: unknown key");
}

static int free_said(void **state)
{
    (void)state;
    cox_buf_fini(&said);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_are_split_where_a_name_begins),
        cmocka_unit_test(a_file_says_everything),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(urls_have_one_spelling),
        cmocka_unit_test(amounts_are_exact),
        cmocka_unit_test(a_call_costs_what_the_price_says),
        cmocka_unit_test(a_key_comes_from_a_file_that_others_cannot_change),
        cmocka_unit_test(a_list_is_json_or_lines),
    };

    return cmocka_run_group_tests(tests, NULL, free_said);
}
