# SPDX-License-Identifier: GPL-3.0-or-later
# Real servers as nodes, private to a test: on loopback, on ports that were free, without
# root's rights, with everything below $W/srv/NAME.  Sourced after sys/lib.sh, whose cleanup
# ends them (their command lines hold $W).
#
#   server NAME KIND [OPTION]...    KIND: nginx, apache, lighttpd (WebDAV), ceph (S3)
#                                   OPTION: tls, digest (apache, lighttpd), bearer (nginx),
#                                   fs=MB (a disk of its own), ns=NETNS at=ADDRESS (in a
#                                   network namespace; plain WebDAV); ceph.sh has more
#   server_pause|resume|crash|stop|start NAME     SIGSTOP, SIGCONT, SIGKILL, SIGTERM, again on the same data
#   server_password NAME WORD       another password at the server; credentials knows the old one
#   server_data NAME                the folder that the server keeps files in
#   proxy NAME                      a fault proxy before it, which node_url names from then on
#   fault NAME [RULE]...            the proxy's rules (see faultproxy.py) are these; none: it is honest
#   requests NAME [REGEX]           how many requests went through the proxy ("METHOD PATH")
#   node_url NAME [PATH] [OPTIONS]  the node's URL for create
#   credentials FILE                the ini file with a profile for each server
SERVERS=$ROOT/tests/servers
declare -A srv_kind srv_opts srv_port srv_pass srv_proxy srv_user
chmod 711 "$W" # the servers run as somebody else and must reach their folder
mkdir -p "$W/srv"
srv_as=()
[ "$(id -u)" -ne 0 ] || srv_as=(setpriv --reuid www-data --regid www-data --clear-groups)

# A port on which nobody listens; below those that the kernel gives to clients.
free_port() {
	local i
	for i in $(seq 200); do
		port=$((22000 + RANDOM % 1000))
		[[ " ${srv_port[*]} ${srv_proxy[*]} " == *" $port "* ]] && continue
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || return 0
	done
	fail "no free port"
}
srv_opt() { [[ " ${srv_opts[$1]} " == *" $2 "* ]]; }
srv_value() { # name option [what it is without]: of option=value
	local o
	for o in ${srv_opts[$1]}; do [[ $o != "$2"=* ]] || { echo "${o#*=}"; return; }; done
	echo "${3:-}"
}
srv_at() { srv_value "$1" at 127.0.0.1; }
# What runs a command where the server is.
srv_in() { local n; n=$(srv_value "$1" ns); [ -z "$n" ] || echo "nsenter --net=/run/netns/$n"; }
srv_scheme() { srv_opt "$1" tls && echo https || echo http; }
srv_own() { [ "$(id -u)" -ne 0 ] || chown -R www-data: "$@"; }

# One certification authority for the test, a certificate for loopback.
srv_ca() {
	local t=$W/srv/tls
	[ -s "$t/both.pem" ] && return
	mkdir -p "$t"
	{
		openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
			-subj "/CN=a test's authority" -keyout "$t/ca.key" -out "$t/ca.pem"
		openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=localhost" \
			-keyout "$t/key.pem" -out "$t/csr.pem"
		echo "subjectAltName=DNS:localhost,IP:127.0.0.1,DNS:s3.localhost,DNS:*.s3.localhost" >"$t/ext"
		openssl x509 -req -in "$t/csr.pem" -CA "$t/ca.pem" -CAkey "$t/ca.key" -CAcreateserial \
			-days 30 -extfile "$t/ext" -out "$t/cert.pem"
	} >"$t/log" 2>&1 || { cat "$t/log"; fail "no certificate"; }
	cat "$t/cert.pem" "$t/key.pem" >"$t/both.pem"
	chmod 644 "$t"/*.pem
}

srv_nginx_conf() { # name
	local d=$W/srv/$1 tls='' auth="auth_basic node; auth_basic_user_file $W/srv/$1/users;"
	srv_opt "$1" tls && tls=" ssl http2"
	srv_opt "$1" bearer && auth="if (\$genuine = 0) { add_header WWW-Authenticate 'Bearer realm=\"node\"' always; return 401; }"
	cat <<C
load_module /usr/lib/nginx/modules/ngx_http_dav_ext_module.so;
daemon off; master_process off; pid $d/pid; error_log $d/log warn;
events { worker_connections 512; }
http {
	access_log off; keepalive_requests 100000; client_max_body_size 0;
	client_body_temp_path $d/fs/tmp; proxy_temp_path $d/fs/tmp; fastcgi_temp_path $d/fs/tmp;
	uwsgi_temp_path $d/fs/tmp; scgi_temp_path $d/fs/tmp;
	map \$http_authorization \$genuine { default 0; $(srv_opt "$1" bearer && echo "include $d/users;") }
	ssl_certificate $W/srv/tls/cert.pem; ssl_certificate_key $W/srv/tls/key.pem;
	server {
		listen $(srv_at "$1"):${srv_port[$1]}$tls; root $d/fs/data;
		location / {
			$auth
			dav_methods PUT DELETE MKCOL COPY MOVE; dav_ext_methods PROPFIND OPTIONS;
			create_full_put_path on;
		}
	}
}
C
	[ "$tls" ] || return 0
}
srv_apache_conf() {
	local d=$W/srv/$1 m tls='' auth=basic
	srv_opt "$1" digest && auth=digest
	srv_opt "$1" tls && tls="socache_shmcb ssl http2"
	for m in mpm_event authn_core authn_file authz_core authz_user auth_$auth dav dav_fs setenvif $tls; do
		echo "LoadModule ${m}_module /usr/lib/apache2/modules/mod_$m.so"
	done
	[ "$tls" ] && cat <<C
Protocols h2 http/1.1
SSLEngine on
SSLCertificateFile $W/srv/tls/cert.pem
SSLCertificateKeyFile $W/srv/tls/key.pem
C
	cat <<C
ServerRoot $d
ServerName localhost
Listen $(srv_at "$1"):${srv_port[$1]}
PidFile $d/pid
DefaultRuntimeDir $d
ErrorLog $d/log
LogLevel warn
StartServers 1
ServerLimit 2
ThreadsPerChild 32
MaxRequestWorkers 64
MinSpareThreads 1
MaxSpareThreads 64
MaxKeepAliveRequests 0
KeepAliveTimeout 60
LimitXMLRequestBody 0
DavLockDB $d/locks
DocumentRoot $d/fs/data
<Directory $d/fs/data>
	Dav On
	AuthType $auth
	AuthName node
	Auth${auth^}Provider file
	AuthUserFile $d/users
	Require valid-user
</Directory>
C
}
srv_lighttpd_conf() {
	local d=$W/srv/$1 auth=basic
	srv_opt "$1" digest && auth=digest
	cat <<C
server.modules = ("mod_auth", "mod_authn_file", "mod_webdav")
server.document-root = "$d/fs/data"
server.bind = "$(srv_at "$1")"
server.port = ${srv_port[$1]}
server.errorlog = "$d/log"
server.upload-dirs = ("$d/fs/tmp")
server.max-keep-alive-requests = 100000
server.max-keep-alive-idle = 60
mimetype.assign = ("" => "application/octet-stream")
webdav.activate = "enable"
webdav.is-readonly = "disable"
webdav.sqlite-db-name = "$d/webdav.db"
auth.backend = "plain"
auth.backend.plain.userfile = "$d/users"
auth.require = ("/" => ("method" => "$auth", "realm" => "node", "require" => "valid-user"))
C
	if srv_opt "$1" tls; then
		cat <<C
server.modules += ("mod_openssl")
ssl.engine = "enable"
ssl.pemfile = "$W/srv/tls/both.pem"
C
	fi
}
srv_users() { # name password
	local d=$W/srv/$1
	case ${srv_kind[$1]} in
	nginx) if srv_opt "$1" bearer; then echo "\"Bearer $2\" 1;"; else echo "node:{PLAIN}$2"; fi ;;
	apache) if srv_opt "$1" digest; then
		echo "node:node:$(printf 'node:node:%s' "$2" | md5sum | cut -d' ' -f1)"
	else
		echo "node:{SHA}$(printf %s "$2" | openssl dgst -sha1 -binary | base64)"
	fi ;;
	lighttpd) echo "node:$2" ;;
	esac >"$d/users.new"
	chmod 600 "$d/users.new"
	srv_own "$d/users.new"
	mv "$d/users.new" "$d/users"
}
server_password() {
	if [ "${srv_kind[$1]}" = ceph ]; then ceph_key "$1" "$2"; else srv_users "$1" "$2"; fi
	# These stand in its configuration.
	! srv_opt "$1" bearer || { server_stop "$1"; server_start "$1"; }
}
server_data() { echo "$W/srv/$1/fs/data"; }

# Starts one program of the server in a process group of its own.
srv_spawn() { # name program command...
	local d=$W/srv/$1 program=$2 in
	in=$(srv_in "$1")
	shift 2
	setsid $in "${srv_as[@]}" "$@" >>"$d/$program.out" 2>&1 </dev/null &
	echo $! >"$d/$program.run"
	# It has no group of its own before setsid runs, and who has none is taken for one that ended.
	while [ "$(ps -o pgid= -p $! 2>/dev/null || echo $!)" -ne $! ]; do sleep 0.01; done
	disown $!
}
srv_signal() { # name signal
	local f p
	for f in "$W/srv/$1"/*.run; do
		[ -e "$f" ] || continue
		p=$(cat "$f")
		kill "-$2" -- "-$p" 2>/dev/null || kill "-$2" "$p" 2>/dev/null
	done
}
# Ended: nothing of its process groups runs.  (Until they are waited for, the dead have a place.)
srv_gone() {
	local f p i
	for f in "$W/srv/$1"/*.run; do
		[ -e "$f" ] || continue
		p=$(cat "$f")
		for i in $(seq 500); do
			pgrep -g "$p" -r D,R,S,T >/dev/null || break
			[ "$i" -lt 400 ] || kill -9 -- "-$p" 2>/dev/null
			sleep 0.02
		done
		rm "$f"
	done
}
server_pause() { srv_signal "$1" STOP; }
server_resume() { srv_signal "$1" CONT; }
server_crash() { srv_signal "$1" KILL; srv_gone "$1"; }
server_stop() { srv_signal "$1" CONT; srv_signal "$1" TERM; srv_gone "$1"; }
server_start() {
	local d=$W/srv/$1 i
	case ${srv_kind[$1]} in
	nginx) srv_spawn "$1" nginx /usr/sbin/nginx -p "$d" -c "$d/conf" -e "$d/log" ;;
	apache) srv_spawn "$1" apache /usr/sbin/apache2 -f "$d/conf" -DFOREGROUND ;;
	lighttpd) srv_spawn "$1" lighttpd /usr/sbin/lighttpd -D -f "$d/conf" ;;
	ceph) ceph_start "$1"; return ;;
	esac
	srv_answers "$1" 1200 ||
		{ tail -n 5 "$d/log" "$d"/*.out; fail "the server $1 does not come up"; }
}
# Until any HTTP answer comes: tries of 50 ms, while all that was started runs.
srv_answers() { # name tries
	local i p
	for i in $(seq "$2"); do
		[ "$($(srv_in "$1") curl -qsk --noproxy '*' -o /dev/null -m 2 -w '%{http_code}' \
			"$(srv_scheme "$1")://$(srv_at "$1"):${srv_port[$1]}/")" != 000 ] && return
		sleep 0.05
		for p in $(cat "$W/srv/$1"/*.run); do
			pgrep -g "$p" -r D,R,S,T >/dev/null || return
		done
	done
	return 1
}
server() {
	local name=$1 d=$W/srv/$1 o
	srv_kind[$name]=$2
	shift 2
	srv_opts[$name]="$*"
	case ${srv_kind[$name]} in
	nginx) have /usr/sbin/nginx; [ -e /usr/lib/nginx/modules/ngx_http_dav_ext_module.so ] || skip "nginx has no dav-ext" ;;
	apache) have /usr/sbin/apache2 ;;
	lighttpd) have /usr/sbin/lighttpd; [ -e /usr/lib/lighttpd/mod_webdav.so ] || skip "lighttpd has no webdav" ;;
	ceph) . "$SERVERS/ceph.sh" ;;
	*) fail "no such kind of server: ${srv_kind[$name]}" ;;
	esac
	have curl
	have openssl
	srv_ca
	mkdir -p "$d/fs"
	for o in ${srv_opts[$name]}; do
		if [[ $o == fs=* ]]; then
			mount -t tmpfs -o "size=${o#fs=}m,mode=755" tmpfs "$d/fs" 2>/dev/null ||
				skip "a disk of its own for a server needs root"
		fi
	done
	mkdir -p "$d/fs/data" "$d/fs/tmp"
	free_port
	srv_port[$name]=$port
	srv_user[$name]=node
	srv_pass[$name]=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
	if [ "${srv_kind[$name]}" != ceph ]; then
		"srv_${srv_kind[$name]}_conf" "$name" >"$d/conf"
		srv_users "$name" "${srv_pass[$name]}"
	fi
	srv_own "$d"
	server_start "$name"
}

proxy() {
	local d=$W/srv/$1-proxy args=() i
	have python3
	mkdir -p "$d"
	srv_opt "$1" tls && args=(--cert "$W/srv/tls/both.pem" --target-tls)
	free_port
	srv_proxy[$1]=$port
	SEED=$SEED setsid python3 "$SERVERS/faultproxy.py" "$d" "$port" "${srv_port[$1]}" "${args[@]}" >"$d/out" 2>&1 </dev/null &
	disown $!
	for i in $(seq 1200); do
		[ -S "$d/ctl" ] && return
		sleep 0.05
	done
	cat "$d/out"
	fail "no proxy before $1"
}
fault() {
	local d=$W/srv/$1-proxy IFS=,
	shift
	curl -qsf --unix-socket "$d/ctl" -d "[$*]" http://proxy/ >"$d/rules" || fail "the proxy does not take these rules: $*"
}
requests() { grep -cE "^> (${2:-.*})( |$)" "$W/srv/$1-proxy/requests"; }
forget_requests() { local n; for n in "${!srv_proxy[@]}"; do : >"$W/srv/$n-proxy/requests"; done; }

node_url() { # name [path] [option=value]...
	local scheme port=${srv_proxy[$1]:-${srv_port[$1]}} url kind=dav o name=$1 path=${2:-drive} host
	scheme=$(srv_scheme "$1")
	shift
	[ $# -eq 0 ] || shift
	[ "${srv_kind[$name]}" != ceph ] || kind=s3
	host=$(srv_at "$name")
	[[ " $* " != *" style=virtual "* ]] || host=s3.localhost
	url="$kind+$scheme://$host:$port/$path?profile=$name"
	[ "$(srv_at "$name")" = 127.0.0.1 ] || [ "$scheme" = https ] || url+="&insecure=1"
	[ $kind = dav ] || url+="&region=us-east-1"
	srv_opt "$name" tls && url+="&ca=$W/srv/tls/ca.pem"
	for o in "$@"; do url+="&$o"; done
	echo "$url"
}
credentials() {
	local n
	(umask 077; for n in "${!srv_kind[@]}"; do
		echo "[$n]"
		if [ "${srv_kind[$n]}" = ceph ]; then
			echo "access_key = ${srv_user[$n]}"
			echo "secret_key = ${srv_pass[$n]}"
		elif srv_opt "$n" bearer; then
			echo "bearer = ${srv_pass[$n]}"
		else
			echo "username = ${srv_user[$n]}"
			echo "password = ${srv_pass[$n]}"
		fi
	done >"$1")
}
