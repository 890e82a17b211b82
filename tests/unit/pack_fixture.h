/* Archives for tests, well-meant and hostile. */
#ifndef COX_TEST_PACK_FIXTURE_H
#define COX_TEST_PACK_FIXTURE_H

#include "check.h"

#include "cox/base/buf.h"

#include <archive.h>
#include <archive_entry.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

struct packed {
    const char *path, *text; /* text NULL: a folder */
    const char *link;        /* or where it leads */
    const char *hard_link;
    unsigned type; /* of something else */
};

static inline unsigned packed_type(const struct packed *p)
{
    if (p->type)
        return p->type;
    if (p->link)
        return AE_IFLNK;
    return p->text || p->hard_link ? AE_IFREG : AE_IFDIR;
}

/* A tar.gz of these entries, valid until the next one. */
static inline struct cox_slice pack(const struct packed *entries, size_t n)
{
    static uint8_t bytes[1 << 20];
    struct archive *a = archive_write_new();
    size_t len = 0;

    archive_write_set_format_pax_restricted(a);
    archive_write_add_filter_gzip(a);
    assert_int_equal(archive_write_open_memory(a, bytes, sizeof(bytes), &len), ARCHIVE_OK);
    for (size_t i = 0; i < n; i++) {
        struct archive_entry *e = archive_entry_new();
        const struct packed *p = &entries[i];

        archive_entry_set_pathname(e, p->path);
        archive_entry_set_perm(e, 0755);
        archive_entry_set_filetype(e, packed_type(p));
        if (p->link)
            archive_entry_set_symlink(e, p->link);
        if (p->hard_link)
            archive_entry_set_hardlink(e, p->hard_link);
        if (p->text)
            archive_entry_set_size(e, (int64_t)strlen(p->text));
        assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
        if (p->text)
            assert_int_equal(archive_write_data(a, p->text, strlen(p->text)), (ssize_t)strlen(p->text));
        archive_entry_free(e);
    }
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
    return cox_slice(bytes, len);
}

/* "sha256:..." of these bytes, valid until the next one. */
static inline const char *pack_name(struct cox_slice bytes)
{
    static char name[72];
    uint8_t hash[32];

    EVP_Digest(bytes.data, bytes.len, hash, NULL, EVP_sha256(), NULL);
    memcpy(name, "sha256:", 8);
    for (size_t i = 0; i < sizeof(hash); i++)
        snprintf(name + 7 + 2 * i, 3, "%02x", hash[i]);
    return name;
}

#endif
