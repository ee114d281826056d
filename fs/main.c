/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * holdfast: the table of subcommands.
 */
#include "fs/cmd.h"

#include <malloc.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* Help is laid out here as it is shown. */
/* clang-format off */
static const struct command commands[] = {
	{"create", "make a volume",
	 "usage: holdfast create NAME [--node URL]... [--survive F] [--kit FILE] [--quota SIZE]\n"
	 "\n"
	 "Makes a volume of N nodes that loses nothing when any F of them are lost, and writes\n"
	 "the recovery kit with which it can be brought back on another machine.\n"
	 "Without --node: six directories below the state directory, to try it.\n"
	 "\n"
	 "  --node URL               a node, at least two of them:\n"
	 "                             dir:/absolute/path[?domain=NAME]\n"
	 "                             s3+https://host[:port]/bucket[/prefix]?region=R&profile=P\n"
	 "                             dav+https://host[:port]/path?profile=P\n"
	 "                           an empty directory, or a new one in a directory that is there;\n"
	 "                           profile=P says which credentials open it (none: default);\n"
	 "                           nodes of one domain are lost together, such as two folders of\n"
	 "                           one disk: no domain gets more than can be lost\n"
	 "  --survive F              how many lost nodes to survive, 1 to N - 1\n"
	 "                           (default: a third of them)\n"
	 "  --quota SIZE             how many bytes of contents it may hold, as 500G; mount -o quota=\n"
	 "                           changes it (default: what the nodes hold)\n"
	 "  --kit FILE               where to write the kit (default: kit.txt of the volume)\n"
	 "  --kit-needs-passphrase   the kit recovers only together with the passphrase\n"
	 "  --passphrase-file FILE   its first line is the passphrase\n"
	 "                           (default: $HOLDFAST_PASSPHRASE_FILE, else the terminal)\n"
	 "  --no-passphrase          a key file of mode 0600 opens the volume on this machine\n"
	 "  --credentials FILE       an ini file (mode 0600) with a section [P] for each profile:\n"
	 "                           access_key, secret_key, session_token, region for S3;\n"
	 "                           username and password, or bearer, for WebDAV; for what it\n"
	 "                           has not, the variables and files of AWS are used.  What the\n"
	 "                           nodes need is kept on this machine and in the kit, sealed\n"
	 "  --json                   report as JSON\n"
	 "\n"
	 "example: holdfast create work --node dir:/mnt/a --node dir:/mnt/b --node dir:/mnt/c\n",
	 cmd_create},
	{"mount", "mount a volume on a directory",
	 "usage: holdfast mount NAME DIR [-o OPT,...] [-f] [--supervise]\n"
	 "                      [--passphrase-file FILE] [--credentials FILE]\n"
	 "\n"
	 "Returns when the drive can be used; it is served by a process in the background, which\n"
	 "logs to the file log of the volume.  DIR must be empty.  No node needs to be there.\n"
	 "\n"
	 "  -f                       stay in the foreground, log to standard error\n"
	 "  --supervise              another process starts the drive again on DIR should its own\n"
	 "                           die; umount ends both (also -o supervise, for fstab)\n"
	 "  --passphrase-file FILE   its first line is the passphrase\n"
	 "                           (default: $HOLDFAST_PASSPHRASE_FILE, else the terminal)\n"
	 "  --credentials FILE       from now on these for the profiles that FILE has, as after a\n"
	 "                           changed password; kept on this machine.  A kit printed before\n"
	 "                           holds the old ones: recover takes --credentials too.  What a\n"
	 "                           server refuses, while it takes what is kept, is not taken:\n"
	 "  --untried                it is taken all the same\n"
	 "  -o OPT,...\n"
	 "     cache_size=SIZE       local space for contents, as 20G (default: chosen by the disk)\n"
	 "     quota=SIZE|none       from now on the drive holds no more bytes of contents than that:\n"
	 "                           writes beyond get EDQUOT, df shows it; it stays so when it is\n"
	 "                           mounted without this option, and after a recovery\n"
	 "     upload_limit=RATE     bytes a second to all servers together, as 500K or 2M\n"
	 "     download_limit=RATE   the same for what comes from them\n"
	 "     repair_limit=RATE     bytes a second of shards that are rebuilt or moved (default: any)\n"
	 "     scrub_limit=RATE      bytes a second that verifying by itself reads (default: 8M)\n"
	 "     fsync=local|remote    what fsync waits for: this disk, or the nodes (default: local)\n"
	 "     interval=SECONDS      between publications while something is new (default: 5)\n"
	 "     ro, noatime           read-only; access times are left as they are\n"
	 "     allow_other           others may use it, as the files' modes say; for users root must\n"
	 "                           put user_allow_other into /etc/fuse.conf\n"
	 "     uid=N, gid=N          all belongs to N here, whosever it is in the drive\n"
	 "     uid=S:H, gid=S:H      the drive's S is this machine's H, and back; may be repeated\n"
	 "     umask=MASK            permissions here are all but these (octal)\n"
	 "     dev, suid             device nodes and set-id bits work: root alone may ask\n"
	 "     nodev, nosuid, noexec\n"
	 "     remount               mount -o remount,ro and the like: changes ro, dev, suid, exec\n"
	 "     threads=N             that wait for requests, 1 to 64 (default: 4)\n"
	 "     debug                 every request into the log\n"
	 "     passphrase_file=PATH  as --passphrase-file, for fstab\n"
	 "     credentials=PATH      as --credentials, for fstab\n"
	 "     state=PATH            as $HOLDFAST_HOME, for fstab\n"
	 "\n"
	 "Root's mounts have allow_other, dev and suid, as any disk; those of others have not.\n"
	 "In /etc/fstab, where mount -a then finds it mounted:\n"
	 "  holdfast:work  /srv/work  fuse.holdfast  state=/var/lib/holdfast,_netdev  0 0\n"
	 "example: holdfast mount work ~/work\n",
	 cmd_mount},
	{"umount", "publish, then unmount",
	 "usage: holdfast umount DIR [--now]\n"
	 "\n"
	 "Publishes what is new, unmounts, and returns when the mount's process has ended.\n"
	 "When the nodes cannot be reached the drive stays mounted.\n"
	 "\n"
	 "  --now    do not wait, neither for the nodes nor for programs that use it (their open\n"
	 "           files are errors then) nor for a process that does not answer (it is killed).\n"
	 "           What was written stays safe on this machine and is published after the next\n"
	 "           mount\n"
	 "\n"
	 "example: holdfast umount ~/work\n",
	 cmd_umount},
	{"status", "what is safe where",
	 "usage: holdfast status [NAME] [--json]\n"
	 "\n"
	 "Says what is published and what is not yet, how many more nodes may be lost, and how\n"
	 "each node is.  Without NAME: all volumes of this machine.\n"
	 "\n"
	 "example: holdfast status work\n",
	 cmd_status},
	{"sync", "wait until all is published",
	 "usage: holdfast sync NAME [--protected] [--timeout SECONDS] [--json]\n"
	 "\n"
	 "  --protected        wait until everything is on all nodes, not only on enough\n"
	 "  --timeout SECONDS  give up then (default: when nothing has moved for a minute)\n"
	 "\n"
	 "example: holdfast sync work --protected\n",
	 cmd_sync},
	{"recover", "bring a volume to this machine with its kit",
	 "usage: holdfast recover KIT NAME [--node URL]...\n"
	 "\n"
	 "Needs the kit and any N - F of the nodes.  The passphrase given is that of this\n"
	 "machine from now on.  The machine that had the volume before can write no more.\n"
	 "\n"
	 "  --node URL                   where a node is now, when it moved\n"
	 "  --passphrase-file FILE       its first line is the passphrase of this machine\n"
	 "  --kit-passphrase-file FILE   that of the kit, for kits that need one\n"
	 "  --no-passphrase              a key file of mode 0600 opens the volume here\n"
	 "  --credentials FILE           goes before those in the kit, profile by profile\n"
	 "  --take-over                  even if the drive is on this machine under another name,\n"
	 "                               which then can publish no more\n"
	 "  --json                       report as JSON\n"
	 "\n"
	 "example: holdfast recover /media/usb/kit.txt work\n",
	 cmd_recover},
	{"node", "list, add, drain, remove, replace nodes",
	 "usage: holdfast node list NAME [--json]\n"
	 "       holdfast node add NAME URL [--credentials FILE] [--rebalance]\n"
	 "       holdfast node drain NAME NODE [--wipe]\n"
	 "       holdfast node remove NAME NODE [--lost] [--wipe]\n"
	 "       holdfast node replace NAME OLD NEW_URL [--credentials FILE] [--wipe]\n"
	 "\n"
	 "NODE is node-3, 3 or its URL.  A mount does the work and the command follows it; without\n"
	 "one the command does it.  What was begun goes on after a crash, with the next mount.\n"
	 "The kit stays as it is.\n"
	 "\n"
	 "  add                      a new node; --rebalance: what is stored is spread onto it too\n"
	 "  drain                    no new shards; those that are there move to the others\n"
	 "  remove                   a drained node; --lost: one that is gone for good, whose shards\n"
	 "                           are made again on the others\n"
	 "  replace                  all of OLD goes to a new node, copied where OLD still answers;\n"
	 "                           then OLD is removed\n"
	 "  --wipe                   what moved off the node is deleted there at once; else it is kept\n"
	 "                           there for seven days, and on a removed node for good\n"
	 "  --no-wait                return at once\n"
	 "  --credentials FILE       an ini file with a section for each profile\n"
	 "  --passphrase-file FILE   its first line is the passphrase, when nothing is mounted\n"
	 "\n"
	 "example: holdfast node replace work node-2 dir:/mnt/new/hf\n",
	 cmd_node},
	{"credentials", "a mounted drive takes new ones",
	 "usage: holdfast credentials NAME FILE [--untried]\n"
	 "\n"
	 "What FILE (ini, mode 0600, a section a profile) has replaces what is kept on this machine,\n"
	 "profile by profile; the nodes are asked with it at once, and it goes, sealed, to the list of\n"
	 "nodes that lies on the nodes, from which a recovery has it.  Where the drive is not mounted,\n"
	 "holdfast mount --credentials does the same.\n"
	 "\n"
	 "  --untried   even if a server refuses them and takes what is kept\n"
	 "\n"
	 "example: holdfast credentials work new.ini\n",
	 cmd_credentials},
	{"scrub", "read and verify every shard",
	 "usage: holdfast scrub NAME [--passphrase-file FILE] [--json]\n"
	 "\n"
	 "Every shard of every segment, now: what is missing or damaged is said and put on the\n"
	 "repair list, which a mount works off by itself (see repair).  The same goes on all the\n"
	 "time in the background of a mount, slowly.\n"
	 "\n"
	 "example: holdfast scrub work\n",
	 cmd_scrub},
	{"repair", "bring everything back to all nodes",
	 "usage: holdfast repair NAME [--timeout SECONDS] [--passphrase-file FILE] [--json]\n"
	 "\n"
	 "Rebuilds shards that are missing and waits until everything is on all nodes.\n"
	 "\n"
	 "example: holdfast repair work\n",
	 cmd_repair},
	{"fsck", "check a volume",
	 "usage: holdfast fsck NAME [--nodes] [--deep] [--repair] [--rebuild] [--json]\n"
	 "\n"
	 "Checks the database and the local contents of a volume that is not mounted.\n"
	 "\n"
	 "  --nodes     is every shard on its node\n"
	 "  --deep      and every byte of it genuine (implies --nodes)\n"
	 "  --repair    set right what can be set right without losing bytes\n"
	 "  --rebuild   make the database anew from the nodes, when it is damaged; the old\n"
	 "              one and all local contents are kept beside it\n"
	 "  --anyway    with --rebuild: even if it is sound and holds what is not published\n"
	 "  --passphrase-file FILE   its first line is the passphrase (for --nodes, --rebuild)\n"
	 "  --json      report as JSON\n"
	 "\n"
	 "Exit status 1 when anything was found.\n"
	 "example: holdfast fsck work --deep\n",
	 cmd_fsck},
	{"kit", "print the recovery kit again",
	 "usage: holdfast kit NAME [--from FILE] [--output FILE] [--qr | --qr-png FILE]\n"
	 "\n"
	 "The secret of the kit is not kept on this machine: the kit is read from where create\n"
	 "wrote it or recover read it, or from --from FILE, checked, and printed.\n"
	 "\n"
	 "  --output FILE   write it there (mode 0600) instead of printing it\n"
	 "  --qr            as a QR code, for a terminal\n"
	 "  --qr-png FILE   as a QR code, an image\n"
	 "\n"
	 "example: holdfast kit work --qr-png kit.png\n",
	 cmd_kit},
};
/* clang-format on */
#define COMMAND_CNT (sizeof commands / sizeof *commands)

static void list(FILE *to)
{
	fputs("usage: holdfast COMMAND [...]\n"
	      "\n"
	      "A drive that keeps working when any part of the world behind it stops.\n"
	      "\n",
	      to);
	for (size_t i = 0; i < COMMAND_CNT; i++)
		fprintf(to, "  %-12s%s\n", commands[i].name, commands[i].summary);
	fputs("\nholdfast COMMAND --help says more; holdfast --version is the version.\n"
	      "\n"
	      "Volumes are kept in $HOLDFAST_HOME, else $XDG_DATA_HOME/holdfast, else\n"
	      "~/.local/share/holdfast.  $HOLDFAST_PASSPHRASE_FILE names a file whose first line is\n"
	      "the passphrase.\n"
	      "Exit status: 0 done, 1 failed, 2 wrong usage.\n",
	      to);
}

static bool asks_for_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
			return true;
	return false;
}

/*
 * A caller that closed a standard stream must not have the database opened in its place.
 * Opened the wrong way round, so that using it is an error as it would be without this.
 */
static bool fill_streams(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			return false;
	return true;
}

/* A report that did not get out is a failure, whatever was done. */
static int finish(const char *cmd, int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	fprintf(stderr, "holdfast: %s: the report cannot be written to standard output\n", cmd);
	return status ? status : EXIT_FAILED;
}

int main(int argc, char **argv)
{
	const char *self = argc ? strrchr(argv[0], '/') : NULL;

	if (!fill_streams())
		return EXIT_FAILED;
	/* An arena a thread would keep tens of MiB that no thread uses. */
	mallopt(M_ARENA_MAX, 2);
	/* Commands say what went wrong themselves, in one line, at their end. */
	log_set_quiet(true);
	log_set_level(LOG_LVL_ERROR);
	self = self ? self + 1 : argc ? argv[0] : "";
	if (!strcmp(self, "mount.fuse.holdfast") || !strcmp(self, "mount.holdfast"))
		return cmd_mount_helper(argc, argv);
	if (argc < 2) {
		list(stdout);
		return finish("help", EXIT_DONE);
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		puts("holdfast " HOLDFAST_VERSION);
		return finish("version", EXIT_DONE);
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		list(stdout);
		return finish("help", EXIT_DONE);
	}
	for (size_t i = 0; i < COMMAND_CNT; i++) {
		if (strcmp(argv[1], commands[i].name))
			continue;
		if (asks_for_help(argc - 1, argv + 1)) {
			fputs(commands[i].help, stdout);
			return finish(argv[1], EXIT_DONE);
		}
		return finish(commands[i].name, commands[i].run(argc - 1, argv + 1));
	}
	fprintf(stderr, "holdfast: there is no command \"%s\": holdfast alone lists them\n",
		argv[1]);
	return EXIT_USAGE;
}
