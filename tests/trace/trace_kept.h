/* Words for timelines about templates and schedules. */
#ifndef TRACE_KEPT_H
#define TRACE_KEPT_H

#include "trace.h"

struct record;
bool trace_tell_kept(const struct record *r, char *text, size_t len); /* false: it is about something else */

/* Documents of kind template and schedule. What is wrong with one fails the test. */
void keep_template(struct trace *t, const char *document_json);
void keep_template_of(struct trace *t, const char *tenant, const char *document_json);
void drop_template(struct trace *t, const char *name, uint32_t major);
/* `zone` is a POSIX TZ string, "" for UTC; the document's own time zone is not looked at. */
void keep_schedule(struct trace *t, const char *document_json, const char *zone);
/* The input that keep_schedule makes, for tests with an engine of their own. */
struct cox_input schedule_input(struct cox_arena *memory, const char *document_json, const char *zone);
void drop_schedule(struct trace *t, const char *name);
struct cox_schedule_view schedule_of(struct trace *t, const char *name);
void at_wall_ms(struct trace *t,
                int64_t wall_ms); /* the host's clock is set forward, from the beginning's 1,000 s */

#endif
