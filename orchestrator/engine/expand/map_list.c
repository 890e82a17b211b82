/* A map's list: kept as the text it is. Where items stand is looked up a page at a time, when the first item
 * of a page is given, so that neither the look-up nor its memory is ever the whole list's. */
#include "map.h"

#include <string.h>

bool map_list_count(struct cox_slice json, uint64_t *ret_n)
{
    *ret_n = 0;
    if (cox_json_kind(json) == COX_JSON_NULL)
        return true;
    if (cox_json_kind(json) != COX_JSON_ARRAY)
        return false;
    struct cox_json_walk w = cox_json_walk(json);
    while (cox_json_next(&w))
        ++*ret_n;
    return true;
}

void map_list_take(struct cox_engine *e, struct map *m, struct cox_slice json, bool stays)
{
    map_list_free(e, m);
    m->list = json;
    if (!stays) {
        cox_buf_append_slice(&m->text, json);
        m->list = cox_buf_slice(&m->text);
        e->map_len_held += m->text.len;
    }
    m->walks = cox_calloc(m->n_pages + 1u, sizeof m->walks[0]);
    m->walks[0] = cox_json_walk(m->list);
    m->n_walks = 1;
}

void map_list_free(struct cox_engine *e, struct map *m)
{
    if (e != NULL)
        e->map_len_held -= m->text.len;
    cox_buf_fini(&m->text);
    cox_free(m->walks);
    m->walks = NULL;
    m->list = cox_slice(NULL, 0);
}

/* Goes over the items of a page; gives their places when they are wanted. */
static void walk_page(struct map *m, uint32_t no, struct map_place *places)
{
    struct cox_json_walk w = m->walks[no];
    uint32_t left = m->n_items - no * COX_MAP_PAGE_ITEMS;
    uint32_t n = left < COX_MAP_PAGE_ITEMS ? left : COX_MAP_PAGE_ITEMS;
    for (uint32_t i = 0; i < n; i++) {
        if (!cox_json_next(&w))
            w.value = cox_slice(m->list.data, 0); /* shorter than was recorded: read as null */
        if (places != NULL)
            places[i] = (struct map_place){ (uint32_t)(w.value.data - m->list.data), (uint32_t)w.value.len };
    }
    if (no + 1 == m->n_walks)
        m->walks[m->n_walks++] = w;
}

struct cox_slice map_item_json(struct map *m, uint32_t item)
{
    struct map_page *p = map_page_make(m, item);
    uint32_t no = item / COX_MAP_PAGE_ITEMS;
    if (p->places == NULL) {
        for (uint32_t k = m->n_walks - 1; k < no; k++)
            walk_page(m, k, NULL);
        p->places = cox_calloc(p->n_items, sizeof p->places[0]);
        walk_page(m, no, p->places);
    }
    struct map_place at = p->places[item - p->first];
    return cox_slice(m->list.data + at.at, at.len);
}
