/* Bytes of entities: what those who write them share. */
#ifndef ENGINE_ENTITY_H
#define ENGINE_ENTITY_H

#include "state.h"

#define ENTITY_VERSION 2 /* version 1 ended where the fields of expansion begin */

uint8_t entity_get_version(struct cox_reader *r); /* sets r->bad */
void entity_put_text(struct cox_buf *b, const char *s);
char *entity_get_text(struct cox_reader *r); /* NULL: there was none */
void entity_put_value(struct cox_buf *b, const struct value *v);
struct value *entity_get_value(struct cox_reader *r);

#endif
