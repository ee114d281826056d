/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Fields of headers.  No I/O, no clock, no state. */
#include "net/http.h"

#include <time.h>

#define RETRY_CAP_S 86400

int http_parse_number(const char *v, size_t len, uint64_t *out)
{
	uint64_t n = 0;

	if (!len || len > 19)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		if (v[i] < '0' || v[i] > '9')
			return -EINVAL;
		n = n * 10 + (uint64_t)(v[i] - '0');
	}
	*out = n;
	return 0;
}

/* "bytes 0-499/1234", "bytes 0-499" with "/" and a star, "bytes" star "/1234" (RFC 9110, 14.4).
 */
int http_parse_range(const char *v, size_t len, struct http_head *h)
{
	uint64_t first, last, total = UINT64_MAX;

	if (len < 7 || strncasecmp(v, "bytes", 5) != 0 || (v[5] != ' ' && v[5] != '='))
		return -EINVAL;
	v += 6;
	len -= 6;
	const char *slash = memchr(v, '/', len);
	if (!slash)
		return -EINVAL;
	size_t head = (size_t)(slash - v), tail = len - head - 1;
	if ((tail != 1 || slash[1] != '*') && http_parse_number(slash + 1, tail, &total))
		return -EINVAL;
	if (head == 1 && *v == '*') {
		if (total == UINT64_MAX)
			return -EINVAL;
		h->range_unsatisfied = true;
		h->range_total = total;
		return 0;
	}
	const char *dash = memchr(v, '-', head);
	if (!dash || http_parse_number(v, (size_t)(dash - v), &first) ||
	    http_parse_number(dash + 1, head - (size_t)(dash - v) - 1, &last))
		return -EINVAL;
	if (first > last || last >= total)
		return -EINVAL;
	h->have_range = true;
	h->range_first = first;
	h->range_last = last;
	h->range_total = total;
	return 0;
}

static int two(const char *v)
{
	return v[0] >= '0' && v[0] <= '9' && v[1] >= '0' && v[1] <= '9'
		       ? (v[0] - '0') * 10 + v[1] - '0'
		       : -1;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
int64_t http_parse_date(const char *v, size_t len)
{
	static const char month[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	struct tm tm = {0};
	int mon = -1;

	if (len != 29 || v[3] != ',' || v[4] != ' ' || v[7] != ' ' || v[11] != ' ' ||
	    v[16] != ' ' || v[19] != ':' || v[22] != ':' || strncmp(v + 25, " GMT", 4) != 0)
		return -EINVAL;
	for (int i = 0; i < 12; i++)
		if (!strncmp(v + 8, month + 3 * i, 3))
			mon = i;
	int century = two(v + 12), year = two(v + 14);
	tm.tm_mday = two(v + 5);
	tm.tm_mon = mon;
	tm.tm_hour = two(v + 17);
	tm.tm_min = two(v + 20);
	tm.tm_sec = two(v + 23);
	if (century < 19 || year < 0 || tm.tm_mday < 1 || tm.tm_mday > 31 || mon < 0 ||
	    tm.tm_hour < 0 || tm.tm_hour > 23 || tm.tm_min < 0 || tm.tm_min > 59 ||
	    tm.tm_sec < 0 || tm.tm_sec > 60)
		return -EINVAL;
	tm.tm_year = century * 100 + year - 1900;
	int64_t t = timegm(&tm);
	return t < 0 ? -EINVAL : t;
}

int64_t http_parse_retry(const char *v, size_t len, int64_t now_s)
{
	uint64_t n;

	if (len && *v >= '0' && *v <= '9') {
		if (http_parse_number(v, len, &n))
			return -EINVAL;
		return (int64_t)HF_MIN(n, (uint64_t)RETRY_CAP_S);
	}
	int64_t t = http_parse_date(v, len);
	if (t < 0)
		return -EINVAL;
	return HF_MIN(HF_MAX(t - now_s, (int64_t)0), (int64_t)RETRY_CAP_S);
}
