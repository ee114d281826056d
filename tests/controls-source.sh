#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The negative controls: each safety mechanism is switched off in a copy of the sources, and the
# test named beside it must then fail.  A mechanism that nobody would miss is either not needed
# or not tested.  Part of `make check-controls`, beside controls.sh, where the environment of a
# test does it; T=word selects by name or test.
#
# One line each: name | file and the sed that switches it off | the test that must fail, with
# values for its environment before it, as ALL=1.  A sed that changes nothing is an error: the
# code is no longer what the line thinks it is.  Before it, each test must pass as the code is,
# or its failure would say nothing.
set -u
cd "$(dirname "$0")/.." || exit 2
list() {
	cat <<'END'
a stored cell is checked by its tag       | net/seal.c s/if (sodium_memcmp(tag, stored/if (0 \&\& sodium_memcmp(tag, stored/ | unit/segment
a cell is opened only when it is genuine  | net/seal.c /^int seg_open/,/^}/s/return -EBADMSG;/return 0;/ | unit/segment
the fields of a shard are sealed          | net/seal.c /^int seg_shard_header_open/,/^}/s/if (memcmp(in, aad, SHARD_CLEAR) != 0)/if (0)/ | unit/segment
Cauchy matrices: any K shards are enough  | net/ec.c s/gf_gen_cauchy1_matrix/gf_gen_rs_matrix/ | unit/ec
no domain holds more than N-K shards      | net/place.c /^int place_shards/,/^}/s/domain_cap(m)/n/ | unit/place
a commit is signed by its device          | net/histobj.c s/err = pk ? device_verify(.*) : -ENOKEY;/err = pk ? 0 : -ENOKEY;/ | unit/history
a commit stands under its own name        | net/histobj.c s/return strcmp(want, name) == 0;/return *want || *name;/ | unit/history
a takeover is signed by the owner         | net/histobj.c s/owner_verify(owner_pk, "takeover".*))/0)/ | unit/history
old state is not taken for new            | net/histplan.c /^int load_check_floor/,/^}/s/if (end < f->seq)/if (0)/ | unit/history
a fork is seen                            | net/histplan.c /^int load_check_floor/,/^}/s/if (c && !load_hash_fits(c, f))/if (0)/ | unit/history
a header is signed by the owner           | net/header.c s/owner_verify(.*"header".*))$/0)/ | unit/header
a list of nodes is signed by a device     | net/roster.c s/if (d && device_verify(.*))$/if (0)/ | unit/roster
a wrong passphrase is said                | net/keys.c s/if (sodium_memcmp(commit, s->commit, HASH_LEN))/if (0)/ | unit/keys
a damaged key file is told from a wrong passphrase | net/keys.c s/if (memcmp(sum, p + len - HASH_LEN, HASH_LEN) != 0)/if (0)/ | unit/keys
a typing error in a kit is found          | net/kit.c s/if (memcmp(check, line + 2 + LINE_DATA, 3) != 0)/if (0)/ | unit/kit
DOCTYPE is refused                        | net/listing.c s/XML_SetStartDoctypeDeclHandler(l->xml, on_doctype);// | unit/listing
plain http is for loopback                | net/url.c s/if (!u->tls \&\& !u->insecure \&\& !loopback(u->host))/if (0)/ | unit/url
an answer before the body is no success   | net/http_xfer.c /^static bool done_too_early/,/^}/s/return !r->host/return 0 \&\& !r->host/ | unit/http
the range that comes is the one asked for | net/http_xfer.c /^static int range_begins/,/^}/s/if (r->host->trust_transport)/if (1)/ | unit/http
a read looks again before it gives up     | net/volume.c s/!v->stopping \&\& !v->skip_look/0/ | unit/gather
bytes are on the disk before their row    | cache/commit.c s/ \&\& !st->opts.skip_sync;/ \&\& 0;/ | unit/commit
no name is committed without its contents | cache/commit.c s/!err \&\& !st->failed \&\& any_soon/i <= SYNC_ROUNDS \&\& any_soon/;s/st->sealed = i >= SYNC_ROUNDS/st->sealed = false/ | unit/commit
what was sent ahead is forgotten when it changes | cache/sent.c s/ || st->opts.skip_forget)/ || 1)/ | unit/ahead
names hang together with what is held     | cache/hold.c s/if (!c->p->opts.skip_names)/if (0)/;s/c->p->opts.skip_names ?/1 ?/ | unit/ahead
fsync keeps its order                     | cache/hold.c s/if (!r \&\& !c->p->opts.skip_order)/if (0)/ | unit/order
a death is published before it is real    | cache/garbage.c s/!p->opts.skip_published) {/0) {/;s/ \&\& !p->opts.skip_published;/ \&\& 0;/ | unit/garbage
an upload under way is no stray           | cache/stray.c s/\*old = p->opts.skip_seen;/*old = true;/ | unit/garbage
an older copy of a node is seen           | cache/older.c s/return p->opts.skip_older ? 0 : older_ask(p->st, n);/return 0;/ | unit/older
stored cells are verified before they are decoded | net/rows.c s/err = seg_check(.*);/err = 0;/ | sys/050
fsck and scrub verify every copy of the log | cache/check.c s/if (!r && o->deep && st->vol && o->trust.owner_pk)/if (false)/ | sys/630
a node that was set back is noticed | cache/older.c s/return p->opts.skip_older ? 0 : older_ask(p->st, n);/return 0;/ | sys/630
nodes that were all set back stop publishing | cache/publish.c s/if (!seq .. p->opts.skip_older)/if (true)/ | sys/630
keys are in locked memory alone | net/keys.c s/derive(s->purpose\[KP_LOCAL\].*);/& static void *volatile leak; leak = malloc(64); memcpy(leak, s->vk, KEY_LEN);/ | sys/635
a drive that is here already is not recovered beside itself | fs/cmd_recover.c s/return r->take_over ? 0 : config_list(one_here, r);/return 0;/ | ALL=1 sys/640
a sound database is not rebuilt | fs/cmd_fsck.c s/if (!err && !a->anyway)/if (false)/ | ALL=1 sys/640
replacing a node keeps the domains apart | fs/members.c s/if (!err && c->node)$/if (false)/ | ALL=1 sys/640
a kit is not written onto a node | fs/cmd_kit.c s/if (node && config_within(node, above))/if (false)/ | ALL=1 sys/640
umount waits for what is nowhere else | fs/cmd_umount.c s/err != -ESHUTDOWN && !now/false/ | ALL=1 sys/640
credentials are tried before they are kept | fs/secrets.c s/if (!err && !untried && kept/if (false \&\& kept/ | sys/260
END
}

B=$(realpath "${B:-build}")
W=$B/controls
words=("$@")
wanted() {
	local w
	[ ${#words[@]} -eq 0 ] && return 0
	for w in "${words[@]}"; do
		[[ $1 == *"$w"* ]] && return 0
	done
	return 1
}
# Builds what the test needs and runs it: 0 passed, 1 failed, 2 neither.
run() {
	local what=all vars=()
	[[ $1 == *" "* ]] && read -ra vars <<<"${1% *}" # such as ALL=1
	set -- "${1##* }"
	[[ $1 == unit/* ]] && what=build/unit/test_${1#unit/}
	[[ $1 == sys/* ]] && what='all tools'
	# shellcheck disable=SC2086
	make -C "$W" --no-print-directory SAN= B=build $what >"$W/log" 2>&1 ||
		{ tail -n 5 "$W/log" | sed 's/^/      | /'; return 2; }
	(cd "$W" && env "${vars[@]}" B=build TAIL=0 tests/run "$1") >"$W/log" 2>&1
	case $(tail -n 1 "$W/log") in
	*" 0 failed, 0 skipped") return 0 ;;
	"0 passed, 1 failed,"*) return 1 ;;
	esac
	sed 's/^/      | /' "$W/log"
	return 2
}

# What is built already need not be built again.
mkdir -p "$W/build"
cp -a Makefile net cache fs tests scripts "$W/" || exit 2
for d in net cache fs unit tools; do
	[ -d "$B/$d" ] && cp -au "$B/$d" "$W/build/"
done
cp -au "$B"/*.a "$B/holdfast" "$W/build/" 2>/dev/null

declare -A sound
missed=0 bad=0 cnt=0
while IFS= read -r line; do
	name=${line%% | *} test=${line##* | } how=${line#* | }
	how=${how% | *}
	name=${name%"${name##*[! ]}"}
	wanted "$name $test" || continue
	file=${how%% *} cnt=$((cnt + 1)) t0=$SECONDS
	if [ -z "${sound[$test]:-}" ]; then
		run "$test"
		sound[$test]=$?
	fi
	if [ "${sound[$test]}" -ne 0 ]; then
		bad=$((bad + 1))
		echo "BAD   $name: $test does not pass as the code is"
		continue
	fi
	cp -p "$W/$file" "$W/kept"
	sed -i "${how#* }" "$W/$file"
	if cmp -s "$W/$file" "$W/kept"; then
		bad=$((bad + 1))
		echo "BAD   $name: nothing in $file is switched off by ${how#* }"
		continue
	fi
	run "$test"
	rc=$?
	cp "$W/kept" "$W/$file"
	case $rc in
	1) printf 'ok    %-50s %-14s %4ds\n' "$name" "$test" $((SECONDS - t0)) ;;
	0) missed=$((missed + 1)); echo "MISS  $name: $test passes without it" ;;
	*) bad=$((bad + 1)); echo "BAD   $name: does not build, or $test was skipped" ;;
	esac
done < <(list)
echo "$cnt controls: $missed not missed by their test, $bad that say nothing"
[ $missed -eq 0 ] && [ $bad -eq 0 ]
