/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * volume.json: what is accepted keeps what the rest of the program takes for granted.  The
 * same bytes once more as the list of what a create makes.
 */
#include <stdlib.h>
#include "fs/config.h"
#include "fs/making.h"
#include "net/ec.h"
#include "net/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

static void config(const char *text, size_t len)
{
	struct config *c;

	if (config_new(&c, "v", "/nowhere"))
		return;
	if (config_parse(text, len, c) == 0) {
		if (!c->device || !c->k || !c->m || c->k + c->m > EC_MAX ||
		    c->node_cnt < (size_t)c->k + c->m || !c->device_cnt)
			abort();
		for (size_t i = 0; i < c->node_cnt; i++) {
			if (!c->node[i].number || c->node[i].number >= NODE_NONE ||
			    strlen(c->node[i].url) >= NODE_URL_CAP)
				abort();
			for (size_t j = 0; j < i; j++)
				if (c->node[i].number == c->node[j].number)
					abort();
		}
	}
	config_free(c);
}

static void making(const char *text, size_t len)
{
	struct making m;

	if (making_parse(text, len, &m))
		return;
	for (size_t i = 0; i < m.cnt; i++)
		if (!m.node[i].number || m.node[i].number >= NODE_NONE ||
		    !m.node[i].url == !m.node[i].path)
			abort();
	making_release(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	const char *text = len ? (const char *)p : "";

	log_set_quiet(true);
	log_set_level(LOG_LVL_ERROR);
	config(text, len);
	making(text, len);
	return 0;
}
