#!/usr/bin/env bash
# Source this: turns `--some-name value` or `--some_name=value` into the shell variable some_name, which must be set
# already. `--config FILE` is sourced before the other options; a variable that holds true or false takes only these
# (and true where no value follows); `--help` prints $help_message. Other arguments stay in "$@". Anything wrong: one
# sentence, exit code 2.

_option_error() {
    echo "$(basename "$0"): $1 ($(basename "$0") --help lists the options)" >&2
    exit 2
}

_previous=
for _argument in "$@"; do
    case $_argument in --config=*) _previous=--config; _argument=${_argument#*=} ;; esac
    if [[ $_previous == --config ]]; then
        [[ -r $_argument ]] || _option_error "--config: no such file: '$_argument'"
        # shellcheck disable=SC1090
        . "$_argument"
    fi
    _previous=$_argument
done

while [[ $# -gt 0 ]]; do
    case $1 in
        --help | -h)
            printf '%s\n' "${help_message:-$(basename "$0"): no help is written}"
            exit 0
            ;;
        --config) shift 2 || _option_error "--config wants a file"; continue ;;
        --config=*) shift; continue ;;
        --) shift; break ;;
        --*) ;;
        *) break ;;
    esac
    _option=${1%%=*}
    _name=${_option#--}
    _name=${_name//-/_}
    [[ $_name =~ ^[a-z][a-z0-9_]*$ && -n ${!_name+set} ]] || _option_error "unknown option $_option"
    if [[ $1 == *=* ]]; then
        _value=${1#*=}
    elif [[ ${!_name} =~ ^(true|false)$ && (-z ${2:-} || ${2:-} == --*) ]]; then
        _value=true
    else
        [[ $# -ge 2 ]] || _option_error "option $_option wants a value"
        _value=$2
        shift
    fi
    shift
    if [[ ${!_name} =~ ^(true|false)$ && ! $_value =~ ^(true|false)$ ]]; then
        _option_error "option $_option takes true or false, not '$_value'"
    fi
    printf -v "$_name" '%s' "$_value"
done
unset _previous _argument _option _name _value
