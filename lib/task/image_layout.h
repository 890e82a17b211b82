/* The flat image's layout: what its writer, its reader and its check share.
 *
 *   header | pool | steps | calls | policies | classes | pairs | templates | links | code
 *          | details | mores | maps | extras | inputs | refs
 *
 * All integers little-endian, records without padding, unaligned (the image may lie anywhere in a log row).
 * The pool holds strings and JSON text, named by offset from the image's start. `pairs` are labels, then the
 * requirements of classes. `links` are needs[n_edges], dependants[n_edges], steps by name[n_steps], and the
 * steps that templates refer to. Where each section starts follows from the counts in the header.
 *
 * Version 3 added the budget to the header.
 * Version 2 added the second row of sections, and a longer header. An image of version 1 has none of them,
 * and is else the same. What few steps and calls have is kept beside their records, so that many small steps
 * stay small: `mores` of steps, `details` of calls.
 */
#ifndef COX_TASK_IMAGE_LAYOUT_H
#define COX_TASK_IMAGE_LAYOUT_H

#include "code.h"
#include "image_write.h"

#define MAGIC "COXIMAGE"
#define MAGIC_LEN 8u
#define VERSION_1 1u
#define VERSION_2 2u
#define VERSION 3u

/* offsets in the header */
enum {
    H_VERSION = 8,
    H_POOL_END = 12,
    H_STEPS = 16, /* counts of the first sections, from here */
    H_CALLS = 20,
    H_POLICIES = 24,
    H_CLASSES = 28,
    H_PAIRS = 32,
    H_TEMPLATES = 36,
    H_LINKS = 40,
    H_CODE = 44,
    H_EDGES = 48,
    H_LABELS = 52,
    H_NAME = 56, /* offset, length */
    H_INPUTS = 64,
    H_OUTPUTS = 72,
    H_PRIORITY = 76,
    H_DEADLINE = 80,
    H_FLAGS = 88,
    H_MEMBERS = 92, /* 0 in version 1 */
    H_LEN_1 = 96,
    H_DETAILS = 96, /* counts of the sections of version 2, from here */
    H_MORES = 100,
    H_MAPS = 104,
    H_EXTRAS = 108,
    H_INPUT_LIST = 112,
    H_REFS = 116,
    H_BUNDLE = 120, /* offset, length */
    H_LEN_2 = 128,
    H_BUDGET = 128, /* tokens, cost, cpu, steps: u64 each; UINT64_MAX: none */
    H_LEN = 160,
};

/* bytes of a record */
#define STEP_LEN                                                                                             \
    28u /* name u32, name_len u8, kind u8, flags u8, priority i8, needs, dependants, if (or more), call,     \
           fallback */
#define CALL_LEN 16u     /* class (of a leaf kind) or detail, template, policy, kind */
#define POLICY_LEN 40u   /* timeout i64, backoff i64 x2, attempts, multiplier, retry_on, 0 */
#define CLASS_LEN 48u    /* key at len, handler at len, first pair, n pairs, cpu i64, memory i64, disk i64 */
#define PAIR_LEN 20u     /* name at len, value at len, negated */
#define TEMPLATE_LEN 16u /* at, len (of JSON, or of instructions), first link, n links | flags << 24 */
#define LINK_LEN 4u
#define DETAIL_LEN                                                                                           \
    32u              /* ref at len, wait i64, approvers, inner first, inner n, wait kind | on_expire << 8    \
                      */
#define MORE_LEN 20u /* if, owner, n_inner, map, extras */
#define MAP_LEN 24u  /* over, max_parallel, batch, flags, tolerate u64 */
#define EXTRAS_LEN                                                                                           \
    40u               /* affinity, its step, spread at len, concurrency key, limit, rate key, artifacts,     \
                         rate u64 */
#define INPUT_LEN 20u /* name at len, value at len, type */
#define REF_LEN 8u    /* at len */

/* flags of a step; ALLOW_FAILURE alone in version 1 */
#define STEP_ALLOW_FAILURE 1u
#define STEP_IDEMPOTENT 2u
#define STEP_MORE 4u /* the place of `if` is an index into `mores` */
#define STEP_BODY 8u
#define STEP_FLAGS 15u

#define TASK_FAIL_FAST 1u
#define TASK_OUTPUTS_ALWAYS 2u

#define TEMPLATE_CONST 1u
#define TEMPLATE_INPUTS 2u
#define TEMPLATE_ERROR 4u
#define TEMPLATE_ITEM 8u /* from version 2 */
#define TEMPLATE_N_MAX 0xffffffu

#define MAP_PPM 1u

/* cox_image.at */
enum {
    AT_STEPS,
    AT_CALLS,
    AT_POLICIES,
    AT_CLASSES,
    AT_PAIRS,
    AT_TEMPLATES,
    AT_LINKS,
    AT_CODE,
    AT_NR_1,
    AT_DETAILS = AT_NR_1,
    AT_MORES,
    AT_MAPS,
    AT_EXTRAS,
    AT_INPUTS,
    AT_REFS,
    AT_NR
};
_Static_assert(AT_NR == sizeof(((struct cox_image *)NULL)->at) / sizeof(uint32_t), "one offset a section");
extern const uint32_t image_record_len[AT_NR];

static inline int64_t load_i64(const uint8_t *p)
{
    return (int64_t)((uint64_t)load_u32(p) | (uint64_t)load_u32(p + 4) << 32);
}

static inline uint32_t header_u32(const struct cox_image *img, uint32_t at)
{
    return load_u32(img->bytes.data + at);
}

static inline uint32_t image_version(const struct cox_image *img)
{
    return header_u32(img, H_VERSION);
}

static inline uint32_t header_len(const struct cox_image *img)
{
    uint32_t version = image_version(img);
    return version == VERSION_1 ? H_LEN_1 : version == VERSION_2 ? H_LEN_2 : H_LEN;
}

/* Records in a section: 0 of those that the image's version has not. */
static inline uint32_t image_count(const struct cox_image *img, uint32_t section)
{
    if (section < AT_NR_1)
        return header_u32(img, H_STEPS + 4 * section);
    return image_version(img) == VERSION_1 ? 0 : header_u32(img, H_DETAILS + 4 * (section - AT_NR_1));
}

static inline const uint8_t *record(const struct cox_image *img, uint32_t section, uint32_t i)
{
    return img->bytes.data + img->at[section] + (size_t)i * image_record_len[section];
}

static inline uint32_t link_at(const struct cox_image *img, uint32_t i)
{
    return load_u32(record(img, AT_LINKS, i));
}

/* Where the links of templates begin. */
static inline uint32_t first_ref(const struct cox_image *img)
{
    return 2 * header_u32(img, H_EDGES) + img->n_steps;
}

static inline struct cox_slice str_at(const struct cox_image *img, const uint8_t *p)
{
    return cox_slice(img->bytes.data + load_u32(p), load_u32(p + 4));
}

static inline struct cox_slice step_name(const struct cox_image *img, uint32_t i)
{
    const uint8_t *p = record(img, AT_STEPS, i);

    return cox_slice(img->bytes.data + load_u32(p), p[4]);
}

/* Edges of step i in the direction whose prefix sums are at `field` of step records. */
#define STEP_NEEDS 8u
#define STEP_DEPENDANTS 12u
static inline uint32_t step_edges(const struct cox_image *img, uint32_t step, uint32_t field,
                                  uint32_t *ret_first)
{
    uint32_t first = load_u32(record(img, AT_STEPS, step) + field);
    uint32_t end = step + 1 < img->n_steps ? load_u32(record(img, AT_STEPS, step + 1) + field)
                                           : header_u32(img, H_EDGES);

    *ret_first = first;
    return end - first;
}

#endif
