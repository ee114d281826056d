/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "fs/cmd.h"
#include "fs/control.h"

static char dir[256];
static _Atomic int calls;

static json_t *handle(void *arg, const json_t *req, int (*progress)(void *conn, json_t *p),
		      void *conn)
{
	const char *cmd = json_string_value(json_object_get(req, "cmd"));

	assert_ptr_equal(arg, dir);
	calls++;
	if (!cmd)
		return control_error(-EINVAL, "no cmd");
	if (!strcmp(cmd, "slow")) {
		for (int i = 0; i < 3; i++)
			if (progress(conn, json_integer(i)))
				return NULL;
		return json_pack("{s:b, s:i}", "ok", 1, "n", 3);
	}
	if (!strcmp(cmd, "big")) {
		char *big = malloc(1000001);

		memset(big, 'x', 1000000);
		big[1000000] = 0;
		json_t *j = json_pack("{s:b, s:s}", "ok", 1, "big", big);
		free(big);
		return j;
	}
	if (!strcmp(cmd, "bad"))
		return control_error(-ENOSPC, "no %s left", "room");
	return json_pack("{s:b}", "ok", 1);
}

static int call(const char *cmd, json_t **answer, void (*progress)(void *, const json_t *),
		void *arg)
{
	json_t *req = json_pack("{s:s}", "cmd", cmd);
	pid_t pid;

	int err = control_call_progress(dir, req, 5000, progress, arg, &pid, answer);
	if (!err)
		assert_int_equal(pid, getpid());
	json_decref(req);
	return err;
}

static void count(void *arg, const json_t *p)
{
	int *n = arg;

	assert_int_equal(json_integer_value(p), *n);
	++*n;
}

static void answers(void **state)
{
	struct control *c;
	json_t *a;
	struct stat st;
	char sock[300];
	int n = 0;

	(void)state;
	assert_int_equal(call("ping", &a, NULL, NULL), -ENOENT);
	assert_int_equal(control_start(&c, dir, handle, dir), 0);
	snprintf(sock, sizeof sock, "%s/sock", dir);
	assert_int_equal(stat(sock, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(call("ping", &a, NULL, NULL), 0);
	json_decref(a);
	assert_int_equal(call("slow", &a, count, &n), 0);
	assert_int_equal(n, 3);
	assert_int_equal(json_integer_value(json_object_get(a, "n")), 3);
	json_decref(a);
	assert_int_equal(call("big", &a, NULL, NULL), 0);
	assert_int_equal(json_string_length(json_object_get(a, "big")), 1000000);
	json_decref(a);
	assert_int_equal(call("bad", &a, NULL, NULL), -ENOSPC);
	assert_null(a);
	assert_string_equal(log_last(), "no room left");
	control_stop(c);
	assert_int_equal(stat(sock, &st), -1);
	assert_int_equal(call("ping", &a, NULL, NULL), -ENOENT);
	/* A socket that a killed mount left behind. */
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	assert_int_equal(chdir(dir), 0);
	strcpy(sa.sun_path, "sock");
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	close(fd);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(call("ping", &a, NULL, NULL), -ENOENT);
	assert_int_equal(control_start(&c, dir, handle, dir), 0);
	assert_int_equal(call("ping", &a, NULL, NULL), 0);
	json_decref(a);
	control_stop(c);
}

static void *caller(void *arg)
{
	(void)arg;
	for (int i = 0; i < 20; i++) {
		json_t *a;

		if (call("ping", &a, NULL, NULL))
			return "failed";
		json_decref(a);
	}
	return NULL;
}

/* More callers than threads, and idle ones that only hold a connection. */
static void many(void **state)
{
	pthread_t t[CONTROL_CONNS + 8];
	struct control *c;
	void *bad;
	int idle[4];

	(void)state;
	assert_int_equal(control_start(&c, dir, handle, dir), 0);
	for (size_t i = 0; i < 4; i++) {
		struct sockaddr_un sa = {.sun_family = AF_UNIX};

		idle[i] = socket(AF_UNIX, SOCK_STREAM, 0);
		assert_int_equal(chdir(dir), 0);
		strcpy(sa.sun_path, "sock");
		assert_int_equal(connect(idle[i], (struct sockaddr *)&sa, sizeof sa), 0);
		assert_int_equal(chdir("/"), 0);
	}
	/* No object, no newline, nothing at all: none of it may hurt. */
	assert_int_equal(send(idle[0], "[1]\n", 4, 0), 4);
	assert_int_equal(send(idle[1], "{\"cmd\":", 7, 0), 7);
	assert_int_equal(send(idle[2], "\xff\n", 2, 0), 2);
	/* What follows a zero byte is part of the line. */
	char said[200] = "";
	assert_int_equal(send(idle[3], "{\"cmd\":\"ping\"}\0x\n", 17, 0), 17);
	assert_true(recv(idle[3], said, sizeof said - 1, 0) > 0);
	assert_non_null(strstr(said, "no JSON object"));
	calls = 0;
	for (size_t i = 0; i < sizeof t / sizeof *t; i++)
		assert_int_equal(pthread_create(&t[i], NULL, caller, NULL), 0);
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		pthread_join(t[i], &bad);
		assert_null(bad);
	}
	assert_int_equal(calls, 20 * (CONTROL_CONNS + 8));
	/* Idle connections do not hold it back. */
	int64_t before = now_ms();
	control_stop(c);
	/* They have half a minute to say what they want. */
	assert_true(now_ms() - before < 15000);
	for (size_t i = 0; i < 4; i++)
		close(idle[i]);
}

static int setup(void **state)
{
	(void)state;
	log_set_quiet(true);
	/* Longer than a socket's path may be. */
	strcpy(dir, "/tmp/test_control.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	*state = strdup(dir);
	memset(dir + strlen(dir), '/', 1);
	memset(dir + 25, 'd', 150);
	return mkdir(dir, 0700);
}

static int teardown(void **state)
{
	int err = cmd_remove_tree(*state);

	free(*state);
	return err;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(answers), cmocka_unit_test(many)};

	return cmocka_run_group_tests(tests, setup, teardown);
}
