/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "fs/drive.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "cache/member.h"
#include "cache/data.h"
#include "fs/cmd.h"
#include "fs/prompt.h"
#include "fs/secrets.h"

#define SLICE_MS	 2000
#define IDLE_MS		 60000
#define IDLE_NO_NODES_MS 10000
#define FSYNC_MS	 60000
#define LOCK_S		 5

/* Who can read a key file without passphrase can read the drive. */
static void warn_of_mode(const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0 && st.st_mode & 077)
		fprintf(stderr,
			"holdfast: warning: the key file %s can be read by others: chmod 600\n",
			path);
}

static int keys_unusable(const char *path, int err)
{
	return log_fail(err,
			"the key file %s cannot be used: %s: bring the volume here anew with "
			"holdfast recover and its kit",
			path,
			err == -ENOTSUP	  ? "it is of a newer version"
			: err == -EBADMSG ? "it is damaged"
					  : strerror(-err));
}

int drive_keys(const struct config *cfg, const char *pass_file, struct keys **out)
{
	char *path = config_file(cfg, "keys"), *pass = NULL, what[128];
	int err = 0;

	*out = NULL;
	if (!path)
		return log_fail(-ENOMEM, "out of memory");
	int needs = keys_needs_pass(path);
	if (needs < 0)
		err = keys_unusable(path, needs);
	if (!needs)
		warn_of_mode(path);
	if (needs == 1) {
		snprintf(what, sizeof what, "Passphrase of %s", cfg->name);
		err = prompt_pass(pass_file, what, false, &pass);
	}
	if (!err) {
		err = keys_load(out, path, pass);
		if (err == -EACCES)
			log_fail(err, "the passphrase is not that of %s on this machine",
				 cfg->name);
		else if (err)
			keys_unusable(path, err);
	}
	prompt_free(pass);
	free(path);
	if (!err &&
	    (memcmp(keys_vol(*out), cfg->vol, VOL_LEN) || keys_device(*out) != cfg->device)) {
		keys_free(*out);
		*out = NULL;
		err = log_fail(-EBADMSG,
			       "%s/keys and %s/volume.json are not of one volume and device: "
			       "was one of them copied here?",
			       cfg->dir, cfg->dir);
	}
	return err;
}

/* Any thread: a node came or went. */
static void node_changed(void *arg)
{
	struct drive *d = arg;

	pthread_mutex_lock(&d->lock);
	if (d->pub)
		publish_poke(d->pub);
	pthread_mutex_unlock(&d->lock);
}

static void *verify_main(void *arg)
{
	struct drive *d = arg;

	volume_verify(d->vol, now_ms() + d->verify_ms);
	node_changed(d);
	return NULL;
}

static void on_alarm(int sig)
{
	(void)sig;
}

/*
 * A command that looks at a volume has its lock for a moment: that must not make a mount
 * fail.  Waits until nobody has it, for a few seconds at most; store_open then takes it.
 */
static void wait_for_lock(const struct config *cfg)
{
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM};
	/* Again and again, as the first may come before flock begins. */
	struct itimerspec ts = {.it_value.tv_sec = LOCK_S, .it_interval.tv_nsec = 100000000};
	struct sigaction sa = {.sa_handler = on_alarm}, old; /* without SA_RESTART */
	char *path = config_file(cfg, "lock");
	timer_t timer;

	int fd = path ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
	free(path);
	if (fd < 0)
		return;
	ev._sigev_un._tid = gettid();
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 &&
	    timer_create(CLOCK_MONOTONIC, &ev, &timer) == 0) {
		sigaction(SIGALRM, &sa, &old);
		timer_settime(timer, 0, &ts, NULL);
		(void)!flock(fd, LOCK_EX);
		timer_delete(timer);
		sigaction(SIGALRM, &old, NULL);
	}
	close(fd);
}

/* A new one in its place would show an empty drive.  While create works none is there yet. */
static bool database_missing(const struct config *cfg)
{
	char *json = config_file(cfg, "volume.json"), *db = config_file(cfg, "meta.db");
	bool missing = json && db && access(json, F_OK) == 0 && access(db, F_OK) < 0 &&
		       errno == ENOENT;

	free(json);
	free(db);
	return missing;
}

/*
 * volume.json over the rows: an address that was changed there holds, which nodes there are
 * is what the rows say.  save: the file is to say so too.
 */
static int sync_nodes(struct store *st, struct config *cfg, bool save)
{
	struct node_spec *list;
	size_t cnt, kept = 0;
	int err = member_list(st, &list, &cnt);

	for (size_t i = 0; i < cnt && !err; i++) {
		for (size_t j = 0; j < cfg->node_cnt; j++)
			if (cfg->node[j].number == list[i].number) {
				free(list[i].url);
				list[i].url = strdup(cfg->node[j].url);
				if (!list[i].url)
					err = -ENOMEM;
			}
		if (list[i].member == NODE_GONE)
			free(list[i].url);
		else
			list[kept++] = list[i];
	}
	bool same = kept == cfg->node_cnt;
	for (size_t i = 0; i < kept && same; i++) {
		bool there = false;

		for (size_t j = 0; j < kept; j++)
			there |= cfg->node[j].number == list[i].number;
		same = there;
	}
	/* A database without rows has not been opened with its keys yet. */
	if (!err && cnt && !same) {
		err = config_set_nodes(cfg, list, kept);
		if (!err && save)
			err = config_save(cfg);
	}
	member_list_free(list, err ? 0 : kept);
	return err;
}

/* The mend thread: nodes came or went for good. */
static void members_changed(void *arg)
{
	struct drive *d = arg;

	pthread_mutex_lock(&d->lock);
	/* The rows hold in any case: the next start writes the file. */
	sync_nodes(d->st, d->cfg, true);
	pthread_mutex_unlock(&d->lock);
}

int drive_open(struct drive **out, struct config *cfg, struct keys *keys,
	       const struct store_opts *so)
{
	struct drive *d = calloc(1, sizeof *d);
	struct store_opts mine = *so;
	struct creds *creds = NULL;
	struct node_spec *spec = NULL;
	size_t spec_cnt = 0;

	if (!d) {
		keys_free(keys);
		config_free(cfg);
		return log_fail(-ENOMEM, "out of memory");
	}
	d->cfg = cfg;
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->idle, NULL);
	mine.dir = cfg->dir;
	int64_t until = now_ms() + LOCK_S * 1000;
	int err;

	/* The next command may be faster than we are, once the lock is free. */
	do {
		wait_for_lock(cfg);
		err = database_missing(cfg) ? -EBADMSG : store_open(&d->st, &mine);
	} while (err == -EBUSY && now_ms() < until);
	if (err == -EBUSY)
		log_fail(err,
			 "%s is in use by another process: it is mounted, or a command is at "
			 "work on it; see holdfast status",
			 cfg->name);
	if (err == -EBADMSG)
		log_fail(err,
			 "the database of %s is damaged or missing: holdfast fsck %s --rebuild makes it "
			 "anew "
			 "from the nodes and keeps everything that is here",
			 cfg->name, cfg->name);
	if (!err && d->st->device != cfg->device)
		err = log_fail(-EBADMSG,
			       "%s/meta.db is of device %u and volume.json of device %u: was "
			       "one of them copied here?",
			       cfg->dir, d->st->device, cfg->device);
	if (!err && keys)
		err = member_put(d->st, cfg->node, cfg->node_cnt, cfg->devices, cfg->device_cnt);
	if (!err)
		err = sync_nodes(d->st, cfg, keys != NULL);
	if (!err && keys)
		err = secrets_open(cfg, keys, &creds);
	if (!err && keys)
		err = member_specs(d->st, &spec, &spec_cnt);
	if (!err && keys) {
		err = volume_open(&d->vol, keys, cfg->k, cfg->m, spec, spec_cnt, creds);
		if (!err) {
			keys = NULL;
			d->st->vol = d->vol;
		}
	}
	creds_unref(creds);
	member_list_free(spec, spec_cnt);
	keys_free(keys);
	if (err) {
		char why[1024];

		snprintf(why, sizeof why, "%s", log_last());
		drive_close(d);
		return log_fail(err, "%s", why);
	}
	*out = d;
	return 0;
}

int drive_start_store(struct drive *d)
{
	int err = store_start(d->st);

	if (err)
		return err;
	d->store_started = true;
	if (!d->vol)
		return 0;
	err = data_start(d->st);
	if (!err)
		d->data_started = true;
	return err;
}

/* fsync=remote: a program waits.  Without nodes it is told so after a while. */
static int remote_sync(void *arg, uint64_t ino)
{
	struct drive_wait w = {.limit_ms = FSYNC_MS, .ino = ino};

	int err = drive_publish(arg, &w);
	return err == -EINTR ? err : err ? -EIO : 0;
}

/*
 * HOLDFAST_PACE in the environment, for tests: "grace=MS,stray=MS,compact=MS,scrub=S,audit=S,
 * limit=BYTES", any of them; how long garbage and scrubbing take their time.
 */
static void pace_of(struct publish_pace *p)
{
	const char *s = getenv("HOLDFAST_PACE");
	unsigned long long v;
	char name[16];
	int used;

	for (; s && sscanf(s, "%15[a-z]=%llu%n", name, &v, &used) == 2; s += *s == ',') {
		s += used;
		if (!strcmp(name, "limit"))
			p->scrub_limit = v;
		unsigned *to = !strcmp(name, "grace")	? &p->grace_ms
			       : !strcmp(name, "stray")	? &p->stray_ms
			       : !strcmp(name, "compact") ? &p->compact_ms
			       : !strcmp(name, "scrub")	? &p->scrub_s
			       : !strcmp(name, "keep")	? &p->keep_s
			       : !strcmp(name, "audit")	? &p->audit_s
							: NULL;
		if (to)
			*to = (unsigned)HF_MIN(v, (unsigned long long)INT32_MAX);
	}
}

struct hist_device *drive_devices(const struct drive *d)
{
	const struct config *cfg = d->cfg;
	struct hist_device *dev = calloc(HF_MAX(cfg->device_cnt, (size_t)1), sizeof *dev);

	for (size_t i = 0; dev && i < cfg->device_cnt; i++) {
		dev[i].number = cfg->devices[i].number;
		dev[i].retired = cfg->devices[i].role == 3;
		memcpy(dev[i].ed_pk, cfg->devices[i].ed_pk, sizeof dev[i].ed_pk);
	}
	if (!dev)
		log_fail(-ENOMEM, "out of memory");
	return dev;
}

int drive_start(struct drive *d, int64_t verify_ms)
{
	struct publish_opts po = {.interval_ms = d->interval_ms,
				  .device_cnt = d->cfg->device_cnt,
				  .repair_limit = d->repair_limit,
				  .members_changed = members_changed,
				  .members_arg = d};
	struct publisher *pub;

	pace_of(&po.pace);
	if (d->scrub_limit)
		po.pace.scrub_limit = d->scrub_limit;
	int err = drive_start_store(d);
	if (err)
		return err;
	po.devices = drive_devices(d);
	if (!po.devices)
		return -ENOMEM;
	memcpy(po.owner_pk, d->cfg->owner_ed_pk, sizeof po.owner_pk);
	err = volume_start(d->vol, node_changed, d);
	if (!err)
		err = publish_start(&pub, d->st, &po);
	free(po.devices);
	if (err)
		return err;
	pthread_mutex_lock(&d->lock);
	d->pub = pub;
	pthread_mutex_unlock(&d->lock);
	d->st->remote_arg = d;
	d->st->remote_sync = remote_sync;
	d->verify_ms = verify_ms;
	err = -pthread_create(&d->verify, NULL, verify_main, d);
	if (err)
		return log_fail(err, "no thread can be started: %s", strerror(-err));
	pthread_setname_np(d->verify, "hf-verify");
	d->verifying = true;
	return 0;
}

int drive_close(struct drive *d)
{
	int err = 0;

	if (!d)
		return 0;
	/* All that is to be published was; nobody waits for a node that hangs. */
	if (d->vol)
		volume_quiet(d->vol);
	if (d->verifying)
		pthread_join(d->verify, NULL);
	pthread_mutex_lock(&d->lock);
	struct publisher *pub = d->pub;
	d->pub = NULL;
	while (d->users)
		pthread_cond_wait(&d->idle, &d->lock);
	pthread_mutex_unlock(&d->lock);
	if (pub)
		publish_stop(pub);
	if (d->data_started)
		data_stop(d->st);
	if (d->st)
		err = store_close(d->st);
	volume_close(d->vol);
	config_free(d->cfg);
	pthread_mutex_destroy(&d->lock);
	pthread_cond_destroy(&d->idle);
	free(d);
	return err;
}

/* --- publishing --- */

/* The publisher stays while it is held; every hold lasts for a slice only. */
struct publisher *drive_hold(struct drive *d)
{
	pthread_mutex_lock(&d->lock);
	struct publisher *p = d->pub;
	if (p)
		d->users++;
	pthread_mutex_unlock(&d->lock);
	return p;
}

void drive_let_go(struct drive *d)
{
	pthread_mutex_lock(&d->lock);
	if (--d->users == 0)
		pthread_cond_broadcast(&d->idle);
	pthread_mutex_unlock(&d->lock);
}

void drive_publish_status(struct drive *d, struct publish_status *out)
{
	struct publisher *p = drive_hold(d);

	memset(out, 0, sizeof *out);
	if (!p)
		return;
	publish_get_status(p, out);
	drive_let_go(d);
}

void drive_poke(struct drive *d)
{
	if (d->vol)
		volume_poke(d->vol);
	node_changed(d);
}

/* Are the nodes there that publishing needs, or all of them? */
static bool enough(const struct drive *d, bool all)
{
	if (all)
		return volume_writable(d->vol) == volume_members(d->vol);
	return volume_usable(d->vol) >= d->vol->k &&
	       volume_writable(d->vol) >= d->vol->quorum;
}

/* Does the database take nothing until the next mount?  Says why: buf gets the reason. */
static bool failed(struct drive *d, char *buf, size_t cap)
{
	struct store *st = d->st;

	pthread_mutex_lock(&st->meta);
	bool is = st->failed != 0;
	snprintf(buf, cap, "%s", is ? st->fail_msg : "");
	pthread_mutex_unlock(&st->meta);
	return is;
}

/* Says what is left and why; returns err. */
static int publish_failed(struct drive *d, int err, bool protect)
{
	struct store_figures f = {0};
	struct publish_status ps;
	char size[SIZE_CAP], left[160], why[sizeof d->st->fail_msg];

	drive_publish_status(d, &ps);
	store_figures(d->st, &f);
	cmd_size(f.unpublished_bytes, size);
	if (f.unpublished_files)
		snprintf(left, sizeof left, "%llu changed files (%s) are not published yet",
			 (unsigned long long)f.unpublished_files, size);
	else if (protect && ps.below_target)
		snprintf(left, sizeof left,
			 "all is published, but %llu segments are not on all nodes",
			 (unsigned long long)ps.below_target);
	else
		snprintf(left, sizeof left, "not everything is on %s nodes yet",
			 protect ? "all" : "enough");
	if (failed(d, why, sizeof why))
		return log_fail(err, "%s: nothing is published until the next mount: %s",
				f.unpublished_files ? left : "what was changed last may be lost",
				why);
	if (ps.stopped)
		return log_fail(err, "%s: %s", left,
				*ps.reason ? ps.reason : "publishing has stopped for good");
	if (err == -ECANCELED)
		return log_fail(err, "%s: stopped before; what is new is safe on this machine",
				left);
	if (!enough(d, false))
		return log_fail(
			err,
			"%s: only %u of %zu nodes can be written to now and %u are "
			"needed; what is new is safe on this machine; see holdfast status",
			left, volume_usable(d->vol), volume_members(d->vol),
			HF_MAX(d->vol->k, d->vol->quorum));
	if (protect && !enough(d, true))
		return log_fail(err,
				"%s: only %u of %zu nodes can be written to now; see holdfast "
				"status",
				left, volume_writable(d->vol), volume_members(d->vol));
	return log_fail(err, "%s: %s; what is new is safe on this machine", left,
			*ps.reason ? ps.reason : "no time was left");
}

int drive_publish(struct drive *d, const struct drive_wait *w)
{
	int64_t start = now_ms(), moved = start,
		end = w->limit_ms ? start + w->limit_ms : INT64_MAX;
	struct publish_status ps, was;
	struct store_figures f = {0}, f_was = {0};
	struct publish_ticket t;
	bool ticket = false;
	int err;

	drive_publish_status(d, &was);
	for (;;) {
		struct publisher *p = drive_hold(d);
		int64_t now = now_ms();
		char why[sizeof d->st->fail_msg];

		if (!p)
			return publish_failed(d, -ECANCELED, w->protect);
		/* No wait helps, and that nothing is left to publish is no success. */
		if (failed(d, why, sizeof why)) {
			drive_let_go(d);
			return publish_failed(d, -EIO, w->protect);
		}
		/* One ticket for all slices: what comes meanwhile is not waited for. */
		if (!ticket)
			publish_ticket(p, w->protect, w->ino, &t);
		ticket = true;
		err = publish_await(p, &t, HF_MIN(now + SLICE_MS, end));
		drive_let_go(d);
		if (!err && failed(d, why, sizeof why))
			err = -EIO;
		if (err != -ETIMEDOUT && err != -EAGAIN)
			break;
		now = now_ms();
		drive_publish_status(d, &ps);
		store_figures(d->st, &f);
		bool nodes = enough(d, w->protect);
		/* With too few nodes a cut begins again and again: that is no movement. */
		if (ps.seq != was.seq || ps.below_target != was.below_target ||
		    f.unpublished_bytes < f_was.unpublished_bytes ||
		    (nodes && ps.cut_done != was.cut_done))
			moved = now;
		was = ps;
		f_was = f;
		if (now >= end || now - moved >= (nodes ? IDLE_MS : IDLE_NO_NODES_MS))
			break;
		if (w->give_up && w->give_up(w->arg)) {
			err = -ECANCELED;
			break;
		}
		int stop = w->progress ? w->progress(w->arg, &ps, &f) : 0;
		if (stop)
			return stop;
	}
	/* Who waits was interrupted, and knows. */
	return err && err != -EINTR ? publish_failed(d, err, w->protect) : err;
}
