/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * node_ops URL [-c CREDENTIALS] [-n BLOBS] [-s MAX_BYTES]: every operation of a node against a
 * real one, at once where it can be; what comes back is compared.  Leaves the place as it
 * was, but for its marker.  Prints what it did, and the node's own figures.
 */
#include <getopt.h>
#include <stdlib.h>

#include "net/node.h"

static struct node *node;
static unsigned failures;

#define WAIT_MS 120000

static void bad(const char *what, const char *name, int err, const char *why)
{
	printf("FAIL %s %s: %s%s%s\n", what, name, err ? strerrordesc_np(-err) : "wrong answer",
	       why && *why ? ": " : "", why ? why : "");
	failures++;
}

static void fill(uint8_t *p, size_t len, uint32_t seed)
{
	for (size_t i = 0; i < len; i++) {
		seed = seed * 1664525 + 1013904223;
		p[i] = (uint8_t)(seed >> 24);
	}
}

static void name_of(unsigned i, char out[BLOB_NAME_CAP])
{
	uint8_t h[HASH_LEN];
	char text[64];

	hash_tag("node_ops", &i, sizeof i, h);
	base32_encode(h, 20, text);
	snprintf(out, BLOB_NAME_CAP, "%s%.32s", i % 8 ? "s/" : "l/", text);
}

static size_t size_of(unsigned i, size_t max)
{
	static const size_t few[] = {1, 16, 4096, 65535, 65536, 65537, 1u << 20};

	return HF_MIN(i < 7 ? few[i] : 1 + (size_t)i * 7919 % max, max);
}

static struct node_io *one(struct node_io *io)
{
	struct node_wait w;

	io->deadline_ms = now_ms() + WAIT_MS;
	node_wait_init(&w);
	node_wait_submit(&w, node, io);
	io = node_wait_next(&w, now_ms() + 2 * WAIT_MS);
	node_wait_release(&w);
	return io;
}

/* All of one kind at once. */
static void many(enum node_op op, unsigned cnt, size_t max, int want)
{
	int64_t begin = now_ms();
	struct node_wait w;
	uint64_t bytes = 0;

	node_wait_init(&w);
	for (unsigned i = 0; i < cnt; i++) {
		char name[BLOB_NAME_CAP];
		size_t len = size_of(i, max);

		name_of(i, name);
		struct node_io *io = node_io_new(op, name);
		io->deadline_ms = now_ms() + WAIT_MS;
		io->tag = i;
		if (op == NODE_PUT) {
			uint8_t *p = malloc(len);

			fill(p, len, i);
			/* In two pieces, as shards are. */
			io->iov[0] = (struct iovec){p, len / 3};
			io->iov[1] = (struct iovec){p + len / 3, len - len / 3};
			io->iov_cnt = 2;
			io->buf = p;
			bytes += len;
		} else if (op == NODE_GET) {
			/* Some in the middle, some over the end. */
			io->off = i % 3 == 1 ? len / 2 : i % 3 == 2 ? len - 1 : 0;
			io->len = i % 3 == 1 ? HF_MAX(len / 4, (size_t)1) : len + 100;
		}
		node_wait_submit(&w, node, io);
	}
	for (unsigned i = 0; i < cnt; i++) {
		struct node_io *io = node_wait_next(&w, now_ms() + 2 * WAIT_MS);
		static const char *const word[] = {"PUT", "GET", "DELETE"};

		if (!io) {
			bad(word[op], "?", -ETIMEDOUT, "never came back");
			continue;
		}
		if (io->err != want) {
			bad(word[op], io->name, io->err, io->why);
		} else if (op == NODE_GET && !want) {
			size_t len = size_of(io->tag, max);
			uint8_t *p = malloc(len);

			fill(p, len, io->tag);
			size_t right = HF_MIN(io->len, len - (size_t)io->off);
			if (io->got != right || memcmp(io->buf, p + io->off, right) != 0)
				bad("GET", io->name, 0, "bytes differ");
			bytes += io->got;
			free(p);
		}
		node_io_unref(io);
	}
	node_wait_release(&w);
	int64_t ms = HF_MAX(now_ms() - begin, (int64_t)1);
	printf("%s of %u: %lld ms, %.1f MB/s\n", (const char *[]){"PUT", "GET", "DELETE"}[op],
	       cnt, (long long)ms, (double)bytes / 1000 / (double)ms);
}

static void list(const char *prefix, unsigned cnt, bool there)
{
	unsigned found = 0, want = 0;
	int64_t begin = now_ms();
	struct node_io *io = one(node_io_new(NODE_LIST, prefix));

	if (io->err)
		bad("LIST", prefix, io->err, io->why);
	for (unsigned i = 0; i < cnt; i++) {
		char name[BLOB_NAME_CAP];

		name_of(i, name);
		if (strncmp(name, prefix, strlen(prefix)) != 0)
			continue;
		want += there;
		for (size_t at = 0; at < io->list.len;
		     at += strlen((char *)io->list.p + at) + 1)
			found += !strcmp((char *)io->list.p + at, name);
	}
	if (found != want)
		bad("LIST", prefix, 0, "names are missing, doubled or left");
	printf("LIST %s: %u names, %lld ms\n", prefix, found, (long long)(now_ms() - begin));
	node_io_unref(io);
}

int main(int argc, char **argv)
{
	const uint8_t vol[VOL_LEN] = {0x4f};
	struct node_info info;
	struct creds *creds;
	unsigned cnt = 50;
	size_t max = 2u << 20;
	int c;

	if (creds_new(&creds))
		return 1;
	while ((c = getopt(argc, argv, "c:n:s:")) != -1) {
		if (c == 'c' && creds_read_file(creds, optarg))
			return 1;
		if (c == 'n')
			cnt = (unsigned)strtoul(optarg, NULL, 10);
		if (c == 's')
			max = strtoul(optarg, NULL, 10);
	}
	if (optind + 1 != argc || !cnt || !max || node_open(&node, 1, argv[optind], creds))
		return 2;
	creds_unref(creds);
	int err = node_verify(node, vol, now_ms() + 20000);
	if (err == -ENOENT || err == -ENODEV)
		err = node_init(node, vol, now_ms() + 20000);
	node_get_info(node, &info);
	if (err) {
		printf("FAIL init: %s (%s): %s\n", strerrordesc_np(-err),
		       node_state_name(info.state), info.error);
		node_close(node);
		return 1;
	}
	many(NODE_PUT, cnt, max, 0);
	many(NODE_GET, cnt, max, 0);
	many(NODE_PUT, cnt, max, 0);
	list("l/", cnt, true);
	list("s/", cnt, true);
	list("s/a", cnt, true);
	many(NODE_DEL, cnt, max, 0);
	many(NODE_DEL, cnt, max, 0);
	many(NODE_GET, cnt, max, -ENOENT);
	list("l/", cnt, false);
	list("s/", cnt, false);
	node_get_info(node, &info);
	printf("%s: %s, %u ms, p95 %u ms, expect(1M) %lld ms, up %llu/s, down %llu/s\n"
	       "requests: put %llu get %llu delete %llu list %llu other %llu retry %llu, "
	       "sent %llu, received %llu\n",
	       info.url, node_state_name(info.state), info.latency_ms, info.latency_p95_ms,
	       (long long)node_expect_ms(node, 1u << 20), (unsigned long long)info.up_bytes_s,
	       (unsigned long long)info.down_bytes_s, (unsigned long long)info.put_cnt,
	       (unsigned long long)info.get_cnt, (unsigned long long)info.delete_cnt,
	       (unsigned long long)info.list_cnt, (unsigned long long)info.other_cnt,
	       (unsigned long long)info.retry_cnt, (unsigned long long)info.up_bytes,
	       (unsigned long long)info.down_bytes);
	node_close(node);
	printf("%u failures\n", failures);
	return failures ? 1 : 0;
}
