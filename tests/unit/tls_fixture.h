/* Two CAs and what they have signed, in a folder of its own: what the tests of TLS start from. */
#ifndef COX_TESTS_UNIT_TLS_FIXTURE_H
#define COX_TESTS_UNIT_TLS_FIXTURE_H

#include "check.h"
#include "cox/base/alloc.h"
#include "cox/tls.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char tls_dir[64];

/* "DIR/NAME"; the memory is the fixture's, for so many paths. */
static inline const char *tls_path(const char *name)
{
    static char paths[64][128];
    static unsigned next;
    char *path = paths[next++ % ARRAY_LEN(paths)];

    snprintf(path, sizeof(paths[0]), "%s/%s", tls_dir, name);
    return path;
}

static inline void tls_make(const char *ca, const char *file, struct cox_tls_request request)
{
    char cert[64], key[64], ca_cert[64], ca_key[64];
    struct cox_buf error = { 0 };

    snprintf(cert, sizeof(cert), "%s.crt", file);
    snprintf(key, sizeof(key), "%s.key", file);
    snprintf(ca_cert, sizeof(ca_cert), "%s.crt", ca);
    snprintf(ca_key, sizeof(ca_key), "%s.key", ca);
    if (request.days == 0)
        request.days = 2;
    if (cox_tls_make(tls_path(ca_cert), tls_path(ca_key), &request, tls_path(cert), tls_path(key), &error))
        fail_msg("%s: %s", file, cox_buf_cstr(&error));
    cox_buf_fini(&error);
}

static inline struct cox_tls_files tls_files(const char *file, const char *ca)
{
    char cert[64], key[64], ca_cert[64];

    snprintf(cert, sizeof(cert), "%s.crt", file ? file : "");
    snprintf(key, sizeof(key), "%s.key", file ? file : "");
    snprintf(ca_cert, sizeof(ca_cert), "%s.crt", ca ? ca : "");
    return (struct cox_tls_files){ .cert = file ? tls_path(cert) : NULL,
                                   .key = file ? tls_path(key) : NULL,
                                   .ca = ca ? tls_path(ca_cert) : NULL };
}

static inline void tls_fixture_init(void)
{
    static const char *const hosts[] = { "localhost", "127.0.0.1" };
    struct cox_buf error = { 0 };

    snprintf(tls_dir, sizeof(tls_dir), "/tmp/cox-tls-XXXXXX");
    assert_non_null(mkdtemp(tls_dir));
    assert_int_equal(cox_tls_make_ca(tls_path("ca.crt"), tls_path("ca.key"), "one", 9, &error), COX_OK);
    assert_int_equal(cox_tls_make_ca(tls_path("other.crt"), tls_path("other.key"), "two", 9, &error), COX_OK);
    tls_make("ca", "server",
             (struct cox_tls_request){
                 .role = COX_TLS_ROLE_SERVER, .name = "coxd", .hosts = hosts, .n_hosts = ARRAY_LEN(hosts) });
    tls_make(
        "ca", "alice",
        (struct cox_tls_request){
            .role = COX_TLS_ROLE_CLIENT, .name = "alice", .organization = "cox:submitter", .unit = "blue" });
    tls_make(
        "ca", "bob",
        (struct cox_tls_request){ .role = COX_TLS_ROLE_CLIENT, .name = "bob", .organization = "cox:worker" });
    tls_make("other", "mallory",
             (struct cox_tls_request){
                 .role = COX_TLS_ROLE_CLIENT, .name = "alice", .organization = "cox:admin" });
}

static inline void tls_fixture_fini(void)
{
    DIR *dir = opendir(tls_dir);

    assert_non_null(dir);
    for (const struct dirent *it = readdir(dir); it; it = readdir(dir))
        (void)unlinkat(dirfd(dir), it->d_name, 0); /* "." and ".." stay */
    closedir(dir);
    assert_int_equal(rmdir(tls_dir), 0);
}

#endif
