/* Tasks by label, status and age. */
#ifndef CLI_SELECT_H
#define CLI_SELECT_H

#include "task.h"

#define CLI_STATUSES_MAX 32
#define CLI_STATUS(value) (1u << (unsigned)(value))
#define CLI_STATUSES_LIVE (CLI_STATUS(1) | CLI_STATUS(2) | CLI_STATUS(3) | CLI_STATUS(4))
#define CLI_STATUSES_ENDED (CLI_STATUS(5) | CLI_STATUS(6) | CLI_STATUS(7))

/* clang-format off */
#define CLI_SELECT_OPTIONS \
    { "label", 'l', "NAME=VALUE", "only tasks with this label; several: all of them" }, \
    { "status", 0, "STATUS,...", "only these, such as FAILED,CANCELLED" }, \
    { "since", 0, "TIME", "only tasks made since then: 2h ago, or 2026-01-02T03:04:05Z" }, \
    { "before", 0, "TIME", "only tasks made before then" }
/* clang-format on */

struct cli_select {
    Coxswain__V1__ListTasksRequest request;
    Coxswain__V1__TaskStatus statuses[CLI_STATUSES_MAX];
    Google__Protobuf__Timestamp after, before;
};

/* As the options say. Prints errors; cli_select_fini in either case. */
enum cli_exit cli_select_init(struct cli_select *s, const struct cli *cli);
void cli_select_fini(struct cli_select *s);
/* Statuses for when the options name none. */
void cli_select_statuses(struct cli_select *s, unsigned mask);

/* Calls on_task for at most `limit` matches, newest first, page by page; whether there are more. */
enum cli_exit cli_select_each(struct cli *cli, struct cli_select *s, uint32_t limit,
                              void (*on_task)(void *user, const Coxswain__V1__Task *task), void *user,
                              bool *ret_more);

#endif
