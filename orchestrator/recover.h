/* Recovery: an engine out of what the store holds. */
#ifndef COX_ORCHESTRATOR_RECOVER_H
#define COX_ORCHESTRATOR_RECOVER_H

#include "driver.h"

/* A task over which it has crashed again and again is quarantined first (crash_note.h). On COX_OK the epoch's
 * record is in `fx`. The engine is the caller's in any case, and NULL if there is none yet. */
COX_MUST_CHECK enum cox_err cox_recover(struct cox_store *store, const struct cox_driver_config *config,
                                        struct cox_engine **ret_engine, struct cox_now *ret_now,
                                        struct cox_effects *fx, struct cox_driver_recovery *ret_found,
                                        struct cox_buf *error);

/* Tells an engine, before its first load, what the store says is quarantined. */
void cox_recover_quarantined(struct cox_engine *e, const struct cox_store_quarantined *q);

#endif
