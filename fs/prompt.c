/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/prompt.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

static volatile sig_atomic_t caught;

static void on_signal(int sig)
{
	caught = sig;
}

const char *prompt_file(const char *file)
{
	const char *env = getenv("HOLDFAST_PASSPHRASE_FILE");

	if (file)
		return file;
	return env && *env ? env : NULL;
}

void prompt_free(char *pass)
{
	if (pass)
		sodium_free(pass); /* wipes */
}

/*
 * One line from fd, without its newline; `stop` (-1: none) ends it as well and is kept.
 * -E2BIG when longer than PASS_CAP - 1, -EILSEQ with a NUL in it, -EINTR when one of the
 * signals came that `open` (NULL: none) lets through while it waits.
 */
static int read_line(int fd, char *pass, int stop, const sigset_t *open)
{
	size_t len = 0;
	int err = 0;
	char c;

	for (;;) {
		struct pollfd p = {fd, POLLIN, 0};

		if (open && ppoll(&p, 1, NULL, open) < 0) {
			if (errno == EINTR && !caught)
				continue;
			err = -errno;
			break;
		}
		ssize_t n = read(fd, &c, 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			err = -errno;
		if (n <= 0 || c == '\n')
			break;
		if (len == PASS_CAP - 1) {
			err = -E2BIG;
			break;
		}
		pass[len++] = c;
		if ((unsigned char)c == stop)
			break;
	}
	if (len && pass[len - 1] == '\r')
		len--;
	pass[len] = 0;
	if (!err && strlen(pass) != len)
		err = -EILSEQ;
	c = 0;
	return err;
}

static int from_file(const char *path, char *pass)
{
	struct stat st;

	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return log_fail(-errno, "passphrase file %s: %s", path, strerror(errno));
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_mode & 077)
		fprintf(stderr,
			"holdfast: warning: passphrase file %s can be read by others: chmod "
			"600\n",
			path);
	int err = read_line(fd, pass, -1, NULL);
	close(fd);
	if (err == -E2BIG)
		return log_fail(-EINVAL,
				"passphrase file %s: its first line is longer than %d bytes",
				path, PASS_CAP - 1);
	if (err == -EILSEQ)
		return log_fail(-EINVAL, "passphrase file %s: its first line holds a NUL byte",
				path);
	if (err)
		return log_fail(err, "passphrase file %s: %s", path, strerror(-err));
	if (!*pass)
		return log_fail(-EINVAL, "passphrase file %s: its first line is empty", path);
	return 0;
}

/* Signals that would leave the terminal without echo wait until it has it again. */
static int ask(int tty, const char *what, char *pass)
{
	static const int which[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	enum { CNT = sizeof which / sizeof *which };
	struct sigaction sa = {.sa_handler = on_signal}, was[CNT];
	struct termios old, quiet;
	sigset_t block, before;

	if (tcgetattr(tty, &old) < 0)
		return log_fail(-ENOTTY, "the terminal cannot be asked: %s", strerror(errno));
	quiet = old;
	/* ^C arrives as a character and is obeyed below. */
	quiet.c_lflag &= ~(tcflag_t)(ECHO | ISIG);
	quiet.c_lflag |= ECHONL | ICANON;
	quiet.c_cc[VEOL] = old.c_cc[VINTR];
	sigemptyset(&block);
	sigaddset(&block, SIGTSTP);
	for (int i = 0; i < CNT; i++)
		sigaddset(&block, which[i]);
	pthread_sigmask(SIG_BLOCK, &block, &before);
	caught = 0;
	for (int i = 0; i < CNT; i++)
		sigaction(which[i], &sa, &was[i]);
	sigset_t during = before;
	sigaddset(&during, SIGTSTP);
	dprintf(tty, "%s: ", what);
	tcsetattr(tty, TCSAFLUSH, &quiet);
	int err = read_line(tty, pass, old.c_cc[VINTR], &during);
	tcsetattr(tty, TCSAFLUSH, &old);
	size_t len = strlen(pass);
	bool stopped = len && pass[len - 1] == (char)old.c_cc[VINTR];
	/* What follows begins its own line. */
	if (stopped || err || !len)
		dprintf(tty, "\n");
	for (int i = 0; i < CNT; i++)
		sigaction(which[i], &was[i], NULL);
	if (caught)
		raise(caught);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (stopped || err == -EINTR)
		return log_fail(-ECANCELED, "interrupted");
	if (err == -E2BIG || err == -EILSEQ)
		return log_fail(-EINVAL, "the passphrase is longer than %d bytes",
				PASS_CAP - 1);
	if (err)
		return log_fail(err, "the terminal: %s", strerror(-err));
	return len ? 0 : log_fail(-EINVAL, "the passphrase is empty");
}

static int from_terminal(const char *what, bool twice, char *pass)
{
	char again[128];

	int tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (tty < 0)
		return log_fail(-ENOTTY,
				"a passphrase is needed and there is no terminal to ask: "
				"give --passphrase-file FILE or HOLDFAST_PASSPHRASE_FILE%s",
				twice ? ", or --no-passphrase to have none" : "");
	int err = ask(tty, what, pass);
	if (!err && twice) {
		char *second = sodium_malloc(PASS_CAP);

		snprintf(again, sizeof again, "%.100s, again", what);
		err = second ? ask(tty, again, second) : log_fail(-ENOMEM, "out of memory");
		if (!err && strcmp(pass, second))
			err = log_fail(-EINVAL, "the two passphrases are not the same");
		prompt_free(second);
	}
	close(tty);
	return err;
}

int prompt_pass(const char *file, const char *what, bool twice, char **out)
{
	char *pass = sodium_malloc(PASS_CAP);
	int err;

	*out = NULL;
	if (!pass)
		return log_fail(-ENOMEM, "no locked memory for the passphrase: see ulimit -l");
	file = prompt_file(file);
	err = file ? from_file(file, pass) : from_terminal(what, twice, pass);
	if (err)
		prompt_free(pass);
	else
		*out = pass;
	return err;
}
