/* Answers that may be given again: to the same request, of the same tenant, within the time that the caller
 * allows. Only whole answers with status 200 are kept; those used least recently go first. */
#include "router_internal.h"

#include "cox/base/alloc.h"
#include "cox/base/plant.h"

#include <openssl/evp.h>
#include <string.h>

void stored_init(struct stored *k, size_t len_max)
{
    *k = (struct stored){ .len_max = len_max };
    cox_list_init(&k->used);
}

static size_t len_of(const struct stored_answer *a)
{
    return sizeof(*a) + a->bytes.len + strlen(a->type) + strlen(a->model) + strlen(a->endpoint) + 64;
}

static void forget(struct stored *k, struct stored_answer *a)
{
    (void)cox_mapb_remove(&k->by_key, cox_slice(a->key, sizeof(a->key)));
    cox_list_remove(&a->used);
    k->len -= len_of(a);
    cox_free(a->type);
    cox_free(a->model);
    cox_free(a->endpoint);
    cox_buf_fini(&a->bytes);
    cox_free(a);
}

void stored_fini(struct stored *k)
{
    COX_LIST_FOR_EACH (it, &k->used) {
        forget(k, COX_CONTAINER_OF(it, struct stored_answer, used));
    }
    cox_mapb_fini(&k->by_key);
}

static void add(EVP_MD_CTX *md, struct cox_slice piece)
{
    uint64_t len = piece.len; /* before it: no two lists of pieces are one text */

    COX_ASSERT(EVP_DigestUpdate(md, &len, sizeof(len)) == 1 &&
               EVP_DigestUpdate(md, piece.data, piece.len) == 1);
}

/* The body counts byte by byte: whoever wants to be answered from here sends the same one. */
void stored_key(const struct router_request *request, struct cox_slice model, struct cox_slice body,
                uint8_t ret[32])
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    const uint8_t api = (uint8_t)request->api;

    COX_ASSERT(md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1);
    if (!COX_PLANTED("answers-of-all"))
        add(md, request->who.tenant);
    add(md, model);
    add(md, cox_slice(&api, 1));
    add(md, body);
    COX_ASSERT(EVP_DigestFinal_ex(md, ret, NULL) == 1);
    EVP_MD_CTX_free(md);
}

const struct stored_answer *stored_find(struct stored *k, const uint8_t key[32], int64_t younger_than_ns)
{
    struct stored_answer *a = cox_mapb_get(&k->by_key, cox_slice(key, 32));

    if (!a || a->made_ns < younger_than_ns)
        return NULL;
    cox_list_remove(&a->used);
    cox_list_push_back(&k->used, &a->used);
    return a;
}

void stored_put(struct stored *k, const uint8_t key[32], int64_t now_ns, const struct router_head *head,
                struct cox_slice bytes)
{
    struct stored_answer *old = cox_mapb_get(&k->by_key, cox_slice(key, 32));

    if (old)
        forget(k, old);
    if (bytes.len > STORED_LEN_MAX || bytes.len > k->len_max / 4)
        return;
    struct stored_answer *a = COX_NEW(struct stored_answer);

    memcpy(a->key, key, sizeof(a->key));
    a->made_ns = now_ns;
    a->is_stream = head->is_stream;
    a->type = cox_strndup((const char *)head->content_type.data, head->content_type.len);
    a->model = cox_strdup(head->model);
    a->endpoint = cox_strdup(head->endpoint);
    cox_buf_append_slice(&a->bytes, bytes);
    (void)cox_mapb_set(&k->by_key, cox_slice(key, 32), a);
    cox_list_push_back(&k->used, &a->used);
    k->len += len_of(a);
    while (k->len > k->len_max)
        forget(k, COX_CONTAINER_OF(k->used.next, struct stored_answer, used));
}
