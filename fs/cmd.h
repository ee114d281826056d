/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd: what the subcommands share.  A command gets its own argv (argv[0] is its name) and
 * returns the exit status: 0 done, 1 failed, 2 wrong usage.  What went wrong is one line on
 * standard error: what, why, what to do.
 */
#ifndef HOLDFAST_FS_CMD_H
#define HOLDFAST_FS_CMD_H

#include <getopt.h>
#include <jansson.h>
#include <signal.h>
#include "fs/config.h"

#define HOLDFAST_VERSION "0.1"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct command {
	const char *name, *summary, *help;
	int (*run)(int argc, char **argv);
};

int cmd_create(int argc, char **argv);
int cmd_mount(int argc, char **argv);
int cmd_umount(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_sync(int argc, char **argv);
int cmd_recover(int argc, char **argv);
int cmd_node(int argc, char **argv);
int cmd_credentials(int argc, char **argv);
int cmd_scrub(int argc, char **argv);
int cmd_repair(int argc, char **argv);
int cmd_fsck(int argc, char **argv);
int cmd_kit(int argc, char **argv);

/* The program was called as mount.fuse.holdfast, as mount(8) does. */
int cmd_mount_helper(int argc, char **argv);

/* One line "holdfast: CMD: sentence"; returns EXIT_FAILED. */
int cmd_fail(const char *cmd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The sentence a lower layer left in log_last(), or that of err. */
int cmd_fail_last(const char *cmd, int err);
/* The same for wrong usage, with a pointer to --help; returns EXIT_USAGE. */
int cmd_usage(const char *cmd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/*
 * getopt_long with our error lines: the option's value, -1 at the end, '?' after a usage
 * line was printed.
 */
int cmd_getopt(int argc, char **argv, const char *shorts, const struct option *longs);
/* Exactly the names of `what` must be left, none empty: 0, or EXIT_USAGE after a line. */
int cmd_operands(int argc, char **argv, int cnt, const char *what);
/* A number of seconds, 0..max: false when it is none. */
bool cmd_number(const char *s, uint64_t max, uint64_t *out);

/* Prints and frees; EXIT_FAILED when standard output fails, which main() says. */
int cmd_print_json(json_t *j);
/* Progress on standard error when that is a terminal; NULL ends the line. */
void cmd_progress(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void cmd_progress_end(void);

/* RFC 3339 in UTC, seconds; "" for 0. */
#define TIME_CAP 24
void cmd_time(int64_t ns, char out[TIME_CAP]);
/* Digits and at most one of K, M, G, T (powers of 1024); false when it is not that. */
bool cmd_parse_size(const char *s, uint64_t *out);
/* 1234567 -> "1.2 MB" */
#define SIZE_CAP 16
void cmd_size(uint64_t bytes, char out[SIZE_CAP]);

/* From now on ^C and the like only set a mark, so that what was begun can be undone. */
void cmd_catch_interrupts(void);
void cmd_interrupt_set(sigset_t *set); /* the signals that interrupt a command */
bool cmd_interrupted(void);

/*
 * Asks the mount for its pid and mount point; it says so at once however busy it is.
 * -ENOENT: not mounted; -ETIMEDOUT with a line on what to do.
 */
int cmd_ping(const char *dir, pid_t *pid, json_t **answer);
int cmd_alive(const char *dir);
/* The object of status --json: from the mount, else from the database; NULL with a log line. */
json_t *cmd_get_status(const char *name);
void cmd_show_nodes(const json_t *nodes);

/* Removes a tree that this program made; 0 or the first -errno. */
int cmd_remove_tree(const char *path);

#endif
