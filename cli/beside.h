/* The other programs of the same build. */
#ifndef CLI_BESIDE_H
#define CLI_BESIDE_H

/* The path of a program in this program's folder; its plain name, for PATH, when there is none. Freed by the
 * caller. */
char *cli_beside(const char *name);

#endif
