#ifndef ROMAN_H
#define ROMAN_H

#include <stddef.h>

/* Writes n, from 1 to 3999, in Roman numerals. False: it is none of these, or `size` bytes are too few. */
int roman(int n, char *text, size_t size);

#endif
