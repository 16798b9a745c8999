# shellcheck shell=bash
# Source this in a script that runs long commands: who kills the script ends its command too. A shell heeds a signal only
# after the command in its foreground, so `supervise COMMAND ...` has the command in the background, and waits.

supervise() { # in a process group of its own: all that it starts goes with it
    set -m
    "$@" </dev/null &
    set +m
    wait $!
}

supervise_runners() { # those of cmd.sh, from here on; only in this script: what it starts knows no `supervise`
    export -n train_cmd decode_cmd
    train_cmd="supervise $train_cmd" decode_cmd="supervise $decode_cmd"
}

stop_supervised() { # stop_supervised CODE
    trap - INT TERM HUP
    local group
    for group in $(jobs -rp); do kill -TERM -- "-$group" || true; done 2>/dev/null
    wait 2>/dev/null # bash would report a command that it sees killed
    exit "$1"
}

trap 'stop_supervised 130' INT
trap 'stop_supervised 143' TERM HUP
