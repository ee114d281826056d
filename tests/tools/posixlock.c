/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * posixlock DIR [GROUP]...: locks between processes and between open files, and two processes
 * at one file.  A native file system passes all of it; see posix.c.
 */
#include <poll.h>
#include <sys/file.h>
#include "tests/tools/check.h"

static int flocked(const char *path, int how)
{
	int fd = open(path, O_RDWR), r = flock(fd, how | LOCK_NB), e = errno;

	close(fd);
	errno = e;
	return r;
}
static int locked(int fd, int cmd, int type, off_t at, off_t len)
{
	return fcntl(fd, cmd,
		     &(struct flock){.l_type = (short)type,
				     .l_whence = SEEK_SET,
				     .l_start = at,
				     .l_len = len});
}

/* Until the process sleeps: in the call that it said it would make next. */
static void asleep(pid_t pid)
{
	char path[64], state = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	for (int i = 0; i < 6000 && state != 'S'; i++) {
		FILE *f = fopen(path, "r");

		if (!f || fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			state = 0;
		if (f)
			fclose(f);
		nap_ms(10);
	}
	EQ('S', state);
}

/* The other process waits in `block` until this one lets go. */
static void wakes_up(int fd, int (*block)(void), void (*release)(int fd))
{
	int ends[2];
	char b;

	OK(pipe(ends));
	pid_t pid = fork();
	if (!pid) {
		alarm(120);
		EQ(1, write(ends[1], "a", 1));
		OK(block());
		EQ(1, write(ends[1], "b", 1));
		_exit(0);
	}
	EQ(1, read(ends[0], &b, 1));
	struct pollfd p = {.fd = ends[0], .events = POLLIN};
	EQ(0, poll(&p, 1, 200));
	release(fd);
	EQ(1, poll(&p, 1, 60000));
	child_end(pid);
	close(ends[0]);
	close(ends[1]);
}
static int block_flock(void)
{
	return flock(open("f", O_RDWR), LOCK_EX);
}
static void release_flock(int fd)
{
	OK(flock(fd, LOCK_UN));
}
static int block_fcntl(void)
{
	return locked(open("f", O_RDWR), F_SETLKW, F_WRLCK, 10, 10);
}
static void release_fcntl(int fd)
{
	OK(locked(fd, F_SETLK, F_UNLCK, 0, 0));
}

static void locks(void)
{
	touch("f");
	int fd = FD(open("f", O_RDWR)), again = FD(open("f", O_RDWR));

	/* flock belongs to the open file. */
	OK(flock(fd, LOCK_EX));
	FAILS(EWOULDBLOCK, flock(again, LOCK_EX | LOCK_NB));
	FAILS(EWOULDBLOCK, flock(again, LOCK_SH | LOCK_NB));
	if (child()) {
		FAILS(EWOULDBLOCK, flocked("f", LOCK_EX));
		OK(flock(fd, LOCK_EX | LOCK_NB));
		_exit(0);
	}
	OK(flock(fd, LOCK_SH));
	OK(flock(again, LOCK_SH | LOCK_NB));
	FAILS(EWOULDBLOCK, flocked("f", LOCK_EX));
	OK(flock(again, LOCK_UN));
	OK(flock(fd, LOCK_EX));
	wakes_up(fd, block_flock, release_flock);
	OK(flock(fd, LOCK_EX));
	OK(close(fd));
	OK(flocked("f", LOCK_EX));
	if (child()) {
		OK(flock(open("f", O_RDWR), LOCK_EX));
		_exit(0);
	}
	OK(flocked("f", LOCK_EX));
	FAILS(EINVAL, flock(again, 0));

	/* fcntl's belong to the process and to bytes, and go with any close of the file. */
	fd = FD(open("f", O_RDWR));
	OK(locked(fd, F_SETLK, F_WRLCK, 10, 10));
	OK(locked(again, F_SETLK, F_WRLCK, 15, 1));
	if (child()) {
		int o = FD(open("f", O_RDWR));
		struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0};

		FAILS2(EAGAIN, EACCES, locked(o, F_SETLK, F_WRLCK, 19, 5));
		FAILS2(EAGAIN, EACCES, locked(o, F_SETLK, F_RDLCK, 0, 0));
		OK(locked(o, F_SETLK, F_WRLCK, 20, 0));
		OK(locked(o, F_SETLK, F_WRLCK, 0, 10));
		OK(fcntl(o, F_GETLK, &l));
		EQ(F_WRLCK, l.l_type);
		EQ(getppid(), l.l_pid);
		EQ(10, l.l_start);
		EQ(10, l.l_len);
		FAILS(EBADF, locked(open("f", O_RDONLY), F_SETLK, F_WRLCK, 0, 1));
		FAILS(EBADF, locked(open("f", O_WRONLY), F_SETLK, F_RDLCK, 0, 1));
		_exit(0);
	}
	OK(locked(fd, F_SETLK, F_UNLCK, 12, 2));
	if (child()) {
		int o = FD(open("f", O_RDWR));

		OK(locked(o, F_SETLK, F_WRLCK, 12, 2));
		FAILS2(EAGAIN, EACCES, locked(o, F_SETLK, F_WRLCK, 12, 3));
		_exit(0);
	}
	OK(locked(fd, F_SETLK, F_RDLCK, 0, 0));
	if (child()) {
		int o = FD(open("f", O_RDWR));

		OK(locked(o, F_SETLK, F_RDLCK, 0, 0));
		FAILS2(EAGAIN, EACCES, locked(o, F_SETLK, F_WRLCK, 5, 1));
		_exit(0);
	}
	OK(locked(fd, F_SETLK, F_WRLCK, 0, 0));
	wakes_up(fd, block_fcntl, release_fcntl);
	OK(locked(fd, F_SETLK, F_WRLCK, 0, 0));
	OK(close(again));
	if (child()) {
		OK(locked(open("f", O_RDWR), F_SETLK, F_WRLCK, 0, 0));
		_exit(0);
	}

	/* Two that wait for each other: one is told. */
	int ends[2];
	char b;
	OK(pipe(ends));
	OK(locked(fd, F_SETLK, F_WRLCK, 0, 1));
	pid_t pid = fork();
	if (!pid) {
		int o = FD(open("f", O_RDWR));

		alarm(120);
		OK(locked(o, F_SETLK, F_WRLCK, 1, 1));
		EQ(1, write(ends[1], "a", 1));
		OK(locked(o, F_SETLKW, F_WRLCK, 0, 1));
		_exit(0);
	}
	EQ(1, read(ends[0], &b, 1));
	asleep(pid);
	FAILS(EDEADLK, locked(fd, F_SETLKW, F_WRLCK, 1, 1));
	OK(locked(fd, F_SETLK, F_UNLCK, 0, 0));
	child_end(pid);

	/* Locks of open files conflict within a process, and with the others. */
	again = FD(open("f", O_RDWR));
	OK(locked(fd, F_OFD_SETLK, F_WRLCK, 0, 10));
	FAILS2(EAGAIN, EACCES, locked(again, F_OFD_SETLK, F_WRLCK, 5, 1));
	FAILS2(EAGAIN, EACCES, locked(again, F_SETLK, F_WRLCK, 5, 1));
	OK(locked(again, F_OFD_SETLK, F_WRLCK, 10, 1));
	OK(close(open("f", O_RDONLY)));
	FAILS2(EAGAIN, EACCES, locked(again, F_OFD_SETLK, F_RDLCK, 5, 1));
	OK(close(fd));
	OK(locked(again, F_OFD_SETLK, F_WRLCK, 0, 0));
	/* A waiter that gets a signal is let go. */
	pid = fork();
	if (!pid) {
		int o = FD(open("f", O_RDWR));

		signal(SIGUSR1, SIG_DFL);
		EQ(1, write(ends[1], "a", 1));
		locked(o, F_SETLKW, F_WRLCK, 0, 0);
		_exit(0);
	}
	EQ(1, read(ends[0], &b, 1));
	asleep(pid);
	OK(kill(pid, SIGUSR1));
	int status = 0;
	EQ(pid, waitpid(pid, &status, 0));
	IS(WIFSIGNALED(status));
	OK(close(again));
}

/* Two processes at one file: what one has written, the other reads. */
static void together(void)
{
	int fd = FD(open("f", O_RDWR | O_CREAT, 0644)), to[2], from[2];
	char b;

	OK(pipe(to));
	OK(pipe(from));
	pid_t pid = fork();
	if (!pid) {
		int c = FD(open("f", O_RDWR));

		for (unsigned i = 0; i < 200; i++) {
			uint8_t w[1000];

			EQ(1, read(to[0], &b, 1));
			EQ(1000, pread(c, w, 1000, i * 700));
			IS(w[0] == (uint8_t)i && w[999] == (uint8_t)i);
			EQ((i * 700) + 1000, stat_of("f").st_size);
			memset(w, (int)i + 1, sizeof(w));
			EQ(300, pwrite(c, w, 300, i * 700 + 700));
			EQ(1, write(from[1], "x", 1));
		}
		_exit(0);
	}
	for (unsigned i = 0; i < 200; i++) {
		uint8_t w[1000];

		memset(w, (int)i, sizeof(w));
		EQ(1000, pwrite(fd, w, 1000, i * 700));
		EQ(1, write(to[1], "x", 1));
		EQ(1, read(from[0], &b, 1));
		EQ(300, pread(fd, w, 500, i * 700 + 700));
		IS(w[0] == (uint8_t)(i + 1));
	}
	child_end(pid);
}

int main(int argc, char **argv)
{
	static const struct checks groups[] = {
		{"locks", locks, false},
		{"together", together, false},
		{NULL, NULL, false},
	};

	return check_main(argc, argv, groups);
}
