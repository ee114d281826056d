/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <ctype.h>
#include <stdlib.h>
#include <unistd.h>
#include "net/kit.h"

#define GOLDEN "tests/golden/kit.txt"

static struct kit *sample(uint8_t seed)
{
	struct owner *o;
	struct kit *k;

	assert_int_equal(kit_new(&k), 0);
	for (int i = 0; i < KEY_LEN; i++)
		k->secret[i] = (uint8_t)(i + seed);
	for (int i = 0; i < VOL_LEN; i++)
		k->vol[i] = (uint8_t)(200 + i);
	assert_int_equal(owner_new(&o, k->secret), 0);
	memcpy(k->owner_ed_pk, o->ed_pk, 32);
	owner_free(o);
	k->k = 4;
	k->m = 2;
	k->node = calloc(6, sizeof *k->node);
	k->node_cnt = 6;
	for (unsigned i = 0; i < 6; i++) {
		char *url = NULL;
		k->node[i].number = (uint16_t)(i + 1);
		k->node[i].member = 1;
		k->node[i].url_len = (uint16_t)asprintf(&url, "dir:/mnt/disk%u/hf1-x", i);
		k->node[i].url = (const uint8_t *)url;
	}
	k->floor = calloc(1, sizeof *k->floor);
	k->floor_cnt = 1;
	k->floor[0] = (struct hist_seen){.device = 1, .seq = 17};
	memset(k->floor[0].hash, 0x55, HASH_LEN);
	return k;
}

static struct buf page(const struct kit *k, const char *pass)
{
	struct buf text = {0};

	assert_int_equal(kit_print(k, "hf1-my\nhf1-drive", pass, &text), 0);
	return text;
}

static void same(const struct kit *a, const struct kit *b)
{
	assert_memory_equal(a->vol, b->vol, VOL_LEN);
	assert_memory_equal(a->secret, b->secret, KEY_LEN);
	assert_memory_equal(a->owner_ed_pk, b->owner_ed_pk, 32);
	assert_int_equal(a->node_cnt, b->node_cnt);
	for (size_t i = 0; i < a->node_cnt; i++)
		assert_string_equal((const char *)a->node[i].url, (const char *)b->node[i].url);
	assert_int_equal(a->credentials.len, b->credentials.len);
	if (a->credentials.len)
		assert_memory_equal(a->credentials.p, b->credentials.p, a->credentials.len);
	assert_int_equal(a->floor_cnt, b->floor_cnt);
	assert_memory_equal(a->floor, b->floor, a->floor_cnt * sizeof *a->floor);
}

static int parse(const struct buf *text, struct kit **out)
{
	return kit_parse((const char *)text->p, text->len, out);
}

static void test_round_trip(void **state)
{
	struct kit *k = sample(1), *back;

	(void)state;
	struct buf text = page(k, NULL);
	assert_int_equal(parse(&text, &back), 0);
	same(k, back);
	kit_free(back);

	/* CRLF, upper case, 0 for o, spaces for hyphens, lines broken in the middle. */
	struct buf odd = {0};
	bool kit_line = false;
	for (size_t i = 0; i < text.len; i++) {
		char c = (char)text.p[i];
		bool start = i == 0 || text.p[i - 1] == '\n';
		if (start)
			kit_line = text.len - i > 4 && !memcmp(text.p + i, "hf1-", 4);
		if (c == '\n')
			buf_put(&odd, "\r\n", 2);
		else if (kit_line && c == 'o')
			buf_put(&odd, "0", 1);
		else if (kit_line && c == '-' && i % 3 == 0 && text.p[i - 1] != '1')
			buf_put(&odd, "\r\n   ", 5);
		else
			buf_u8(&odd, (uint8_t)toupper(c));
	}
	assert_int_equal(parse(&odd, &back), 0);
	same(k, back);
	kit_free(back);

	/* The same kit twice is one kit. */
	buf_put(&odd, text.p, text.len);
	assert_int_equal(parse(&odd, &back), 0);
	kit_free(back);
	buf_release(&odd);
	buf_release(&text);
	kit_free(k);
}

static void test_credentials(void **state)
{
	struct kit *k = sample(1), *back;

	(void)state;
	buf_put(&k->credentials, "[p]\naccess_key=A\n", 17);
	struct buf text = page(k, NULL);
	assert_null(memmem(text.p, text.len, "access", 6));
	assert_int_equal(parse(&text, &back), 0);
	same(k, back);
	kit_free(back);
	buf_release(&text);

	/* Under a passphrase nothing opens before it is given. */
	text = page(k, "correct horse");
	assert_int_equal(parse(&text, &back), 0);
	assert_null(back->secret);
	assert_int_equal(back->credentials.len, 0);
	assert_int_equal(kit_unlock(back, "wrong"), -EACCES);
	assert_null(back->secret);
	/* Printed again unopened, it is the same kit. */
	struct buf again = page(back, NULL);
	assert_int_equal(kit_unlock(back, "correct horse"), 0);
	same(k, back);
	kit_free(back);
	assert_int_equal(parse(&again, &back), 0);
	assert_int_equal(kit_unlock(back, "correct horse"), 0);
	same(k, back);
	kit_free(back);
	buf_release(&again);
	buf_release(&text);
	kit_free(k);
}

/* Every character of every line, changed, is found, and the line is named. */
static void test_typing_errors(void **state)
{
	struct kit *k = sample(1), *back;
	unsigned line = 0;

	(void)state;
	struct buf text = page(k, NULL);
	for (size_t i = 0; i < text.len; i++) {
		bool start = i == 0 || text.p[i - 1] == '\n';
		if (!start || memcmp(text.p + i, "hf1-", 4) != 0)
			continue;
		line++;
		for (size_t j = i + 4; text.p[j] != '\n'; j++) {
			char want[64];
			uint8_t old = text.p[j];
			if (old == '-')
				continue;
			text.p[j] = old == 'q' ? 'r' : 'q';
			assert_int_equal(parse(&text, &back), -EBADMSG);
			snprintf(want, sizeof want, "line %u ", line);
			assert_non_null(strstr(log_last(), want));
			text.p[j] = old;
		}
	}
	assert_true(line > 10);
	buf_release(&text);
	kit_free(k);
}

static void without_line(const struct buf *text, unsigned drop, struct buf *out)
{
	unsigned line = 0;

	for (size_t i = 0; i < text->len;) {
		size_t end = i;
		while (text->p[end++] != '\n')
			;
		bool kit = end - i > 4 && !memcmp(text->p + i, "hf1-", 4);
		if (!kit || ++line != drop)
			buf_put(out, text->p + i, end - i);
		i = end;
	}
}

static void test_lost_lines(void **state)
{
	struct kit *a = sample(1), *b = sample(2), *back;
	struct buf ta = page(a, NULL), tb, cut = {0};

	(void)state;
	for (unsigned i = 1; i < 12; i++) {
		char want[64];
		buf_reset(&cut);
		without_line(&ta, i, &cut);
		assert_int_equal(parse(&cut, &back), -EBADMSG);
		snprintf(want, sizeof want, "line %u of the kit is missing", i);
		assert_non_null(strstr(log_last(), want));
	}
	/* Two kits, whole or mixed, are refused. */
	tb = page(b, NULL);
	buf_reset(&cut);
	buf_put(&cut, ta.p, ta.len);
	buf_put(&cut, tb.p, tb.len);
	assert_int_equal(parse(&cut, &back), -EBADMSG);
	assert_non_null(strstr(log_last(), "more than one"));
	buf_reset(&cut);
	buf_put(&cut, "nothing\n", 8);
	assert_int_equal(parse(&cut, &back), -EBADMSG);
	buf_release(&cut);
	buf_release(&ta);
	buf_release(&tb);
	kit_free(a);
	kit_free(b);
}

static void test_qr(void **state)
{
	static const uint8_t magic[] = {0x89, 'P', 'N', 'G'};
	struct kit *k = sample(1);
	struct buf text = page(k, NULL), out = {0};
	char path[] = "/tmp/hf-kit-XXXXXX";

	(void)state;
	assert_int_equal(kit_qr_text(&text, &out), 0);
	assert_true(out.len > 1000);
	close(mkstemp(path));
	assert_int_equal(kit_qr_png(&text, path), 0);
	buf_reset(&out);
	assert_int_equal(file_read(path, 1 << 20, &out), 0);
	assert_memory_equal(out.p, magic, sizeof magic);
	const char *keep = getenv("HF_KEEP_PNG");
	if (keep)
		file_write_atomic(keep, out.p, out.len, 0644);
	unlink(path);
	buf_put(&k->credentials, text.p, text.len);
	buf_put(&k->credentials, text.p, text.len);
	buf_put(&k->credentials, text.p, text.len);
	buf_release(&text);
	text = page(k, NULL);
	assert_int_equal(kit_qr_text(&text, &out), -EFBIG);
	buf_release(&text);
	buf_release(&out);
	kit_free(k);
}

/* HF_GOLDEN=1 in the environment writes the file anew. */
static void test_golden(void **state)
{
	struct kit *k = sample(1), *back;
	struct buf text = page(k, NULL), lines = {0}, want = {0};

	(void)state;
	for (size_t i = 0; i < text.len;) {
		size_t end = i;
		while (text.p[end++] != '\n')
			;
		if (end - i > 4 && !memcmp(text.p + i, "hf1-", 4))
			buf_put(&lines, text.p + i, end - i);
		i = end;
	}
	if (getenv("HF_GOLDEN"))
		assert_int_equal(file_write_atomic(GOLDEN, lines.p, lines.len, 0644), 0);
	assert_int_equal(file_read(GOLDEN, 65536, &want), 0);
	assert_int_equal(want.len, lines.len);
	assert_memory_equal(want.p, lines.p, want.len);
	assert_int_equal(parse(&want, &back), 0);
	same(k, back);
	kit_free(back);
	buf_release(&want);
	buf_release(&lines);
	buf_release(&text);
	kit_free(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_credentials),
		cmocka_unit_test(test_typing_errors),
		cmocka_unit_test(test_lost_lines),
		cmocka_unit_test(test_qr),
		cmocka_unit_test(test_golden),
	};
	setenv("HOLDFAST_ARGON_MIB", "8", 1);
	log_set_quiet(true);
	if (keys_global_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
