/* Models and usage as rows. */
#ifndef CLI_MODEL_H
#define CLI_MODEL_H

#include "cli.h"

#include "coxswain/v1/model_service.pb-c.h"

/* Adds a row for a model, or the heading for NULL. (model_describe.c) */
void cli_add_model(struct cli_listing *l, const struct cli *cli, const Coxswain__V1__Model *model);

/* "0.000123 USD"; nothing for what nothing was charged for. (model_describe.c) */
void cli_put_money(struct cox_buf *out, int64_t micros, const char *currency);

#endif
