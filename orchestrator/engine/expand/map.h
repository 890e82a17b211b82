/* Maps: a step once for each item of a list (TASK_FORMAT rule 5).
 *
 *   step ── expansion ── map ── page ── page ── page      of up to COX_MAP_PAGE_ITEMS items each
 *                         │       └ two bits an item, batches in flight, items to try again, outputs
 *                         └ the list as text, items to try again by time, the frames' and batches' counts
 *
 * A page is an entity; it is made when its first item is given to somebody. When all its items have ended it
 * is handed to the state at once and what it holds leaves memory; at the map's end the pages are joined into
 * the step's output by the compile thread. So a map costs its list, two bits an item of the pages that are
 * being worked on, and what is in flight.
 *
 * Items of a leaf kind go to workers in batches that never cross a page: the step stands in its class's queue
 * as long as there is something to give, and goes to the queue's end after each batch. Items of other kinds
 * are frames. A map's own attempt (the step is WAITING) is not retried: its items have been.
 */
#ifndef ENGINE_EXPAND_MAP_H
#define ENGINE_EXPAND_MAP_H

#include "../state.h"
#include "cox/json.h"

enum item_state { ITEM_OPEN, ITEM_DONE, ITEM_FAILED }; /* in map pages: two bits */

/* Items with one worker. */
struct map_batch {
    /* durable */
    uint32_t first, n; /* by index in the map */
    struct cox_token token;
    uint32_t worker;
    int64_t assigned_wall_ms;
    /* derived */
    struct attempt *attempt;
};

/* An open item that was given before. */
struct map_again {
    /* durable, when not all zero */
    int64_t ready_wall_ms;
    uint16_t n_tries; /* that failed and were charged */
    uint8_t n_losses;
    /* derived */
    uint32_t item;
    struct cox_heap_node node; /* by ready_wall_ms; outside while it is with somebody */
};

struct map_failure {
    uint32_t item;
    uint8_t code;
    char *message;
};

struct map_page {
    struct entity entity;
    uint32_t first, n_items;
    /* durable */
    uint8_t *states;              /* NULL when sealed: all have ended */
    struct cox_map64 batches;     /* index of the first item + 1 -> map_batch */
    struct cox_map64 again;       /* index of the item + 1 -> map_again */
    struct map_failure *failures; /* in the order in which they came; sealed: the one of the lowest index */
    uint32_t n_failures;
    struct cox_buf outputs; /* {u32 place in the page, u32 length, JSON}, in the order in which they came */
    uint64_t outputs_len;   /* of the JSON alone */
    uint64_t digest;        /* over every item's end, in order: sealed pages have nothing else to compare */
    uint64_t cpu_us;
    uint32_t n_done, n_failed;
    /* derived */
    struct map_place *places; /* of each item in the list; NULL: not looked up */
};

struct map_place {
    uint32_t at, len;
};

/* An item's input, evaluated by the compile thread. */
struct map_spec {
    struct cox_list in_prepared;
    uint32_t item;
    struct cox_buf json;
};

struct map {
    struct cox_task *task;
    struct step *step;
    uint32_t n_items;
    uint32_t n_pages;
    struct map_page **pages;   /* NULL: nothing of it was given yet */
    uint64_t n_done, n_failed; /* sums over the pages */
    uint64_t outputs_len, cpu_us;
    uint64_t n_given; /* items that are with somebody: in batches, and (live) in frames */

    /* derived, live only */
    struct cox_image_map doc;
    struct cox_image_call call; /* leaf kinds */
    bool of_frames;
    bool derived; /* what stands here is */
    uint64_t n_tolerated;
    struct cox_map64 attempts; /* by token */
    struct cox_heap again;     /* struct map_again: not with anybody */
    uint32_t next;             /* from here on nothing was given */
    struct timer timer;        /* TIMER_MAP */
    struct cox_list prepared;  /* struct map_spec */
    uint32_t n_preparing;

    struct cox_slice list;       /* empty: not here */
    struct cox_buf text;         /* what it points to, unless that is the image's or the step's */
    struct cox_json_walk *walks; /* before the first item of each page, as far as was looked */
    uint32_t n_walks;

    uint64_t ticket;         /* of the list or the output, when it was asked for; else 0 */
    bool stopping;           /* nothing more is given */
    enum cox_code stop_code; /* why: CANCELLED, OUTPUT_TOO_LARGE, INTERNAL; NONE: too many items failed */
    bool holds_ends; /* frames are being opened or stopped, and may end at once: what follows comes after */
};

/* ---- map.c: from begin to end ---- */

/* The step waits, by an attempt of its own: asks for the list. */
void map_begin(struct cox_engine *e, struct cox_task *t, uint32_t step);
/* After recovery: its items, with whom they are. */
void map_adopt(struct cox_engine *e, struct cox_task *t, uint32_t step);
/* It goes on, wherever it was. */
void map_restore(struct cox_engine *e, struct cox_task *t, uint32_t step);
/* Gives nothing more and ends what runs; the step's attempt ends as CANCELLED with the last of it. */
void map_stop(struct cox_engine *e, struct cox_task *t, uint32_t step);
/* Memory only, without a trace in the state: see map_drop. e may be NULL. */
void map_free(struct cox_engine *e, struct expansion *x);
/* Answers to what was asked for the map: LIST, OUTPUT, BATCH; ITEMS. */
void map_asked(struct cox_engine *e, const struct evaluation *ev, const struct cox_in_evaluated *in);
void map_fetched(struct cox_engine *e, const struct evaluation *ev, struct cox_slice bytes);
void map_timer(struct cox_engine *e, struct map *m);
/* A frame that was opened for an item has ended. */
void map_item_ended(struct cox_engine *e, struct cox_task *t, uint32_t step, uint64_t item,
                    struct cox_task *frame);
/* Something that held it back may be over: a pause, a gate. */
void map_place(struct cox_engine *e, struct cox_task *t, uint32_t step);

/* ---- map_batch.c: batches with workers ---- */

/* The step has left its class's queue: gives one batch to the worker. */
void map_dispatch(struct cox_engine *e, struct class *c, struct step *s, struct worker *w);
/* Room to evaluate large specs: the step is first in the engine's list. */
void map_prepare(struct cox_engine *e, struct step *s);
struct attempt *map_attempt_find(const struct cox_task *t, uint32_t step, struct cox_token token);
void map_attempt_ended(struct cox_engine *e, struct attempt *a, const struct record_ended *en,
                       const struct cox_in_result *in);
void map_attempt_withdrawn(struct cox_engine *e, struct attempt *a, bool returned);

/* ---- map_page.c: what is durable of it ---- */

void map_apply(struct cox_engine *e, uint64_t seq, struct cox_task *t, const struct record *r);
/* The step's attempt has ended at `seq`: pages of before are forgotten. */
void map_drop(struct cox_engine *e, struct expansion *x, uint64_t seq);
void map_page_encode(struct cox_buf *b, const struct map_page *p);
COX_MUST_CHECK enum cox_err map_page_load(struct cox_engine *e, uint64_t id, uint32_t sub, uint64_t seq,
                                          struct cox_slice bytes);
/* Pages in the state that belong to no map: after replay. */
void map_pages_forget_lost(struct cox_engine *e);
/* Is there a page of this key that was handed to the state as a whole, since it has ended? */
bool map_page_is_saved(const struct cox_engine *e, const struct cox_entity_key *key);
void map_pages_free_lost(struct cox_engine *e);
uint64_t map_hash(uint64_t h, const struct map *m); /* NULL is allowed */
void map_check(const struct cox_engine *e, const struct map *m);

/* ---- between them ---- */

struct map *map_make(struct cox_task *t, struct step *s); /* made when it is missing */
void map_pages_free(struct map *m);
void map_go_on(struct cox_engine *e, struct map *m); /* whatever follows a change; may end the step, and m */
bool map_item_peek(const struct cox_engine *e, const struct map *m, uint32_t *ret); /* the next to be given */
void map_item_take(struct map *m, uint32_t item);
void map_item_again(struct map *m, struct map_page *p,
                    uint32_t item);     /* to be given again, when it is time */
uint64_t map_room(const struct map *m); /* items that may be given now */
/* Records the ends of items without a batch, or of a batch; `items` is encoded. */
void map_emit_ended(struct cox_engine *e, struct map *m, struct map_page *p, struct cox_token token,
                    uint64_t cpu_us, struct cox_slice items, uint32_t n);
void map_item_emit(struct cox_engine *e, struct map *m, const struct record_item *item, uint64_t cpu_us);
void map_restore_batches(struct cox_engine *e, struct map *m);

struct map_page *map_page_make(struct map *m, uint32_t item);
struct map_again *map_again_make(struct map_page *p, uint32_t item);
enum item_state map_item_state(const struct map_page *p, uint32_t item);
bool map_page_ended(const struct map_page *p);
void map_page_seal(struct map_page *p); /* the state has it: keeps the counts and one failure */
void map_page_outputs(const struct map_page *p, struct cox_buf *out); /* appends "1,null,3" */
void map_page_failures(const struct map_page *p, struct cox_buf *out);

/* ---- map_list.c: the list as text ---- */

/* False: it is neither a list nor null. Cost: O(text). */
bool map_list_count(struct cox_slice json, uint64_t *ret_n);
struct cox_slice map_item_json(struct map *m, uint32_t item);
/* Takes the text: copies it when it does not stay. */
void map_list_take(struct cox_engine *e, struct map *m, struct cox_slice json, bool stays);
void map_list_free(struct cox_engine *e, struct map *m);

#endif
