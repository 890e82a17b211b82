/* Building an image (image_layout.h has the layout).
 *
 * Strings go to the pool at once and keep their final offset; records refer to them by it. Equal constant
 * templates, retry policies and placement classes are stored once: a task of 10,000 like steps is small.
 */
#ifndef COX_TASK_IMAGE_WRITE_H
#define COX_TASK_IMAGE_WRITE_H

#include "cox/base/map.h"
#include "cox/image.h"

/* Bytes in the pool, by offset from the image's start. */
struct image_str {
    uint32_t at;
    uint32_t len;
};

struct image_writer {
    struct cox_buf pool; /* begins with room for the header */
    struct cox_buf steps, calls, policies, classes, pairs, templates, refs, code;
    struct cox_buf details, mores, maps, extras, inputs, task_refs;
    uint32_t n_steps, n_calls, n_policies, n_classes, n_labels, n_pairs, n_templates, n_refs, n_code;
    uint32_t n_details, n_mores, n_maps, n_extras, n_inputs, n_task_refs;
    struct cox_mapb consts; /* JSON text -> template + 1 */
    struct cox_mapb policy_by_bytes, class_by_key, detail_by_bytes, extras_by_bytes, task_ref_by_name;
    struct cox_buf scratch;
};

void image_writer_init(struct image_writer *w);
void image_writer_fini(struct image_writer *w);

struct image_str image_put_str(struct image_writer *w, struct cox_slice s);
struct cox_slice image_str(const struct image_writer *w, struct image_str s);

/* Labels come before all classes. */
void image_put_label(struct image_writer *w, struct cox_slice name, struct cox_slice value);

/* A template without expressions; returns its index. */
uint32_t image_put_const(struct image_writer *w, struct cox_slice json);

struct image_program {
    struct cox_slice code; /* whole instructions */
    const uint32_t *refs;  /* refs[n_refs]: distinct steps */
    uint32_t n_refs;
    bool reads_inputs;
    bool reads_error;
    bool reads_item;
};
uint32_t image_put_program(struct image_writer *w, const struct image_program *p);

struct image_require {
    struct cox_slice label;
    struct cox_slice value;
    bool negated;
};
/* `requires` is sorted and holds nothing twice. */
uint32_t image_put_class(struct image_writer *w, struct cox_slice handler, const struct cox_resources *res,
                         const struct image_require *requires, uint32_t n_requires);

/* Each as readers see it, and returns its index. */
uint32_t image_put_call(struct image_writer *w, const struct cox_image_call *call);
uint32_t image_put_map(struct image_writer *w, const struct cox_image_map *map);
uint32_t image_put_extras(struct image_writer *w, const struct cox_image_extras *extras);

/* A declared input: its value lies in the pool already, as part of the task's inputs. `type` is inputs.h's.
 */
void image_put_input(struct image_writer *w, struct cox_slice name, struct image_str value, uint32_t type);

/* Steps in order. Edges are given to image_finish. `n_needs`, `n_dependants` of `step` are not read. */
void image_put_step(struct image_writer *w, const struct cox_image_step *step);

/* Edges in both directions, as offsets[n_steps + 1] into items[offsets[n_steps]]. */
struct image_graph {
    const uint32_t *needs_at, *needs;
    const uint32_t *dependants_at, *dependants;
    const uint32_t *sorted; /* sorted[n_steps]: step indexes by name */
};
/* `inputs` is where the task's inputs lie in the pool. */
void image_finish(struct image_writer *w, const struct cox_image_task *task, struct image_str inputs,
                  const struct image_graph *graph, struct cox_buf *ret);

/* For the evaluator: code and the pool of an opened image. */
struct cox_slice image_code(const struct cox_image *img, uint32_t t); /* empty when constant */
bool image_reads(const struct cox_image *img, uint32_t at, uint32_t len, struct cox_slice *ret);

#endif
