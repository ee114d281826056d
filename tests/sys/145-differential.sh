# SPDX-License-Identifier: GPL-3.0-or-later
# The same random operations here and on the local file system give the same, whatever is
# published, given up, fetched or mounted again in between.  `make differ` is the long form.
. "$(dirname "$0")/lib.sh"
STEPS=${STEPS:-10000}
options=interval=1,cache_size=16M
[ "$(id -u)" -eq 0 ] && options=$options,allow_other,dev,suid
new_volume
mount_volume -o "$options"
mkdir "$W/local" "$M/t"
touch "$W/local/a" && setfattr -n user.a -v b "$W/local/a" 2>/dev/null || skip "no user xattrs below ${TMPDIR:-/tmp}"
rm "$W/local/a"

# Between the steps, in turn, beginning with any of them: the last of five has few steps after
# it in the short form.  Everything is closed then.
cat >"$W/between" <<END
case \$(((\$1 + $SEED) % 5)) in
0) "$HOLDFAST" sync v ;;
1) "$HOLDFAST" umount "$M" && "$HOLDFAST" mount v "$M" -o $options ;;
2) sync && { echo 2 >/proc/sys/vm/drop_caches || true; } 2>/dev/null ;;
3) "$HOLDFAST" sync v && "$HOLDFAST" umount "$M" --now && "$HOLDFAST" mount v "$M" -o $options ;;
4) head -c 40000000 /dev/urandom >"$M/ballast" && "$HOLDFAST" sync v && rm "$M/ballast" &&
	{ echo 3 >/proc/sys/vm/drop_caches || true; } 2>/dev/null ;;
esac >/dev/null
END
"$TOOLS/differ" "$W/local" "$M/t" "$SEED" "$STEPS" "sh $W/between \$1" || fail "differ, SEED=$SEED"
ok hf sync v --protected
tree "$M/t" >"$W/want"
umount_volume
ok hf fsck v --nodes
# The nodes alone give the same tree.
export HOLDFAST_HOME=$W/home2
ok hf recover "$W/kit.txt" v >/dev/null 2>&1
mount_volume
tree "$M/t" >"$W/got"
diff "$W/want" "$W/got" >"$W/diff" || { head "$W/diff"; fail "the recovered tree differs, SEED=$SEED"; }

# The comparison sees what it should: one byte changed behind its back.
mkdir "$W/x" "$W/y"
"$TOOLS/differ" "$W/x" "$W/y" "$SEED" 100 >/dev/null || fail "differ of two local directories"
echo x >"$W/y/added"
"$TOOLS/differ" "$W/x" "$W/y" "$SEED" 500 >"$W/out" && fail "differ saw no difference"
grep -q "DIFFERENT" "$W/out" || fail "differ did not say what is different"
