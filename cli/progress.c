#include "tree.h"

#include "cox/base/units.h"
#include "cox/wire.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BAR_CELLS 24
#define BAR_EVERY_NS 50000000LL /* redrawing more often is not seen */
#define SUMMARY_EVERY_NS 2000000000LL
#define LINES_STEPS_MAX 200u /* larger tasks get summary lines instead of a line a step */

#define STATUS(name) COXSWAIN__V1__STEP_STATUS__STEP_STATUS_##name

_Static_assert(STATUS(CANCELLED) < 16, "cli_progress.counts holds every status");

void cli_progress_init(struct cli_progress *p, struct cli *cli, const char *id)
{
    *p = (struct cli_progress){ .cli = cli, .id = id, .start_ms = cox_clock_wall_ms() };
}

static const char *status_text(int status)
{
    const char *text = cox_wire_enum_text(&coxswain__v1__step_status__descriptor, status);

    return text ? text : "?";
}

static bool is_final(int status)
{
    return status >= STATUS(SUCCEEDED);
}

static uint32_t count_final(const struct cli_progress *p)
{
    uint32_t n = 0;

    for (int s = STATUS(SUCCEEDED); s <= STATUS(CANCELLED); s++)
        n += p->counts[s];
    return n;
}

void cli_progress_task(struct cli_progress *p, const Coxswain__V1__Task *task)
{
    snprintf(p->name, sizeof(p->name), "%s", task->name);
    if (task->created_at)
        p->start_ms = task->created_at->seconds * 1000 + task->created_at->nanos / 1000000;
    if (!task->steps)
        return;
    p->total = task->steps->total;
    for (int s = 0; s <= STATUS(CANCELLED); s++)
        p->counts[s] = cli_steps_in(task, status_text(s));
}

/* A step event does not say where the step came from; what is most likely keeps the sum right, and the next
 * event with the task itself sets all counts. */
static void count_step(struct cli_progress *p, const Coxswain__V1__Step *step)
{
    static const int before_end[] = { STATUS(RUNNING), STATUS(WAITING), STATUS(READY), STATUS(BLOCKED) };
    static const int before_start[] = { STATUS(READY), STATUS(BLOCKED), STATUS(RUNNING), STATUS(WAITING) };
    static const int before_ready[] = { STATUS(BLOCKED), STATUS(RUNNING), STATUS(WAITING), STATUS(READY) };
    static const int before_retry[] = { STATUS(RUNNING), STATUS(WAITING), STATUS(BLOCKED), STATUS(READY) };
    static const int before_skip[] = { STATUS(BLOCKED), STATUS(READY), STATUS(RUNNING), STATUS(WAITING) };
    const int *before = before_end;
    int status = (int)step->status;

    if (status <= 0 || status > STATUS(CANCELLED))
        return;
    if (status == STATUS(RUNNING) || status == STATUS(WAITING))
        before = before_start;
    else if (status == STATUS(READY))
        before = step->n_attempts > 0 ? before_retry : before_ready;
    else if (status == STATUS(SKIPPED))
        before = before_skip;
    for (int i = 0; i < 4; i++) {
        if (p->counts[before[i]] > 0) {
            p->counts[before[i]]--;
            p->counts[status]++;
            return;
        }
    }
}

/* "  scan  FAILED  EXIT_NONZERO: exit code 1 (attempt 2 on w1)" */
static void print_step(const Coxswain__V1__Step *step)
{
    const Coxswain__V1__Attempt *last = step->n_attempts > 0 ? step->attempts[step->n_attempts - 1] : NULL;
    const Coxswain__V1__Error *error = step->error ? step->error : last ? last->error : NULL;
    struct cox_buf line = { 0 };

    cox_buf_printf(&line, "  %-20s %-9s", cli_step_name(step), status_text((int)step->status));
    if (error && step->status != STATUS(SUCCEEDED)) {
        cox_buf_printf(&line, " %s: ", error->code);
        cli_put_line(&line, cox_slice_str(error->message));
    } else if (*step->reason) {
        cox_buf_append_str(&line, " ");
        cli_put_line(&line, cox_slice_str(step->reason));
    } else if (*step->via) {
        cox_buf_printf(&line, " via %s", step->via);
    }
    if (last && *last->worker) /* kinds without a worker have attempts too */
        cox_buf_printf(&line, " (attempt %u on %s)", last->number, last->worker);
    fprintf(stderr, "%s\n", cox_buf_cstr(&line));
    cox_buf_fini(&line);
}

void cli_progress_step(struct cli_progress *p, const Coxswain__V1__Step *step)
{
    bool retry = step->status == STATUS(READY) && step->n_attempts > 0;

    count_step(p, step);
    if (p->tree)
        cli_tree_update(p->tree, step);
    if (p->cli->quiet || p->tree)
        return;
    if (p->cli->bar ? step->status == STATUS(FAILED) || retry
                    : p->total <= LINES_STEPS_MAX && (is_final((int)step->status) || retry)) {
        cli_progress_clear(p);
        print_step(step);
    }
}

static void put_counts(struct cox_buf *out, const struct cli_progress *p)
{
    static const struct {
        int status;
        const char *word;
    } shown[] = { { STATUS(RUNNING), "running" }, { STATUS(READY), "ready" },
                  { STATUS(WAITING), "waiting" }, { STATUS(FAILED), "failed" },
                  { STATUS(SKIPPED), "skipped" }, { STATUS(CANCELLED), "cancelled" } };

    cox_buf_printf(out, "%u/%u", count_final(p), p->total);
    for (size_t i = 0; i < sizeof(shown) / sizeof(*shown); i++) {
        if (p->counts[shown[i].status] > 0)
            cox_buf_printf(out, "  %u %s", p->counts[shown[i].status], shown[i].word);
    }
    int64_t ms = cox_clock_wall_ms() - p->start_ms;

    cox_buf_append_str(out, "  ");
    cox_put_duration(out, ms < 0 ? 0 : ms < 60000 ? ms / 100 * 100 : ms);
}

static struct winsize terminal(void)
{
    struct winsize size;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0)
        size = (struct winsize){ .ws_col = 80, .ws_row = 24 };
    return size;
}

static void draw_bar(struct cli_progress *p)
{
    struct cox_buf line = { 0 };
    uint32_t done = count_final(p),
             cells = p->total > 0 ? (uint32_t)((uint64_t)BAR_CELLS * done / p->total) : 0;
    unsigned columns = terminal().ws_col;

    cox_buf_printf(&line, "%s %s [", p->id, p->name);
    for (uint32_t i = 0; i < BAR_CELLS; i++)
        cox_put_u8(&line, i < cells ? '#' : '.');
    cox_buf_append_str(&line, "] ");
    put_counts(&line, p);
    if (line.len >= columns)
        line.len = columns - 1;
    fprintf(stderr, "\r\033[K%s%s%s", p->cli->color && p->counts[STATUS(FAILED)] > 0 ? "\033[31m" : "",
            cox_buf_cstr(&line), p->cli->color ? "\033[0m" : "");
    fflush(stderr);
    p->shown = true;
    cox_buf_fini(&line);
}

/* All lines in one write, over those of the last time. */
static void draw_tree(struct cli_progress *p)
{
    struct winsize size = terminal();
    struct cox_buf out = { 0 };

    cox_buf_printf(&out, "\r\033[K%s %s  ", p->id, p->name);
    put_counts(&out, p);
    cox_put_u8(&out, '\n');
    unsigned lines =
        1 + cli_tree_put(p->tree, &out, size.ws_row > 3 ? size.ws_row - 3u : 1, size.ws_col, p->cli->color);

    cli_progress_clear(p);
    fwrite(out.data, 1, out.len, stderr);
    fflush(stderr);
    p->tree_lines = lines;
    cox_buf_fini(&out);
}

void cli_progress_draw(struct cli_progress *p)
{
    int64_t now = cox_clock_mono_ns();

    if (p->cli->quiet || p->total == 0)
        return;
    if (p->cli->bar) {
        if (p->drawn_ns && now - p->drawn_ns < BAR_EVERY_NS)
            return;
        if (p->tree)
            draw_tree(p);
        else
            draw_bar(p);
    } else {
        struct cox_buf line = { 0 };
        if (p->total <= LINES_STEPS_MAX || now - p->drawn_ns < SUMMARY_EVERY_NS)
            return;
        put_counts(&line, p);
        fprintf(stderr, "  %s\n", cox_buf_cstr(&line));
        cox_buf_fini(&line);
    }
    p->drawn_ns = now;
}

void cli_progress_clear(struct cli_progress *p)
{
    if (p->shown)
        fputs("\r\033[K", stderr);
    if (p->tree_lines > 0)
        fprintf(stderr, "\033[%uA\r\033[J", p->tree_lines);
    p->shown = false;
    p->tree_lines = 0;
}
