/* What the worker verbs share. */
#ifndef CLI_WORKER_H
#define CLI_WORKER_H

#include "cli.h"

#include "coxswain/v1/fleet_service.pb-c.h"

/* Adds a worker's row; the heading for NULL. */
void cli_add_worker(struct cli_listing *l, const struct cli *cli, const Coxswain__V1__Worker *worker);

#endif
