/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A TCP server on the loopback that answers byte for byte what a test says.  The n-th request
 * that comes, on whatever connection, gets the n-th act; after the last one the last again.
 */
#ifndef HOLDFAST_TESTS_SCRIPTED_H
#define HOLDFAST_TESTS_SCRIPTED_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/base.h"

enum act_end {
	ACT_KEEP,  /* the connection stays */
	ACT_CLOSE, /* closed after the answer */
	ACT_RESET, /* a TCP reset */
	ACT_HANG,  /* nothing more, and the connection stays */
};

struct act {
	const char *reply;
	enum act_end end;
	bool early;	  /* answers before it reads the body */
	unsigned drip_ms; /* between single bytes */
	unsigned huge;	  /* so many times 64 KiB of 'x' after the reply */
};

#define SC_SEEN 64

struct scripted {
	int fd;
	unsigned port;
	pthread_t thread;
	const struct act *act;
	unsigned act_cnt;
	pthread_mutex_t lock;
	/* What came: the head and the length of the body of each request. */
	unsigned cnt;
	char head[SC_SEEN][4096];
	size_t body[SC_SEEN];
	unsigned conns;
	int conn_fd[256];
	pthread_t conn[256];
	bool stop;
};

struct sc_conn {
	struct scripted *s;
	int fd;
};

static inline bool sc_send(int fd, const char *p, size_t len)
{
	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

/* Reads a head into h; false: the connection ended. */
static inline bool sc_head(int fd, char *h, size_t cap)
{
	size_t len = 0;

	while (len + 1 < cap) {
		if (recv(fd, h + len, 1, 0) <= 0)
			return false;
		h[++len] = 0;
		if (len >= 4 && !memcmp(h + len - 4, "\r\n\r\n", 4))
			return true;
	}
	return false;
}

static inline size_t sc_body(int fd, size_t want)
{
	static _Thread_local char b[65536];
	size_t got = 0;

	while (got < want) {
		ssize_t n = recv(fd, b, HF_MIN(sizeof b, want - got), 0);
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	return got;
}

static inline void *sc_serve(void *arg)
{
	struct sc_conn *c = arg;
	struct scripted *s = c->s;
	static _Thread_local char head[4096];
	bool open = true;

	while (open && sc_head(c->fd, head, sizeof head)) {
		pthread_mutex_lock(&s->lock);
		unsigned at = s->cnt++;
		struct act a = s->act[HF_MIN(at, s->act_cnt - 1)];
		snprintf(s->head[at % SC_SEEN], sizeof s->head[0], "%s", head);
		pthread_mutex_unlock(&s->lock);
		const char *cl = strcasestr(head, "\r\nContent-Length:");
		size_t want = cl ? strtoul(cl + 17, NULL, 10) : 0;
		size_t got = a.early ? 0 : sc_body(c->fd, want);
		pthread_mutex_lock(&s->lock);
		s->body[at % SC_SEEN] = got;
		pthread_mutex_unlock(&s->lock);
		if (a.drip_ms) {
			for (const char *p = a.reply; *p && open; p++) {
				open = sc_send(c->fd, p, 1);
				usleep(a.drip_ms * 1000);
			}
		} else if (a.reply) {
			open = sc_send(c->fd, a.reply, strlen(a.reply));
		}
		static const char x[65536];
		for (unsigned i = 0; i < a.huge && open; i++)
			open = sc_send(c->fd, x, sizeof x);
		if (a.end == ACT_RESET) {
			struct linger l = {1, 0};
			setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
			open = false;
		} else if (a.end == ACT_CLOSE) {
			open = false;
		} else if (a.end == ACT_HANG) {
			/* Until the other side or the test ends it. */
			struct pollfd pfd = {c->fd, POLLRDHUP, 0};
			while (poll(&pfd, 1, -1) < 0)
				;
			open = false;
		}
	}
	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < s->conns; i++)
		if (s->conn_fd[i] == c->fd)
			s->conn_fd[i] = -1;
	pthread_mutex_unlock(&s->lock);
	close(c->fd);
	free(c);
	return NULL;
}

static inline void *sc_accept(void *arg)
{
	struct scripted *s = arg;

	for (;;) {
		int fd = accept(s->fd, NULL, NULL);
		pthread_mutex_lock(&s->lock);
		if (fd < 0 || s->stop || s->conns == 256) {
			pthread_mutex_unlock(&s->lock);
			if (fd >= 0)
				close(fd);
			return NULL;
		}
		struct sc_conn *c = malloc(sizeof *c);
		*c = (struct sc_conn){s, fd};
		s->conn_fd[s->conns] = fd;
		pthread_create(&s->conn[s->conns++], NULL, sc_serve, c);
		pthread_mutex_unlock(&s->lock);
	}
}

static inline void sc_start(struct scripted *s, const struct act *act, unsigned cnt)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;

	memset(s, 0, sizeof *s);
	s->act = act;
	s->act_cnt = cnt;
	pthread_mutex_init(&s->lock, NULL);
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(s->fd >= 0);
	assert_int_equal(bind(s->fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(s->fd, 64), 0);
	assert_int_equal(getsockname(s->fd, (struct sockaddr *)&a, &len), 0);
	s->port = ntohs(a.sin_port);
	assert_int_equal(pthread_create(&s->thread, NULL, sc_accept, s), 0);
}

/* What came, of requests that were answered. */
static inline unsigned sc_cnt(struct scripted *s)
{
	pthread_mutex_lock(&s->lock);
	unsigned cnt = s->cnt;
	pthread_mutex_unlock(&s->lock);
	return cnt;
}

static inline const char *sc_seen(struct scripted *s, unsigned i)
{
	sc_cnt(s);
	return s->head[i % SC_SEEN];
}

static inline size_t sc_got(struct scripted *s, unsigned i)
{
	sc_cnt(s);
	return s->body[i % SC_SEEN];
}

static inline void sc_stop(struct scripted *s)
{
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	for (unsigned i = 0; i < s->conns; i++)
		if (s->conn_fd[i] >= 0)
			shutdown(s->conn_fd[i], SHUT_RDWR);
	pthread_mutex_unlock(&s->lock);
	shutdown(s->fd, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	close(s->fd);
	for (unsigned i = 0; i < s->conns; i++)
		pthread_join(s->conn[i], NULL);
	pthread_mutex_destroy(&s->lock);
}

#endif
