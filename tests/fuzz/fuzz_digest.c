/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a server asks for with Digest, and the header that answers it. */
#include <stdlib.h>
#include "net/digest.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	char out[DIGEST_CAP];
	struct digest d;

	if (digest_challenge(&d, (const char *)p, len))
		return 0;
	if (!d.nonce[0])
		abort();
	/* Nothing that a server says may begin another header. */
	if (digest_answer(&d, "user", "password", "GET", "/a", "00", out) == 0 &&
	    strpbrk(out, "\r\n"))
		abort();
	return 0;
}
