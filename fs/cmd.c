/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/cmd.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "fs/control.h"

#define PING_MS 5000

static bool progress_shown;
static volatile sig_atomic_t interrupted;

static void say(const char *cmd, const char *more, const char *fmt, va_list ap)
{
	char text[2048];

	cmd_progress_end();
	vsnprintf(text, sizeof text, fmt, ap);
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	fprintf(stderr, "holdfast: %s: %s%s%s%s\n", cmd, text, *more ? ": holdfast " : "",
		*more ? more : "", *more ? " --help" : "");
}

int cmd_fail(const char *cmd, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(cmd, "", fmt, ap);
	va_end(ap);
	return EXIT_FAILED;
}

int cmd_usage(const char *cmd, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(cmd, cmd, fmt, ap);
	va_end(ap);
	return EXIT_USAGE;
}

int cmd_fail_last(const char *cmd, int err)
{
	const char *why = log_last();

	return cmd_fail(cmd, "%s", *why ? why : strerror(-err));
}

int cmd_getopt(int argc, char **argv, const char *shorts, const struct option *longs)
{
	char spec[64];

	/* ':' first: a missing argument is told from an unknown option. */
	snprintf(spec, sizeof spec, ":%s", shorts);
	opterr = 0;
	int at = optind, o = getopt_long(argc, argv, spec, longs, NULL);
	if (o == ':')
		cmd_usage(argv[0], "%s needs an argument", argv[optind - 1]);
	const char *arg = o == '?' ? argv[optind > at ? optind - 1 : at] : "";
	if (o == '?' && optopt && !strncmp(arg, "--", 2) && strchr(arg, '='))
		cmd_usage(argv[0], "%.*s takes no value", (int)strcspn(arg, "="), arg);
	else if (o == '?' && optopt)
		cmd_usage(argv[0], "unknown option -%c", optopt);
	else if (o == '?')
		cmd_usage(argv[0], "unknown or ambiguous option %s", arg);
	return o == ':' ? '?' : o;
}

int cmd_operands(int argc, char **argv, int cnt, const char *what)
{
	if (argc - optind < cnt)
		return cmd_usage(argv[0], "%s needed", what);
	if (argc - optind > cnt)
		return cmd_usage(argv[0], "\"%s\" is too much: only %s", argv[optind + cnt],
				 what);
	for (int i = optind; i < argc; i++)
		if (!*argv[i])
			return cmd_usage(argv[0], "an argument is empty: %s needed", what);
	return 0;
}

bool cmd_number(const char *s, uint64_t max, uint64_t *out)
{
	uint64_t v = 0;

	if (!*s)
		return false;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return false;
		if (v > (max - (uint64_t)(*s - '0')) / 10)
			return false;
		v = v * 10 + (uint64_t)(*s - '0');
	}
	*out = v;
	return v <= max;
}

int cmd_print_json(json_t *j)
{
	char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;

	json_decref(j);
	if (!text) {
		fprintf(stderr, "holdfast: out of memory for the report\n");
		return EXIT_FAILED;
	}
	/* main() says so when it does not get out. */
	puts(text);
	free(text);
	return fflush(stdout) ? EXIT_FAILED : EXIT_DONE;
}

void cmd_progress(const char *fmt, ...)
{
	va_list ap;

	if (!isatty(STDERR_FILENO))
		return;
	fputs("\r", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("\033[K", stderr);
	fflush(stderr);
	progress_shown = true;
}

void cmd_progress_end(void)
{
	if (progress_shown)
		fputs("\r\033[K", stderr);
	progress_shown = false;
}

void cmd_time(int64_t ns, char out[TIME_CAP])
{
	time_t s = (time_t)(ns / 1000000000);
	struct tm tm;

	*out = 0;
	if (ns > 0 && gmtime_r(&s, &tm))
		strftime(out, TIME_CAP, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

bool cmd_parse_size(const char *s, uint64_t *out)
{
	size_t len = strlen(s);
	char digits[32];
	unsigned shift = 0;
	const char *unit = "KMGT", *at;

	if (!len || len >= sizeof digits)
		return false;
	memcpy(digits, s, len + 1);
	char last = digits[len - 1];
	if (last >= 'a' && last <= 'z')
		last = (char)(last - 'a' + 'A');
	if (last && (at = strchr(unit, last))) {
		shift = 10 * (unsigned)(at - unit + 1);
		digits[len - 1] = 0;
	}
	if (!cmd_number(digits, UINT64_MAX >> shift, out))
		return false;
	*out <<= shift;
	return true;
}

void cmd_size(uint64_t bytes, char out[SIZE_CAP])
{
	static const char unit[] = "kMGTPE";
	double v = (double)bytes;
	size_t i = 0;

	if (bytes < 1000) {
		snprintf(out, SIZE_CAP, "%u B", (unsigned)bytes);
		return;
	}
	for (v /= 1000; v >= 999.95 && unit[i + 1]; i++)
		v /= 1000;
	snprintf(out, SIZE_CAP, "%.1f %cB", v, unit[i]);
}

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

int cmd_ping(const char *dir, pid_t *pid, json_t **answer)
{
	json_t *req = json_pack("{s:s}", "cmd", "ping");
	pid_t p = 0;

	int err = control_call_progress(dir, req, PING_MS, NULL, NULL, &p, answer);
	json_decref(req);
	if (pid)
		*pid = p;
	if (err == -ETIMEDOUT && p > 0)
		return log_fail(err,
				"the process of the mount, %d, does not answer: is it stopped "
				"(kill -CONT %d)? umount --now ends it, and loses nothing",
				(int)p, (int)p);
	return err;
}

int cmd_alive(const char *dir)
{
	json_t *answer;
	int err = cmd_ping(dir, NULL, &answer);

	json_decref(answer);
	return err;
}

void cmd_interrupt_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
}

void cmd_catch_interrupts(void)
{
	static const int which[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction sa = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};

	for (size_t i = 0; i < sizeof which / sizeof *which; i++)
		sigaction(which[i], &sa, NULL);
}

bool cmd_interrupted(void)
{
	return interrupted;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)ftw;
	if ((type == FTW_DP || type == FTW_DNR ? rmdir(path) : unlink(path)) < 0 &&
	    errno != ENOENT)
		return -errno;
	return 0;
}

int cmd_remove_tree(const char *path)
{
	int err = nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);

	return err == -1 ? (errno == ENOENT ? 0 : -errno) : err;
}
