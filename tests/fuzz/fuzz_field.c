/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Fields of HTTP headers: what is accepted makes sense. */
#include <stdlib.h>
#include "net/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct http_head h = {0};
	const char *v = (const char *)p;
	uint64_t n;

	if (http_parse_range(v, len, &h) == 0) {
		if (h.have_range == h.range_unsatisfied)
			abort();
		if (h.have_range &&
		    (h.range_first > h.range_last || h.range_last >= h.range_total))
			abort();
	} else if (h.have_range || h.range_unsatisfied) {
		abort();
	}
	int64_t t = http_parse_date(v, len);
	if (t < 0 && t != -EINVAL)
		abort();
	t = http_parse_retry(v, len, 1000000000);
	if (t != -EINVAL && (t < 0 || t > 86400))
		abort();
	if (http_parse_number(v, len, &n) == 0 && len > 19)
		abort();
	return 0;
}
