#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Seeds of the simulator until one fails; BREAK=mechanism switches that off (build/sim -b).
set -u
cd "$(dirname "$0")/../.." || exit 2
exec "${B:-build}/sim" -f -j 2 ${BREAK:+-b "$BREAK"} "${SEEDS:-1-200}"
