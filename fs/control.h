/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * control: the socket between the command line and the mount: one JSON object a line.
 *   {"cmd":"status"} {"cmd":"sync","protected":bool,"timeout_ms":n} {"cmd":"umount","now":bool}
 *   {"cmd":"ping"}   {"cmd":"repair","timeout_ms":n}  {"cmd":"fsck","deep":bool,"mark":bool}
 *   {"cmd":"hurry"} do not wait for nodes at the end   {"cmd":"stay"} takes that back
 * Answers {"ok":true,...} or {"ok":false,"errno":n,"error":"sentence"}; long work sends
 * {"progress":...} lines before.
 * Unix socket in the volume's directory, mode 0600, peer uid checked (SO_PEERCRED).
 */
#ifndef HOLDFAST_FS_CONTROL_H
#define HOLDFAST_FS_CONTROL_H

#include <jansson.h>
#include <sys/types.h>
#include "net/base.h"

#define CONTROL_LINE_CAP (4u << 20)
#define CONTROL_CONNS	 32 /* at once; more wait in the listen queue */

struct control;
/*
 * handle answers a request; called on a thread per connection (a bounded number).  It
 * returns the answer (a new reference), NULL when out of memory.  progress sends a line
 * {"progress":p} (p is taken over) and returns -EPIPE when the caller has gone away.
 */
typedef json_t *control_fn(void *arg, const json_t *req, int (*progress)(void *conn, json_t *p),
			   void *conn);
/* A socket file that nobody listens on is replaced: the caller holds the volume's lock. */
int control_start(struct control **out, const char *dir, control_fn *handle, void *arg);
/* Removes the socket, ends idle connections, waits for handlers: make them end before. */
void control_stop(struct control *c);

/* {"ok":false,...} for err with a formatted sentence. */
json_t *control_error(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * Client: -ENOENT nobody listens.  *answer is owned by the caller.  timeout_ms: how long
 * without any line from the mount.  An answer that is not ok is returned as its -errno, its
 * sentence as the log line; *answer is NULL then.  progress (may be NULL) sees each
 * progress line's value.  *pid (may be NULL) is the process that answers.
 */
int control_call(const char *dir, json_t *req, int timeout_ms, json_t **answer);
int control_call_progress(const char *dir, json_t *req, int timeout_ms,
			  void (*progress)(void *arg, const json_t *p), void *arg, pid_t *pid,
			  json_t **answer);

#endif
