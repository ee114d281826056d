/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * json_read: text to JSON, also when memory is short.
 *
 * jansson (2.14, lex_scan_string) takes no notice of a character for which it had no memory,
 * then looks for the end of a string that it does not have and writes beyond its buffer.  So
 * while it reads, what malloc refuses comes from a reserve; the text is then refused all the
 * same.
 */
#ifndef HOLDFAST_FS_JSON_READ_H
#define HOLDFAST_FS_JSON_READ_H

#include <jansson.h>

/*
 * NULL, with the reason in e (may be NULL), when it is no JSON, has a name twice in an object,
 * or memory is short.  The caller owns the result.  Any thread; one reads at a time.
 */
json_t *json_read(const void *text, size_t len, json_error_t *e);

#endif
