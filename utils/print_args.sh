#!/usr/bin/env bash
# Prints its arguments as a line that a shell reads as these arguments: `utils/print_args.sh run.sh --test_sets "a b"`.
line=
for word; do
    [[ $word =~ ^[[:alnum:]_@%+=:,./-]+$ ]] || word=${word@Q}
    line+=" $word"
done
echo "${line# }"
