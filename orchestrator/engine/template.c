#include "template.h"

const struct template *template_by_revision(const struct cox_engine *e, uint64_t revision)
{
    return revision != 0 ? cox_map64_get(&e->templates, revision) : NULL;
}

struct cox_slice template_document(const struct template *tpl)
{
    (void)tpl;
    return cox_slice(NULL, 0);
}
