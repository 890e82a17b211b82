/* What goes on beside the work: the sweep of what nobody needs, and a look once a second at the room that is
 * left, and at freed memory that the system could have.
 *
 * Below min_free no submission is taken, so that running tasks have the room to finish; the same above nine
 * tenths of memory_limit. Above all of it reading stops every other second: what the peers then send is what
 * ends tasks and frees memory, so it must not stop for ever.
 *
 * Thread: the engine's.
 */
#ifndef COX_ORCHESTRATOR_HOUSEKEEP_H
#define COX_ORCHESTRATOR_HOUSEKEEP_H

#include "driver.h"

struct cox_housekeep {
    struct cox_driver *driver;
    uint64_t min_free;     /* bytes of disk; 0: do not look */
    uint64_t memory_limit; /* bytes; 0: none */
    int64_t look_ns;       /* when to look again; INT64_MAX: never */
    int64_t spare_ns; /* when to look at freed memory again, if there is a turn: it is worth no wake-up */
    size_t spare_len; /* freed memory then */
    size_t given_len; /* of it, given back: malloc goes on counting it */
    int64_t sweep_ns; /* when to sweep again; INT64_MAX: never, or a slice is under way */
    int64_t sweep_every_ns;
    struct cox_ask sweep;
    enum cox_shortage shortage;
    bool stifled; /* reading stops until the next look */
};

/* `from_ns`: now, monotonic. sweep_every_ms 0: never. */
void cox_housekeep_init(struct cox_housekeep *h, struct cox_driver *d, const struct cox_driver_config *config,
                        int64_t from_ns);
/* Other limits; they are looked at in the next turn. */
void cox_housekeep_limit(struct cox_housekeep *h, uint64_t min_free, uint64_t memory_limit);
/* `quiet`: nothing is under way that this would hold up. */
void cox_housekeep_turn(struct cox_housekeep *h, int64_t now_ns, bool quiet);
int64_t cox_housekeep_wake_ns(const struct cox_housekeep *h);

#endif
