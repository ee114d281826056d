# SPDX-License-Identifier: GPL-3.0-or-later
# The short form of `make soak`: faults at random, two nodes at a time, under fio with
# verification and a build; every byte compared after a recovery.  SEED=n repeats its order.
export SECS=${SECS:-60}
export ROUND=${ROUND:-$SECS}
exec bash "$(dirname "$0")/../soak/run"
