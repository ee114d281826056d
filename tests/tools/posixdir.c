/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * posixdir DIR [GROUP]...: what POSIX and Linux promise about listings, names, paths, file
 * handles and statfs.  A native file system passes all of it; see posix.c.
 */
#include <dirent.h>
#include <sys/statfs.h>
#include "tests/tools/check.h"

static int each_entry(DIR *d, const char *prefix, unsigned char *seen, int cnt)
{
	struct dirent *e;
	size_t len = strlen(prefix);
	int others = 0;

	while ((e = readdir(d)))
		if (!strncmp(e->d_name, prefix, len) && atoi(e->d_name + len) < cnt)
			seen[atoi(e->d_name + len)]++;
		else
			others++;
	return others;
}

#define LISTED 3000
static void listing(void)
{
	static unsigned char seen[LISTED];
	static long pos[LISTED + 8];
	static char at[LISTED + 8][16];
	char name[16];
	struct dirent *e;
	int cnt = 0;

	OK(mkdir("d", 0755));
	OK(chdir("d"));
	for (int i = 0; i < LISTED; i++) {
		snprintf(name, sizeof(name), "s%d", i);
		if (i % 100 == 1)
			OK(mkdir(name, 0755));
		else if (i % 100 == 2)
			OK(symlink("x", name));
		else
			touch(name);
	}
	DIR *d = opendir(".");
	if (!IS(d != NULL))
		return;
	/* The position of every entry, and the entry, its type and number. */
	for (;;) {
		long p = telldir(d);

		errno = 0;
		e = readdir(d);
		if (!e || cnt == LISTED + 8)
			break;
		struct stat st = stat_of(e->d_name);
		EQ(st.st_ino, e->d_ino);
		if (e->d_type != DT_UNKNOWN)
			EQ(IFTODT(st.st_mode), e->d_type);
		snprintf(at[cnt], sizeof(at[cnt]), "%.15s", e->d_name);
		pos[cnt++] = p;
	}
	EQ(0, errno);
	EQ(LISTED + 2, cnt);
	for (int i = 0; i < 400; i++) {
		int k = (int)((unsigned)i * 7919u % (unsigned)HF_MAX(cnt, 1));

		seekdir(d, pos[k]);
		e = readdir(d);
		if (IS(e != NULL))
			IS(!strcmp(e->d_name, at[k]));
	}
	/* After rewinddir the listing is that of now. */
	touch("late");
	OK(unlink("s0"));
	rewinddir(d);
	memset(seen, 0, sizeof(seen));
	EQ(3, each_entry(d, "s", seen, LISTED));
	EQ(0, seen[0]);
	EQ(1, seen[1]);
	closedir(d);

	/* A small buffer, as some programs have, gives the same. */
	int fd = FD(open(".", O_RDONLY | O_DIRECTORY));
	char buf[128];
	long n;
	cnt = 0;
	while ((n = syscall(SYS_getdents64, fd, buf, sizeof(buf))) > 0)
		for (long o = 0; o < n; cnt++) {
			uint16_t len;
			memcpy(&len, buf + o + 16, 2);
			o += len;
		}
	EQ(0, n);
	EQ(LISTED + 2, cnt);
	FAILS(EINVAL, (lseek(fd, 0, SEEK_SET), syscall(SYS_getdents64, fd, buf, 8)));
	OK(close(fd));
	OK(chdir(".."));
}

static void listing_changes(void)
{
	static unsigned char stable[LISTED], gone[LISTED], born[LISTED];
	char name[16], buf[1024];
	int removed = 0, made = 0;
	long n;

	OK(mkdir("d", 0755));
	OK(chdir("d"));
	for (int i = 0; i < LISTED; i++) {
		snprintf(name, sizeof(name), "s%d", i);
		touch(name);
		snprintf(name, sizeof(name), "x%d", i);
		touch(name);
	}
	/* While it is listed piece by piece, names go, come and change. */
	int fd = FD(open(".", O_RDONLY | O_DIRECTORY));
	while ((n = syscall(SYS_getdents64, fd, buf, sizeof(buf))) > 0) {
		for (long at = 0; at < n;) {
			const char *e = buf + at + 19;
			uint16_t len;
			int k = atoi(e + 1);

			memcpy(&len, buf + at + 16, 2);
			at += len;
			if (k < 0 || k >= LISTED)
				continue;
			if (e[0] == 's')
				stable[k]++;
			else if (e[0] == 'x')
				gone[k]++;
			else if (e[0] == 'n')
				born[k]++;
		}
		for (int i = 0; i < 8 && removed < LISTED; i++, removed++) {
			snprintf(name, sizeof(name), "x%d", removed);
			OK(unlink(name));
		}
		for (int i = 0; i < 4 && made < LISTED; i++, made++) {
			snprintf(name, sizeof(name), "n%d", made);
			touch(name);
		}
	}
	EQ(0, n);
	int lost = 0, twice = 0;
	for (int i = 0; i < LISTED; i++) {
		lost += stable[i] == 0;
		twice += (stable[i] > 1) + (gone[i] > 1) + (born[i] > 1);
	}
	EQ(0, lost);
	EQ(0, twice);
	OK(close(fd));
	OK(chdir(".."));
}

static void names(void)
{
	char name[300], other[300], got[300];
	struct dirent *e;

	memset(name, 'n', sizeof(name));
	name[255] = 0;
	put_file(name, "long", 4);
	EQ(4, stat_of(name).st_size);
	memset(other, 'o', sizeof(other));
	other[255] = 0;
	OK(rename(name, other));
	OK(link(other, name));
	OK(unlink(other));
	OK(mkdir(other, 0755));
	OK(rmdir(other));
	OK(symlink(name, other));
	EQ(255, readlink(other, got, sizeof(got)));
	OK(unlink(other));
	other[255] = 'o';
	other[256] = 0;
	FAILS(ENAMETOOLONG, open(other, O_RDWR | O_CREAT, 0644));
	FAILS(ENAMETOOLONG, access(other, F_OK));
	FAILS(ENAMETOOLONG, mkdir(other, 0755));
	FAILS(ENAMETOOLONG, symlink("x", other));
	FAILS(ENAMETOOLONG, link(name, other));
	FAILS(ENAMETOOLONG, rename(name, other));
	FAILS(ENAMETOOLONG, rename(other, name));
	FAILS(ENAMETOOLONG, unlink(other));
	FAILS(ENAMETOOLONG, rmdir(other));
	FAILS(ENAMETOOLONG, mkfifo(other, 0644));
	OK(unlink(name));

	/* Every byte but '/' and 0 is a name's, alone and within. */
	static bool seen[256];
	for (int c = 1; c < 256; c++) {
		if (c == '/')
			continue;
		char in[4] = {'a', (char)c, 'b', 0}, one[2] = {(char)c, 0};

		put_file(in, one, 1);
		if (c != '.')
			OK(mkdir(one, 0755));
	}
	DIR *d = opendir(".");
	while (d && (e = readdir(d)))
		if (e->d_name[0] == 'a' && e->d_name[1] && e->d_name[2] == 'b')
			seen[(uint8_t)e->d_name[1]] = true;
	if (d)
		closedir(d);
	for (int c = 1; c < 256; c++) {
		if (c == '/')
			continue;
		char in[4] = {'a', (char)c, 'b', 0}, one[2] = {(char)c, 0};

		IS(seen[c]);
		EQ(1, stat_of(in).st_size);
		OK(unlink(in));
		if (c != '.')
			OK(rmdir(one));
	}
	static const char *const odd[] = {
		"\xc3\xa4", "a\xcc\x88", "\xff\xfe",	     "new\nline", "...",  " ",
		"-rf",	    "a\\b",	 "\xf0\x9f\x98\x80", "CON",	  "a:b*?"};
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
		put_file(odd[i], "0123456789abcdef", i);
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
		EQ(i, stat_of(odd[i]).st_size);
}

static void paths(void)
{
	char part[202], path[4200] = "";
	size_t len = 0;

	memset(part, 'd', sizeof(part));
	part[199] = '/';
	part[200] = 0;
	/* 20 directories of 199 bytes and a slash are 4000; PATH_MAX counts the final 0. */
	while (len < 4000) {
		memcpy(path + len, part, 201);
		len += 200;
		OK(mkdir(path, 0755));
	}
	memset(path + len, 'f', 95);
	path[4095] = 0;
	put_file(path, "deep", 4);
	EQ(4, stat_of(path).st_size);
	OK(rename(path, "up"));
	OK(rename("up", path));
	path[4095] = 'f';
	path[4096] = 0;
	FAILS(ENAMETOOLONG, open(path, O_RDWR | O_CREAT, 0644));
	FAILS(ENAMETOOLONG, access(path, F_OK));
	FAILS(ENAMETOOLONG, mkdir(path, 0755));
	/* The tree may go deeper than a path can say. */
	path[4000] = 0;
	if (child()) {
		OK(chdir(path));
		for (int i = 0; i < 20; i++) {
			OK(mkdir(part, 0755));
			OK(chdir(part));
		}
		put_file("bottom", "b", 1);
		for (int i = 0; i < 20; i++)
			OK(chdir(".."));
		EQ(4, stat_of(memset(calloc(1, 96), 'f', 95)).st_size);
		_exit(0);
	}
}

static void handles(void)
{
	struct {
		struct file_handle h;
		unsigned char bytes[MAX_HANDLE_SZ];
	} f, d;
	int id;
	char got[8];

	put_file("f", "handle", 6);
	OK(mkdir("d", 0755));
	f.h.handle_bytes = d.h.handle_bytes = MAX_HANDLE_SZ;
	OK(name_to_handle_at(AT_FDCWD, "f", &f.h, &id, 0));
	OK(name_to_handle_at(AT_FDCWD, "d", &d.h, &id, 0));
	int root = FD(open(".", O_RDONLY | O_DIRECTORY));
	int fd = FD(open_by_handle_at(root, &f.h, O_RDONLY));
	EQ(6, read(fd, got, sizeof(got)));
	OK(close(fd));
	fd = FD(open_by_handle_at(root, &d.h, O_RDONLY | O_DIRECTORY));
	EQ(stat_of("d").st_ino, stat_fd(fd).st_ino);
	OK(close(fd));
	/* It outlives what the kernel remembers of the file, but not the file. */
	int drop = open("/proc/sys/vm/drop_caches", O_WRONLY);
	if (drop >= 0) {
		sync();
		EQ(1, write(drop, "2", 1));
		close(drop);
	}
	OK(rename("f", "d/g"));
	fd = FD(open_by_handle_at(root, &f.h, O_RDONLY));
	EQ(6, read(fd, got, sizeof(got)));
	OK(close(fd));
	OK(unlink("d/g"));
	/* The kernel may take a moment to let go of it. */
	for (int i = 0; i < 100 && (fd = open_by_handle_at(root, &f.h, O_RDONLY)) >= 0; i++) {
		close(fd);
		nap_ms(20);
	}
	FAILS(ESTALE, fd);
	OK(close(root));
}

static void space(void)
{
	struct statfs fs;
	int fd = FD(open(".", O_RDONLY));

	OK(statfs(".", &fs));
	IS(fs.f_bsize >= 512 && (fs.f_bsize & (fs.f_bsize - 1)) == 0);
	EQ(255, fs.f_namelen);
	IS(fs.f_blocks > 0);
	IS(fs.f_bfree <= fs.f_blocks);
	IS(fs.f_bavail <= fs.f_bfree);
	IS(fs.f_files == 0 || fs.f_ffree <= fs.f_files);
	OK(fstatfs(fd, &fs));
	OK(syncfs(fd));
	EQ(255, fpathconf(fd, _PC_NAME_MAX));
	OK(close(fd));
}

int main(int argc, char **argv)
{
	static const struct checks groups[] = {
		{"listing", listing, false}, {"listing-changes", listing_changes, false},
		{"names", names, false},     {"paths", paths, false},
		{"handles", handles, true},  {"space", space, false},
		{NULL, NULL, false},
	};

	return check_main(argc, argv, groups);
}
