/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/interrupt.h"

#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#define BIT(sig) (1ull << ((sig) - 1))
#define WISH	 (BIT(SIGINT) | BIT(SIGHUP) | BIT(SIGTERM) | BIT(SIGQUIT))

void interrupts_init(struct interrupts *all)
{
	*all = (struct interrupts){0};
	pthread_mutex_init(&all->lock, NULL);
}

void interrupts_release(struct interrupts *all)
{
	pthread_mutex_destroy(&all->lock);
}

void interrupts_stop(struct interrupts *all, bool stop)
{
	pthread_mutex_lock(&all->lock);
	all->stop = stop;
	for (struct interrupt *i = all->first; i && stop; i = i->next)
		giveup_now(&i->g, -ECANCELED);
	pthread_mutex_unlock(&all->lock);
}

static uint64_t mask_of(const char *text, const char *key)
{
	const char *at = strstr(text, key);

	return at ? strtoull(at + strlen(key), NULL, 16) : 0;
}

/* Is the thread about to die, or to be told to end?  true where nobody can know. */
static bool to_end(pid_t tid, bool read_only)
{
	char path[40], text[4096];

	snprintf(path, sizeof path, "/proc/%d/status", (int)tid);
	int fd = tid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return true;
	text[n] = 0;
	uint64_t own = mask_of(text, "\nSigPnd:"), all = own | mask_of(text, "\nShdPnd:");
	/* A signal that ends all threads is there as a SIGKILL of each. */
	if (all & BIT(SIGKILL))
		return true;
	all &= WISH & ~mask_of(text, "\nSigBlk:") & ~mask_of(text, "\nSigIgn:");
	/* What remains of them without a handler is a SIGQUIT that writes a core first. */
	return all && (!read_only || !(all & mask_of(text, "\nSigCgt:")));
}

/* Called by libfuse, which holds its lock of the request. */
static void on_interrupt(fuse_req_t req, void *data)
{
	struct interrupt *i = data;

	if (to_end(fuse_req_ctx(req)->pid, i->read))
		giveup_now(&i->g, -EINTR);
}

static void arm(struct giveup *g)
{
	struct interrupt *i = (struct interrupt *)((char *)g - offsetof(struct interrupt, g));

	pthread_mutex_lock(&i->all->lock);
	i->next = i->all->first;
	i->at = &i->all->first;
	if (i->next)
		i->next->at = &i->next;
	i->all->first = i;
	bool stop = i->all->stop;
	pthread_mutex_unlock(&i->all->lock);
	if (stop)
		giveup_now(g, -ECANCELED);
	/* It is called at once when the interrupt came before. */
	fuse_req_interrupt_func(i->req, on_interrupt, i);
}

void interrupt_begin(struct interrupt *i, struct interrupts *all, struct fuse_req *req,
		     bool read)
{
	giveup_init(&i->g, arm);
	i->all = all;
	i->req = req;
	i->read = read;
	giveup_set(&i->g);
}

void interrupt_end(struct interrupt *i)
{
	giveup_set(NULL);
	if (i->g.armed) {
		fuse_req_interrupt_func(i->req, NULL, NULL);
		pthread_mutex_lock(&i->all->lock);
		*i->at = i->next;
		if (i->next)
			i->next->at = i->at;
		pthread_mutex_unlock(&i->all->lock);
	}
	giveup_release(&i->g);
}
