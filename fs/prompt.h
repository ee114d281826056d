/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * prompt: where a passphrase comes from: --passphrase-file, else $HOLDFAST_PASSPHRASE_FILE,
 * else the terminal without echo.  A passphrase is never an argument and never in the
 * environment, and lives in sodium_malloc memory.
 */
#ifndef HOLDFAST_FS_PROMPT_H
#define HOLDFAST_FS_PROMPT_H

#include "net/base.h"

#define PASS_CAP 1024

/* The file a passphrase would come from, or NULL: the terminal.  file may be NULL. */
const char *prompt_file(const char *file);
/*
 * prompt_pass(file, what, twice, out): *out is 0-terminated, freed by prompt_free.  what is
 * the question ("Passphrase of work"); twice asks a second time and compares (terminal
 * alone).  -EINVAL with a log line: empty, too long, not equal; -ENOTTY: nobody to ask.
 * keys_global_init must have been called.
 */
int prompt_pass(const char *file, const char *what, bool twice, char **out);
void prompt_free(char *pass);

#endif
