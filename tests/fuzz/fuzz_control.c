/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What comes over the control socket.  The first byte says at which end the rest arrives: at
 * the mount, as requests, or at the command line, as progress and answers.
 */
#include "fs/control.c"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

static volatile json_int_t sink;

/* Looks at a request as the mount does, and answers with some of it. */
static json_t *handle(void *arg, const json_t *req, int (*progress)(void *conn, json_t *p),
		      void *conn)
{
	const char *cmd = json_string_value(json_object_get(req, "cmd"));

	(void)arg;
	sink += json_integer_value(json_object_get(req, "timeout_ms"));
	sink += json_is_true(json_object_get(req, "now"));
	if (!cmd)
		return control_error(-EINVAL, "the request has no \"cmd\"");
	if (!strcmp(cmd, "fsck") && progress(conn, json_pack("{s:s}", "what", cmd)))
		return NULL;
	return control_error(-EINVAL, "\"%s\" is no command", cmd);
}

static void seen(void *arg, const json_t *p)
{
	(void)arg;
	sink += json_integer_value(json_object_get(p, "done"));
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	int fd[2], room = 1 << 20;

	log_set_quiet(true);
	log_set_level(LOG_LVL_ERROR);
	/* Everything has to fit into the socket, because nobody reads at the same time. */
	if (!len || len > 4096 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0)
		return 0;
	setsockopt(fd[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	if (send(fd[0], p + 1, len - 1, MSG_NOSIGNAL) == (ssize_t)(len - 1) &&
	    shutdown(fd[0], SHUT_WR) == 0) {
		if (p[0] & 1) {
			struct control c = {.handle = handle,
					    .lock = PTHREAD_MUTEX_INITIALIZER,
					    .room = PTHREAD_COND_INITIALIZER};
			struct conn k = {
				.c = &c, .fd = fd[1], .send = PTHREAD_MUTEX_INITIALIZER};

			conn_main(&k); /* which closes its end */
			if (k.fd != -1 || !k.ended)
				abort();
			fd[1] = -1;
		} else {
			json_t *answer = NULL;

			int err = await_answer(fd[1], "x", 1000, seen, NULL, &answer);
			if (!err != !!answer)
				abort();
			json_decref(answer);
		}
	}
	close(fd[0]);
	if (fd[1] >= 0)
		close(fd[1]);
	return 0;
}
