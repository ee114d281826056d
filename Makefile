# Holdfast: plain GNU make.  Everything built lands below $(B).  `make help` lists the targets.
# SPDX-License-Identifier: GPL-3.0-or-later

CC       ?= gcc
SAN      ?=
comma    := ,
B        ?= build
ifneq ($(SAN),)
B        := build/$(subst $(comma),-,$(SAN))
SANFLAGS := -fsanitize=$(SAN) -fno-omit-frame-pointer
endif
PREFIX   ?= /usr/local
Q        := $(if $(V),,@)

PKGS     := fuse3 libsodium libisal sqlite3 libzstd jansson libqrencode libcurl libcrypto expat inih
PKG_C    := $(shell pkg-config --cflags $(PKGS))
PKG_L    := $(shell pkg-config --libs $(PKGS)) -lpthread -lm
WARN     := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes \
            -Wmissing-prototypes -Wvla
CFLAGS   ?= -O2 -g
ALL_C     = -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DFUSE_USE_VERSION=314 -I. -I$(B) \
            $(WARN) $(SANFLAGS) $(PKG_C) $(CFLAGS)

LAYERS   := net cache fs
SRC      := $(wildcard $(addsuffix /*.c,$(LAYERS)))
OBJ      := $(SRC:%.c=$(B)/%.o)
LIBS     := $(LAYERS:%=$(B)/%.a)
UNIT     := $(patsubst tests/unit/%.c,$(B)/unit/%,$(wildcard tests/unit/test_*.c))
REPLAY   := $(patsubst tests/fuzz/fuzz_%.c,$(B)/fuzz/replay_%,$(wildcard tests/fuzz/fuzz_*.c))
TOOLS    := $(patsubst tests/tools/%.c,$(B)/tools/%,$(wildcard tests/tools/*.c)) \
            $(patsubst tests/power/%.c,$(B)/power/%,$(wildcard tests/power/*.c))
PRELOAD  := $(patsubst tests/tools/preload/%.c,$(B)/tools/%.so,$(wildcard tests/tools/preload/*.c))

.PHONY: all check tests unit sys fuzz nth soak proof bench bench-net lint fmt install help clean tools check-controls check-tsan power sim differ ace lies
.DELETE_ON_ERROR:
.SECONDARY:

all: $(B)/holdfast ## build $(B)/holdfast

$(B)/holdfast: $(B)/fs/main.o $(LIBS)
	@echo "  LINK  $@"
	$(Q)$(CC) $(SANFLAGS) $(CFLAGS) -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(LDFLAGS) $(PKG_L)

define layer
$(B)/$(1).a: $(filter-out $(B)/fs/main.o,$(filter $(B)/$(1)/%,$(OBJ)))
	$(Q)rm -f $$@; ar rcs $$@ $$^
endef
$(foreach l,$(LAYERS),$(eval $(call layer,$(l))))

$(B)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(ALL_C) -MMD -MP -c -o $@ $<

# The schema is one .sql file; it is compiled in as a string.
$(B)/cache/schema.inc: cache/schema.sql
	@mkdir -p $(@D)
	$(Q)sed -e 's/--.*//' -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$$/\\n"/' $< > $@
$(B)/cache/db.o: $(B)/cache/schema.inc

$(B)/unit/%: tests/unit/%.c $(LIBS)
	@mkdir -p $(@D)
	@echo "  TEST  $@"
	$(Q)$(CC) $(ALL_C) -MMD -MP -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(LDFLAGS) $(PKG_L) -lcmocka

$(B)/tools/%: tests/tools/%.c $(LIBS)
	@mkdir -p $(@D)
	@echo "  TOOL  $@"
	$(Q)$(CC) $(ALL_C) -MMD -MP -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(LDFLAGS) $(PKG_L)

$(B)/power/%: tests/power/%.c $(LIBS)
	@mkdir -p $(@D)
	@echo "  TOOL  $@"
	$(Q)$(CC) $(ALL_C) -MMD -MP -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(LDFLAGS) $(PKG_L)

# Preloaded into the program: no sanitizer, none of our code.
$(B)/tools/%.so: tests/tools/preload/%.c
	@mkdir -p $(@D)
	@echo "  TOOL  $@"
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE $(WARN) -Wno-missing-prototypes -O2 -g -fPIC -ftls-model=initial-exec -shared -o $@ $<

tools: $(TOOLS) $(PRELOAD)

$(B)/fuzz/replay_%: tests/fuzz/fuzz_%.c tests/fuzz/replay.c $(LIBS)
	@mkdir -p $(@D)
	@echo "  TEST  $@"
	$(Q)$(CC) $(ALL_C) -Wno-missing-prototypes -o $@ $(filter %.c,$^) -Wl,--start-group $(LIBS) -Wl,--end-group $(LDFLAGS) $(PKG_L)

# The simulator: threads, locks, clocks and the space of the disk are its own.
SIM_WRAP := $(addprefix -Wl$(comma)--wrap=pthread_,create join self setname_np mutex_init mutex_destroy \
            mutex_lock mutex_trylock mutex_unlock cond_init cond_destroy cond_wait cond_timedwait \
            cond_signal cond_broadcast rwlock_init rwlock_destroy rwlock_rdlock rwlock_tryrdlock \
            rwlock_wrlock rwlock_trywrlock rwlock_unlock) \
            $(addprefix -Wl$(comma)--wrap=,clock_gettime time fstatvfs64 pread64 pwrite64 log_msg history_put store_commit scrub_mark)
$(B)/sim: $(wildcard tests/sim/*.[ch]) tests/unit/powercut.h $(LIBS)
	@mkdir -p $(@D)
	@echo "  TEST  $@"
	$(Q)$(CC) $(ALL_C) -Wno-missing-prototypes -o $@ $(filter %.c,$^) $(SIM_WRAP) -Wl,--start-group $(LIBS) -Wl,--end-group $(LDFLAGS) $(PKG_L)

# It brings its own threads, which sanitizers do not know.
ifeq ($(SAN),)
SIM := $(B)/sim
endif

tests: tools $(UNIT) $(REPLAY) $(SIM) ## build the tests

check: all tests ## run every test: T=word selects some
	$(Q)B=$(B) CC="$(CC)" tests/run $(T)

unit: $(UNIT) ## run the unit tests alone
	$(Q)B=$(B) CC="$(CC)" tests/run unit/ $(T)

sys: all tools ## run the system tests alone
	$(Q)B=$(B) tests/run sys/ $(T)

nth: all tools ## every n of 600 and 610: each call of a session fails, or is the last (hours)
	$(Q)B=$(B) ALL=1 SYS_LIMIT=$(if $(filter command line environment,$(origin SECS)),$(SECS),864000) tests/run sys/600 sys/610

power: all tools ## CUTS (500) power cuts on ext4 and xfs, as root: what a disk may keep of what was not flushed
	$(Q)B=$(B) CUTS=$(or $(CUTS),500) SYS_LIMIT=864000 tests/run sys/620

check-controls: all tools $(SIM) ## switch off each mechanism in turn: the test that shows it must fail
	$(Q)B=$(B) tests/controls.sh $(T)
	$(Q)B=$(B) CC="$(CC)" tests/controls-source.sh $(T)

check-tsan: ## every test under ThreadSanitizer; T=word selects some
	$(Q)$(MAKE) --no-print-directory SAN=thread check

sim: $(SIM) ## the simulator: SEEDS=N (10000) of them from FIRST=n on, two at a time
	$(Q)first=$(if $(FIRST),$(FIRST),$$(date +%s)000); echo "seeds from $$first"; \
		$(B)/sim -j 2 $$first-$$((first + $(if $(SEEDS),$(SEEDS),10000) - 1))

differ: all tools ## sys/145 with STEPS random operations (100000): SEED=n repeats them
	$(Q)B=$(B) STEPS=$(if $(filter command line environment,$(origin STEPS)),$(STEPS),100000) SYS_LIMIT=864000 tests/run sys/145

ace: $(B)/unit/test_ace ## all sequences of one and two operations, a crash at each persistence point (hours)
	$(Q)ALL=1 $(B)/unit/test_ace

lies: all tools ## every way to lie about every kind of object on a node (630), leaks (635), guards (640)
	$(Q)B=$(B) ALL=1 SYS_LIMIT=7200 tests/run sys/630 sys/635 sys/640

soak: all tools ## load and faults at random for SECS seconds (3600), then everything compared
	$(Q)B=$(abspath $(B)) SECS=$(if $(filter command line environment,$(origin SECS)),$(SECS),3600) tests/soak/run

proof: all tools ## a drive on a Ceph cluster of three OSDs, one of which is killed (10 to 20 minutes on two cores)
	$(Q)B=$(abspath $(B)) tests/proof/three-osds.sh

bench: all ## print `name value unit` lines, with the ratio to the baselines of the same run: T='large small' selects parts
	$(Q)B=$(B) tests/bench/run $(T)

bench-net: all ## the same over links between namespaces, as root: T='b a' selects scenes
	$(Q)B=$(B) tests/bench/net/run $(T)

# fuzz-NAME runs for SECS seconds with clang's libFuzzer, seeded from the corpus.  It is built
# in a folder of its own; inputs that it finds stay there.  One that crashes, takes too long or
# asks for too much memory lands in the corpus, where `make check` finds it until it is mended.
SECS     ?= 60
SEED     ?= 0
FUZZ     := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZER_C := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
FUZZ_MAX := -timeout=10 -rss_limit_mb=512 -malloc_limit_mb=64
FUZZ_CC   = $(MAKE) --no-print-directory SAN= B=$(B)/fuzzer CC=clang SANFLAGS="$(FUZZER_C)"
fuzz: ## fuzz every decoder, one after the other, each for SECS seconds; SEED=n repeats
	$(Q)$(FUZZ_CC) $(FUZZ:%=$(B)/fuzzer/fuzz_%)
	$(Q)for n in $(FUZZ); do $(MAKE) --no-print-directory fuzz-$$n || bad="$$bad $$n"; done; \
	[ -z "$$bad" ] || { echo "fuzz: found something:$$bad (see git status tests/fuzz/corpus)"; exit 1; }

fuzz-%: tests/fuzz/fuzz_%.c ## fuzz one decoder, as in `make fuzz-commit SECS=60`
	@mkdir -p $(B)/fuzzer/found/$*
	$(Q)$(FUZZ_CC) $(B)/fuzzer/fuzz_$*
	cd $(B)/fuzzer && ./fuzz_$* $(FUZZ_MAX) -seed=$(SEED) -max_total_time=$(SECS) \
		-artifact_prefix=$(CURDIR)/tests/fuzz/corpus/$*/ found/$* $(CURDIR)/tests/fuzz/corpus/$*

$(B)/fuzz_%: tests/fuzz/fuzz_%.c $(LIBS)
	@echo "  FUZZ  $@"
	$(Q)$(CC) $(ALL_C) -Wno-missing-prototypes -fsanitize=fuzzer -o $@ $< -Wl,--start-group $(LIBS) -Wl,--end-group $(LDFLAGS) $(PKG_L)

lint: ## warnings of clang, cppcheck, shellcheck
	$(Q)B=$(B) scripts/lint

fmt: ## format the sources
	clang-format -i $(wildcard fs/*.[ch] cache/*.[ch] net/*.[ch] tests/*/*.[ch])

install: all ## install below $(PREFIX)
	install -D -m 755 $(B)/holdfast $(DESTDIR)$(PREFIX)/bin/holdfast
	mkdir -p $(DESTDIR)$(PREFIX)/sbin
	ln -sf ../bin/holdfast $(DESTDIR)$(PREFIX)/sbin/mount.fuse.holdfast
	mkdir -p $(DESTDIR)$(PREFIX)/lib/systemd/user
	sed 's|@PREFIX@|$(PREFIX)|' scripts/holdfast@.service >$(DESTDIR)$(PREFIX)/lib/systemd/user/holdfast@.service

clean: ## remove everything built
	rm -rf build

help: ## this list
	@grep -hE '^[a-z%-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

-include $(OBJ:.o=.d) $(UNIT:=.d) $(TOOLS:=.d)
