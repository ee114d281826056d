/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * linkd: links between network namespaces with latency, jitter, a rate, loss and holes, for
 * kernels without sch_netem.
 *
 *	linkd run CONTROL NETNS NAME=NETNS...	one link for each NAME
 *	linkd set CONTROL NAME key=value...	delay= jitter= (ms, one way) rate= (Mbit/s, 0:
 *						any) loss= (per cent) hole=0|1|out|back
 *
 * A link is a pair of TUN devices: NAME in the first namespace (the near end) and "up0" in
 * its own.  A packet that comes out of one is given into the other when it is due.  Each
 * direction is a queue in order of arrival: a packet leaves when those before it have left
 * and its own bits have been sent at the rate, and is there `delay` later.  What would wait
 * for more than QUEUE_MS is dropped, as a router does.  A hole swallows all packets: of both
 * ways, of those that leave the near end (out), or of those that come to it (back).
 *
 * The devices live as long as the process.  One thread.  CONTROL is a datagram socket.
 */
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "net/base.h"

#define LINKS_MAX  64
#define PACKET_MAX 66000
#define QUEUE_MS   200
#define BURST	   64

struct packet {
	struct packet *next;
	int64_t due_ns;
	size_t len;
	uint8_t p[];
};

struct way {
	int in, out;
	bool hole;
	struct packet *head, **tail;
	int64_t free_ns, last_ns; /* when the line is free; when the last packet is due */
};

static struct link {
	const char *name;
	struct way way[2];
	double delay_ms, jitter_ms, rate, loss; /* rate: bytes in a nanosecond, 0 any */
} linkv[LINKS_MAX];
static unsigned link_cnt;
static volatile sig_atomic_t stopped;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void on_term(int sig)
{
	(void)sig;
	stopped = 1;
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int tun_open(const char *netns, const char *name)
{
	struct ifreq ifr = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
	char path[256];

	snprintf(path, sizeof path, "/run/netns/%s", netns);
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int there = open(path, O_RDONLY | O_CLOEXEC);
	if (home < 0 || there < 0 || setns(there, CLONE_NEWNET))
		die(path);
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", name);
	/* Segments of 64 KiB: what is measured is not how fast this program copies. */
	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) ||
	    ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4))
		die("/dev/net/tun");
	if (setns(home, CLONE_NEWNET))
		die("setns");
	close(there);
	close(home);
	return fd;
}

/* What the packet is on the line, with the headers of each of its segments. */
static size_t line_len(const uint8_t *p, size_t len)
{
	const struct virtio_net_hdr *h = (const void *)p;
	size_t payload = len - sizeof *h;

	if (h->gso_type == VIRTIO_NET_HDR_GSO_NONE || !h->gso_size)
		return payload;
	return payload + payload / h->gso_size * h->hdr_len;
}

static void take(struct link *l, struct way *w)
{
	static uint8_t buf[PACKET_MAX];

	for (int i = 0; i < BURST; i++) {
		ssize_t n = read(w->in, buf, sizeof buf);
		if (n < (ssize_t)sizeof(struct virtio_net_hdr))
			return;
		int64_t t = now_ns(), start = HF_MAX(w->free_ns, t);
		if (w->hole || (l->loss > 0 && drand48() * 100 < l->loss) ||
		    start - t > (int64_t)QUEUE_MS * 1000000)
			continue;
		struct packet *p = malloc(sizeof *p + (size_t)n);
		if (!p)
			continue;
		if (l->rate > 0)
			w->free_ns = start + (int64_t)((double)line_len(buf, (size_t)n) / l->rate);
		double ms = l->delay_ms + (l->jitter_ms > 0 ? drand48() * l->jitter_ms : 0);
		int64_t due = (l->rate > 0 ? w->free_ns : t) + (int64_t)(ms * 1e6);
		*p = (struct packet){.due_ns = HF_MAX(due, w->last_ns), .len = (size_t)n};
		w->last_ns = p->due_ns;
		memcpy(p->p, buf, (size_t)n);
		*w->tail = p;
		w->tail = &p->next;
	}
}

/* Gives what is due; when the next is, or INT64_MAX. */
static int64_t give(struct way *w)
{
	struct packet *p;

	while ((p = w->head) && p->due_ns <= now_ns()) {
		/* A device that takes no more is a full queue: lost. */
		if (write(w->out, p->p, p->len) < 0 && errno != EAGAIN && errno != EIO)
			perror("linkd: write");
		w->head = p->next;
		if (!w->head)
			w->tail = &w->head;
		free(p);
	}
	return p ? p->due_ns : INT64_MAX;
}

static bool set_one(struct link *l, const char *kv)
{
	const char *v = strchr(kv, '=');
	double x = v ? strtod(v + 1, NULL) : 0;

	if (!v)
		return false;
	if (!strncmp(kv, "delay=", 6))
		l->delay_ms = x;
	else if (!strncmp(kv, "jitter=", 7))
		l->jitter_ms = x;
	else if (!strncmp(kv, "rate=", 5))
		l->rate = x / 8000;
	else if (!strncmp(kv, "loss=", 5))
		l->loss = x;
	else if (!strncmp(kv, "hole=", 5)) {
		l->way[0].hole = x > 0 || !strcmp(v + 1, "out");
		l->way[1].hole = x > 0 || !strcmp(v + 1, "back");
	} else
		return false;
	return true;
}

static void order(int sock)
{
	char cmd[512], *save, *name, *kv;
	struct sockaddr_un from;
	socklen_t from_len = sizeof from;
	ssize_t n = recvfrom(sock, cmd, sizeof cmd - 1, 0, (struct sockaddr *)&from, &from_len);
	char ok = 0;

	if (n <= 0)
		return;
	cmd[n] = 0;
	name = strtok_r(cmd, " ", &save);
	for (unsigned i = 0; name && i < link_cnt; i++) {
		if (strcmp(linkv[i].name, name) != 0)
			continue;
		ok = 1;
		while ((kv = strtok_r(NULL, " ", &save)))
			ok = ok && set_one(&linkv[i], kv);
	}
	sendto(sock, &ok, 1, 0, (struct sockaddr *)&from, from_len);
}

static int control(const char *path, bool serve)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	if (serve)
		unlink(path);
	if (s < 0 || (serve ? bind(s, (struct sockaddr *)&a, sizeof a)
			    : connect(s, (struct sockaddr *)&a, sizeof a)))
		die(path);
	return s;
}

static int set(int argc, char **argv)
{
	struct sockaddr_un any = {.sun_family = AF_UNIX};
	struct timeval tv = {.tv_sec = 5};
	char cmd[512] = "", ok = 0;
	int s = control(argv[2], false);

	for (int i = 3; i < argc; i++) {
		size_t at = strlen(cmd);
		snprintf(cmd + at, sizeof cmd - at, "%s%s", at ? " " : "", argv[i]);
	}
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	if (bind(s, (struct sockaddr *)&any, sizeof(sa_family_t)) ||
	    send(s, cmd, strlen(cmd), 0) < 0 || recv(s, &ok, 1, 0) < 0)
		die(argv[2]);
	if (!ok)
		fprintf(stderr, "linkd: no such link or key: %s\n", cmd);
	return ok ? 0 : 1;
}

static int run(int argc, char **argv)
{
	struct pollfd fd[1 + 2 * LINKS_MAX];
	struct sigaction sa = {.sa_handler = on_term};

	for (int i = 4; i < argc && link_cnt < LINKS_MAX; i++, link_cnt++) {
		struct link *l = &linkv[link_cnt];
		char *eq = strchr(argv[i], '=');
		if (!eq)
			return fprintf(stderr, "linkd: NAME=NETNS, not %s\n", argv[i]), 2;
		*eq = 0;
		l->name = argv[i];
		int near = tun_open(argv[3], l->name), far = tun_open(eq + 1, "up0");
		l->way[0] = (struct way){.in = near, .out = far, .tail = &l->way[0].head};
		l->way[1] = (struct way){.in = far, .out = near, .tail = &l->way[1].head};
		fd[1 + 2 * link_cnt] = (struct pollfd){near, POLLIN, 0};
		fd[2 + 2 * link_cnt] = (struct pollfd){far, POLLIN, 0};
	}
	fd[0] = (struct pollfd){control(argv[2], true), POLLIN, 0};
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	prctl(PR_SET_TIMERSLACK, 1);
	srand48(1);
	puts("ready");
	fflush(stdout);
	for (int64_t next = INT64_MAX; !stopped;) {
		int64_t left = next == INT64_MAX ? 1000000000 : next - now_ns();
		struct timespec ts = {.tv_sec = HF_MAX(left, (int64_t)0) / 1000000000,
				      .tv_nsec = HF_MAX(left, (int64_t)0) % 1000000000};
		int n = ppoll(fd, 1 + 2 * link_cnt, &ts, NULL);
		for (unsigned i = 0; n > 0 && i < 2 * link_cnt; i++)
			if (fd[1 + i].revents)
				take(&linkv[i / 2], &linkv[i / 2].way[i % 2]);
		if (n > 0 && fd[0].revents)
			order(fd[0].fd);
		next = INT64_MAX;
		for (unsigned i = 0; i < 2 * link_cnt; i++) {
			int64_t due = give(&linkv[i / 2].way[i % 2]);
			next = HF_MIN(next, due);
		}
	}
	unlink(argv[2]);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc >= 5 && !strcmp(argv[1], "run"))
		return run(argc, argv);
	if (argc >= 5 && !strcmp(argv[1], "set"))
		return set(argc, argv);
	fprintf(stderr, "usage: linkd run CONTROL NETNS NAME=NETNS... | set CONTROL NAME k=v...\n");
	return 2;
}
