/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/control.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "fs/json_read.h"

#define REQUEST_MS 30000 /* for a caller to say what it wants */
#define SEND_MS	   10000
#define NO_FD_MS   100 /* before a caller is accepted again */

struct conn {
	struct control *c;
	int fd; /* -1: the slot is free; guarded by control.lock */
	pthread_t thread;
	bool ended;  /* the thread can be joined; guarded by control.lock */
	bool joined; /* no thread belongs to the slot; guarded by control.lock */
	pthread_mutex_t send;
};

struct control {
	char *dir;
	int listen_fd, stop_fd;
	control_fn *handle;
	void *arg;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t room;
	bool stopping;
	struct conn conn[CONTROL_CONNS];
};

/* --- lines --- */

static int send_line(int fd, const json_t *j)
{
	char *text = json_dumps(j, JSON_COMPACT);
	int64_t end = now_ms() + SEND_MS;
	int err = 0;

	if (!text)
		return -ENOMEM;
	size_t len = strlen(text), done = 0;
	text[len++] = '\n'; /* in the place of the 0 */
	while (done < len && !err) {
		ssize_t n = send(fd, text + done, len - done, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0) {
			done += (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN) {
			err = -errno;
			break;
		}
		struct pollfd p = {fd, POLLOUT, 0};
		int64_t left = end - now_ms();
		if (left <= 0 || poll(&p, 1, (int)left) == 0)
			err = -ETIMEDOUT;
	}
	free(text);
	return err;
}

/* A line from fd; what came after it stays in *in.  0 with *j NULL where it is no JSON. */
static int recv_line(int fd, struct buf *in, int64_t deadline, json_t **j)
{
	json_error_t e;
	size_t seen = 0;

	for (;;) {
		char *nl = in->len > seen ? memchr(in->p + seen, '\n', in->len - seen) : NULL;
		if (nl) {
			size_t len = (size_t)(nl - (char *)in->p);
			*j = json_read(in->p, len, &e);
			memmove(in->p, nl + 1, in->len - len - 1);
			in->len -= len + 1;
			return 0;
		}
		seen = in->len;
		if (in->len >= CONTROL_LINE_CAP)
			return -EMSGSIZE;
		int64_t left = deadline - now_ms();
		struct pollfd p = {fd, POLLIN, 0};
		int r = left <= 0 ? 0 : poll(&p, 1, (int)HF_MIN(left, (int64_t)INT32_MAX));
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			return -ETIMEDOUT;
		uint8_t *to = buf_room(in, 4096);
		if (!to)
			return -ENOMEM;
		ssize_t n = recv(fd, to, 4096, MSG_DONTWAIT);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EPIPE;
		in->len += (size_t)n;
	}
}

/*
 * The path of a socket is at most 107 bytes long, that of a directory is not: so the socket
 * is named through a descriptor of its directory.
 */
static int sock_addr(const char *dir, struct sockaddr_un *sa, int *dir_fd)
{
	*dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*dir_fd < 0)
		return -errno;
	*sa = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(sa->sun_path, sizeof sa->sun_path, "/proc/self/fd/%d/sock", *dir_fd);
	return 0;
}

json_t *control_error(int err, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	json_t *j = json_pack("{s:b, s:i, s:s}", "ok", 0, "errno", -err, "error", text);
	/* A sentence that is not UTF-8 must not cost the answer. */
	return j ? j
		 : json_pack("{s:b, s:i, s:s}", "ok", 0, "errno", -err, "error",
			     strerror(-err));
}

/* --- the mount's side --- */

static int conn_progress(void *arg, json_t *p)
{
	struct conn *k = arg;
	json_t *line = json_pack("{s:o}", "progress", p);
	char byte;

	if (!line)
		return -ENOMEM;
	pthread_mutex_lock(&k->send);
	int err = send_line(k->fd, line);
	pthread_mutex_unlock(&k->send);
	json_decref(line);
	/* Who hung up (^C) wants no more. */
	if (!err && recv(k->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
		err = -EPIPE;
	return err;
}

static bool peer_allowed(int fd)
{
	struct ucred u;
	socklen_t len = sizeof u;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len) < 0)
		return false;
	return u.uid == geteuid() || u.uid == 0;
}

static void *conn_main(void *arg)
{
	struct conn *k = arg;
	struct control *c = k->c;
	struct buf in = {0};
	json_t *req, *answer;

	pthread_setname_np(pthread_self(), "hf-control");
	if (!peer_allowed(k->fd)) {
		json_t *no = control_error(-EACCES, "this volume belongs to another user");
		send_line(k->fd, no);
		json_decref(no);
		goto out;
	}
	while (recv_line(k->fd, &in, now_ms() + REQUEST_MS, &req) == 0) {
		if (req && json_is_object(req))
			answer = c->handle(c->arg, req, conn_progress, k);
		else
			answer = control_error(-EINVAL, "the request is no JSON object");
		json_decref(req);
		if (!answer)
			answer = control_error(-ENOMEM, "out of memory");
		int err = -ENOMEM;
		if (answer) {
			pthread_mutex_lock(&k->send);
			err = send_line(k->fd, answer);
			pthread_mutex_unlock(&k->send);
			json_decref(answer);
		}
		if (err)
			break;
	}
out:
	buf_release(&in);
	pthread_mutex_lock(&c->lock);
	close(k->fd);
	k->fd = -1;
	k->ended = true;
	pthread_cond_broadcast(&c->room);
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* Under lock: a slot without a thread, or NULL. */
static struct conn *conn_slot(struct control *c)
{
	for (size_t i = 0; i < CONTROL_CONNS; i++) {
		struct conn *k = &c->conn[i];

		if (!k->joined && k->ended) {
			/* It has nothing left to do but to return. */
			pthread_join(k->thread, NULL);
			k->joined = true;
		}
		if (k->joined)
			return k;
	}
	return NULL;
}

static void *accept_main(void *arg)
{
	struct control *c = arg;

	pthread_setname_np(pthread_self(), "hf-accept");
	for (;;) {
		struct pollfd p[2] = {{c->listen_fd, POLLIN, 0}, {c->stop_fd, POLLIN, 0}};
		struct conn *k;

		pthread_mutex_lock(&c->lock);
		while (!c->stopping && !(k = conn_slot(c)))
			pthread_cond_wait(&c->room, &c->lock);
		pthread_mutex_unlock(&c->lock);
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents)
			break;
		int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0) {
			/* Without a descriptor to be had the caller stays in the queue. */
			if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
				poll(&p[1], 1, NO_FD_MS);
			continue;
		}
		pthread_mutex_lock(&c->lock);
		k = c->stopping ? NULL : conn_slot(c);
		if (k) {
			k->fd = fd;
			k->ended = false;
			k->joined = false;
			if (pthread_create(&k->thread, NULL, conn_main, k)) {
				k->joined = true;
				k->fd = -1;
				k = NULL;
			}
		}
		pthread_mutex_unlock(&c->lock);
		if (!k)
			close(fd);
	}
	return NULL;
}

int control_start(struct control **out, const char *dir, control_fn *handle, void *arg)
{
	struct control *c = calloc(1, sizeof *c);
	struct sockaddr_un sa;
	int dir_fd = -1, err = -ENOMEM;

	if (!c)
		return log_fail(-ENOMEM, "out of memory");
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->room, NULL);
	c->handle = handle;
	c->arg = arg;
	c->listen_fd = c->stop_fd = -1;
	for (size_t i = 0; i < CONTROL_CONNS; i++) {
		c->conn[i].c = c;
		c->conn[i].fd = -1;
		c->conn[i].joined = true;
		pthread_mutex_init(&c->conn[i].send, NULL);
	}
	c->dir = strdup(dir);
	if (!c->dir)
		goto fail;
	c->stop_fd = eventfd(0, EFD_CLOEXEC);
	c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->stop_fd < 0 || c->listen_fd < 0) {
		err = -errno;
		goto fail;
	}
	err = sock_addr(dir, &sa, &dir_fd);
	if (err)
		goto fail;
	unlinkat(dir_fd, "sock", 0);
	/* Only who may enter the directory (0700) can connect even before the chmod. */
	if (bind(c->listen_fd, (struct sockaddr *)&sa, sizeof sa) < 0 ||
	    fchmodat(dir_fd, "sock", 0600, 0) < 0 || listen(c->listen_fd, 64) < 0) {
		err = -errno;
		goto fail;
	}
	err = -pthread_create(&c->thread, NULL, accept_main, c);
	if (err)
		goto fail;
	close(dir_fd);
	*out = c;
	return 0;
fail:
	if (dir_fd >= 0)
		close(dir_fd);
	if (c->listen_fd >= 0)
		close(c->listen_fd);
	if (c->stop_fd >= 0)
		close(c->stop_fd);
	free(c->dir);
	free(c);
	return log_fail(err, "the control socket %s/sock cannot be made: %s", dir,
			strerror(-err));
}

void control_stop(struct control *c)
{
	uint64_t one = 1;
	int dir_fd;

	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->stopping = true;
	pthread_cond_broadcast(&c->room);
	pthread_mutex_unlock(&c->lock);
	while (write(c->stop_fd, &one, sizeof one) < 0 && errno == EINTR)
		;
	pthread_join(c->thread, NULL);
	dir_fd = open(c->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd >= 0) {
		unlinkat(dir_fd, "sock", 0);
		close(dir_fd);
	}
	close(c->listen_fd);
	close(c->stop_fd);
	for (size_t i = 0; i < CONTROL_CONNS; i++) {
		struct conn *k = &c->conn[i];

		pthread_mutex_lock(&c->lock);
		bool join = !k->joined;
		/* The answer under way may still be sent; nothing more is read. */
		if (k->fd >= 0)
			shutdown(k->fd, SHUT_RD);
		pthread_mutex_unlock(&c->lock);
		if (join)
			pthread_join(k->thread, NULL);
		pthread_mutex_destroy(&k->send);
	}
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->room);
	free(c->dir);
	free(c);
}

/* --- the command's side --- */

static int answer_error(json_t *answer)
{
	json_int_t no = json_integer_value(json_object_get(answer, "errno"));
	const char *text = json_string_value(json_object_get(answer, "error"));
	int err = no > 0 && no < 4096 ? -(int)no : -EIO;

	return log_fail(err, "%s", text ? text : strerror(-err));
}

/* Reads lines up to the one that is the answer. */
static int await_answer(int fd, const char *dir, int timeout_ms,
			void (*progress)(void *arg, const json_t *p), void *arg,
			json_t **answer)
{
	struct buf in = {0};
	json_t *j;
	int err;

	for (;;) {
		err = recv_line(fd, &in, now_ms() + timeout_ms, &j);
		if (err == -EPIPE || err == -ECONNRESET)
			err = log_fail(-ECONNRESET,
				       "the mount ended before it answered: see %s/log", dir);
		else if (err == -ETIMEDOUT)
			err = log_fail(err, "the mount did not answer within %d s: see %s/log",
				       timeout_ms / 1000, dir);
		else if (err)
			log_fail(err, "%s/sock: %s", dir, strerror(-err));
		if (err)
			break;
		json_t *p = json_object_get(j, "progress");
		if (p) {
			if (progress)
				progress(arg, p);
			json_decref(j);
			continue;
		}
		if (json_is_true(json_object_get(j, "ok"))) {
			*answer = j;
			break;
		}
		err = j ? answer_error(j) : log_fail(-EBADMSG, "the mount's answer is no JSON");
		json_decref(j);
		break;
	}
	buf_release(&in);
	return err;
}

int control_call_progress(const char *dir, json_t *req, int timeout_ms,
			  void (*progress)(void *arg, const json_t *p), void *arg, pid_t *pid,
			  json_t **answer)
{
	struct sockaddr_un sa;
	int dir_fd, err;

	*answer = NULL;
	err = sock_addr(dir, &sa, &dir_fd);
	if (err)
		return err == -ENOTDIR ? -ENOENT : err;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		err = -errno;
	/* A full listen queue must not hold us for ever. */
	struct timeval tv = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
	if (!err && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv) < 0)
		err = -errno;
	if (!err && connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		err = errno == ECONNREFUSED ? -ENOENT : errno == EAGAIN ? -ETIMEDOUT : -errno;
	close(dir_fd);
	if (err && err != -ENOENT)
		log_fail(err, "%s/sock: %s", dir, strerror(-err));
	if (!err && pid) {
		struct ucred u;
		socklen_t len = sizeof u;

		*pid = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len) < 0 ? 0 : u.pid;
	}
	if (!err)
		err = send_line(fd, req);
	if (err == -EPIPE || err == -ECONNRESET)
		err = -ENOENT; /* it was just ending */
	if (!err)
		err = await_answer(fd, dir, timeout_ms, progress, arg, answer);
	if (fd >= 0)
		close(fd);
	return err;
}

int control_call(const char *dir, json_t *req, int timeout_ms, json_t **answer)
{
	return control_call_progress(dir, req, timeout_ms, NULL, NULL, NULL, answer);
}
