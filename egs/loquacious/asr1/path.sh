#!/usr/bin/env bash
# Source this, here, to run the programs by hand: `. ./path.sh`.
# shellcheck source=../../../tools/activate.sh
. ../../../tools/activate.sh
