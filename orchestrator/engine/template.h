/* Templates: documents kept for `task` steps. */
#ifndef ENGINE_TEMPLATE_H
#define ENGINE_TEMPLATE_H

#include "state.h"

struct template;
const struct template *template_by_revision(const struct cox_engine *e, uint64_t revision); /* NULL: gone */
struct cox_slice template_document(const struct template *tpl);

#endif
