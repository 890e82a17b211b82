#include "programs.h"

#include "cox/base/alloc.h"
#include "cox/base/map.h"
#include "cox/json.h"

#include <pthread.h>
#include <string.h>

struct program {
    char *name;
    char *description;
    char *schema; /* "": anything */
};

struct cox_programs {
    pthread_mutex_t mutex;
    struct cox_mapb by_name;
    size_t len;
};

static size_t len_of(const struct program *p)
{
    return strlen(p->name) + strlen(p->description) + strlen(p->schema);
}

static void texts_free(struct program *p)
{
    cox_free(p->description);
    cox_free(p->schema);
}

struct cox_programs *cox_programs_create(void)
{
    struct cox_programs *p = COX_NEW(struct cox_programs);

    pthread_mutex_init(&p->mutex, NULL);
    return p;
}

void cox_programs_destroy(struct cox_programs *p)
{
    size_t it = 0;
    struct cox_slice key;
    void *at;

    if (!p)
        return;
    while (cox_mapb_next(&p->by_name, &it, &key, &at)) {
        struct program *program = at;

        texts_free(program);
        cox_free(program->name);
        cox_free(program);
    }
    cox_mapb_fini(&p->by_name);
    pthread_mutex_destroy(&p->mutex);
    cox_free(p);
}

static bool is_schema(struct cox_slice schema)
{
    return schema.len > 0 && memchr(schema.data, 0, schema.len) == NULL &&
           cox_json_check(schema, NULL) == COX_OK && cox_json_kind(schema) == COX_JSON_OBJECT;
}

static struct program *made(struct cox_programs *p, struct cox_slice name)
{
    struct program *program = cox_mapb_get(&p->by_name, name);

    if (program || p->by_name.len >= COX_PROGRAMS_MAX)
        return program;
    program = COX_NEW(struct program);
    program->name = cox_strndup((const char *)name.data, name.len);
    program->description = cox_strdup("");
    program->schema = cox_strdup("");
    p->len += len_of(program);
    cox_mapb_set(&p->by_name, cox_slice(program->name, name.len), program);
    return program;
}

void cox_programs_put(struct cox_programs *p, struct cox_slice name_at_major, struct cox_slice description,
                      struct cox_slice input_schema)
{
    struct program *program;

    if (!is_schema(input_schema))
        input_schema = cox_slice(NULL, 0);
    pthread_mutex_lock(&p->mutex);
    program = made(p, name_at_major);
    if (program && p->len + description.len + input_schema.len <= COX_PROGRAMS_LEN_MAX) {
        p->len -= len_of(program);
        texts_free(program);
        program->description = cox_strndup((const char *)description.data, description.len);
        program->schema = cox_strndup((const char *)input_schema.data, input_schema.len);
        p->len += len_of(program);
    }
    pthread_mutex_unlock(&p->mutex);
}

bool cox_programs_find(struct cox_programs *p, struct cox_slice name_at_major, struct cox_buf *description,
                       struct cox_buf *input_schema)
{
    const struct program *program;

    pthread_mutex_lock(&p->mutex);
    program = cox_mapb_get(&p->by_name, name_at_major);
    if (program) {
        cox_buf_append_str(description, program->description);
        cox_buf_append_str(input_schema, program->schema);
    }
    pthread_mutex_unlock(&p->mutex);
    return program != NULL;
}
