# SPDX-License-Identifier: GPL-3.0-or-later
# An ordinary user: create, mount, work, umount, recover, where the system lets users mount.
. "$(dirname "$0")/lib.sh"
if [ "${IN_NAMESPACE:-}" ]; then
	mknod "$W/fuse" c 10 229 && chmod 666 "$W/fuse" && mount --bind "$W/fuse" /dev/fuse || skip "no device nodes here"
fi
have fusermount3
if [ "$(id -u)" -eq 0 ]; then
	id nobody >/dev/null 2>&1 || skip "no user nobody"
	have runuser
	# Where users may not open /dev/fuse, they may in a mount namespace of this test's own.
	if ! runuser -u nobody -- test -w /dev/fuse; then
		[ "${IN_NAMESPACE:-}" ] && skip "users may not open /dev/fuse, and no namespace can change that"
		rm -r "$W"
		IN_NAMESPACE=1 exec unshare -m --propagation private bash "$0"
	fi
	chmod 755 "$W"
	mkdir "$W/u" && chown nobody "$W/u"
	cp "$W/pass" "$W/u/pass" && chown nobody "$W/u/pass"
	mkdir "$W/bin" && cp "$HOLDFAST" "$TOOLS/mktree" "$TOOLS/treesum" "$W/bin/" && chmod -R a+rX "$W/bin"
	as() { runuser -u nobody -- env HOLDFAST_HOME="$W/u/home" HOLDFAST_PASSPHRASE_FILE="$W/u/pass" HOLDFAST_ARGON_MIB=8 "$@"; }
	h=$W/bin/holdfast
else
	skip "run as root to become an ordinary user (or run ./scripts/try as one)"
fi
cd "$W/u" || fail cd
as mkdir m
ok as "$h" create mine --kit "$W/u/kit" >/dev/null
ok as "$h" mount mine "$W/u/m"
ok as "$W/bin/mktree" "$W/u/m/t"
ok as "$h" sync mine --protected
as sh -c "cd '$W/u/m' && '$W/bin/treesum' ." >"$W/want" || fail treesum
as "$h" status mine --json | jq -e '.protected' >/dev/null || fail status
ok as "$h" umount "$W/u/m"
mountpoint -q "$W/u/m" && fail "still mounted"
ok as env HOLDFAST_HOME="$W/u/home2" "$h" recover "$W/u/kit" mine >/dev/null 2>&1
ok as env HOLDFAST_HOME="$W/u/home2" "$h" mount mine "$W/u/m"
as sh -c "cd '$W/u/m' && '$W/bin/treesum' ." >"$W/got" || fail treesum
diff "$W/want" "$W/got" || fail "the recovered tree differs"
ok as env HOLDFAST_HOME="$W/u/home2" "$h" umount "$W/u/m"
