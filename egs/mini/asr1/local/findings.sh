#!/usr/bin/env bash
# What docs/findings.md says of mini's own experiments: entropy panel, drift, emergence, attention, text that nobody said.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=../path.sh
. ./path.sh
# shellcheck source=../cmd.sh
. ./cmd.sh

help_message="usage: local/findings.sh [options]; comes after
  ./run.sh --train_iasft conf/train_iasft.yaml --train_joint conf/train_joint.yaml --decode_exp all

 stage  1 emergence   2 drift   3 attention   4 clips without speech   5 noise and silence around dev   6 entropy

  --stage N, --stop_stage N   first and last stage to run (1, 6)
  --snrs \"A B\"                decibels of the noise of stage 5 (20 10 5 0)
  --silences \"A B\"            seconds of silence at either end of the audio in stage 5 (1 2 5)
  --systems \"A B\"             experiments with an LLM (train_align train_iasft train_joint)
  --decodings \"A B\"           YAML files conf/A.yaml and so on (decode_ctc decode_greedy decode_greedy_guarded
                              decode_joint decode_guarded)
  --snapshot_every N          steps between the snapshots of stage 2 (400)
  --per_speaker N             utterances of each training speaker that stage 6 reads (20)
  --utterance ID              of dev, for stage 3 (awb0-001)
  --expdir, --dumpdir, --out  exp, dump and where tables and pictures go (exp_findings)
What is there already is not made again."
stage=1
stop_stage=6
snrs="20 10 5 0"
silences="1 2 5"
systems="train_align train_iasft train_joint"
decodings="decode_ctc decode_greedy decode_greedy_guarded decode_joint decode_guarded"
snapshot_every=400
per_speaker=20
utterance=awb0-001
expdir=exp
dumpdir=dump
out=exp_findings
lacks=
# shellcheck source=../../../../utils/parse_options.sh
. ../../../utils/parse_options.sh
# shellcheck source=../../../../utils/supervise.sh
. ../../../utils/supervise.sh
supervise_runners

read -ra names <<< "$systems"
experiments=("${names[@]/#/$expdir/}")

analyze() { # analyze FOLDER COMMAND ...: under --out, unless its table is there
    local folder=$out/$1
    shift
    [[ -f $folder/$1.md ]] || $train_cmd "$folder/$1.log" python -m asrllm.bin.analyze "$@" --out "$folder"
}

recognise() { # recognise SET NAME ...: every system by every decoding, scored as NAME by the file SET/NAME, or else by SET
    local set=$1 system decoding folder name ref
    shift
    for system in "${names[@]}"; do for decoding in $decodings; do
        folder=$expdir/$system/$decoding
        [[ ! -f $folder/${*: -1}/score.json ]] || continue
        $decode_cmd "$folder/$set/log/decode.log" \
            python -m asrllm.bin.decode --config "conf/$decoding.yaml" --exp "$expdir/$system" --data "$dumpdir/$set" \
            --out "$folder/$set"
        for name in "$@"; do
            ref=$dumpdir/$set/$name
            [[ -f $ref ]] || ref=$dumpdir/$set
            $train_cmd "$folder/$name/log/score.log" \
                python -m asrllm.bin.score --config conf/score.yaml --ref "$ref" --hyp "$folder/$set" \
                --out "$folder/$name"
        done
    done; done
}

run_stage() { (( stage <= $1 && $1 <= stop_stage )); }

if run_stage 1; then
    analyze emergence emergence "${experiments[@]}"
fi

if run_stage 2; then
    snapshots=()
    for (( step = snapshot_every; ; step += snapshot_every )); do
        [[ -d $expdir/train_encoder/snapshots/step-$step ]] || break
        snapshots+=("$expdir/train_encoder/snapshots/step-$step")
    done
    analyze drift_snapshots drift "${snapshots[@]}" "$expdir/train_encoder" "${experiments[@]}" --data "$dumpdir/dev"
    analyze drift_layers drift "$expdir/train_encoder" "${experiments[-1]}" --data "$dumpdir/dev"
    analyze drift_projector drift "${experiments[0]}" "${experiments[-1]}" --data "$dumpdir/dev"
fi

if run_stage 3; then
    for name in "${names[@]}"; do
        analyze "attention_$name" attention "$expdir/$name" --data "$dumpdir/dev" --utterance "$utterance"
    done
fi

if run_stage 4 || run_stage 5; then
    read -ra noisy <<< "$snrs"
    read -ra padded <<< "$silences"
    disturbed=("${noisy[@]/#/dev_snr}" "${padded[@]/#/dev_silence}")
    for set in non_speech "${disturbed[@]}"; do
        [[ -d $dumpdir/$set ]] || lacks=$set
    done
    # shellcheck disable=SC2086 # lists of numbers
    [[ -z $lacks ]] || $train_cmd "$out/log/conditions.log" \
        python local/conditions.py --data "$dumpdir/dev" --recordings data/dev --out "$dumpdir" \
        --snr $snrs --silence $silences
fi

if run_stage 4; then
    recognise non_speech noise tones pauses
    analyze non_speech hallucination --exp "$expdir" --only '*/noise' --only '*/tones' --only '*/pauses'
fi

if run_stage 5; then
    for set in dev "${disturbed[@]}"; do
        recognise "$set" "$set"
    done
    analyze noise hallucination --exp "$expdir" --only '*/dev' --only '*/dev_snr*'
    analyze silence hallucination --exp "$expdir" --only '*/dev' --only '*/dev_silence*'
fi

if run_stage 6; then
    # Probes want many speakers: training audio, at normal speed. What a model has not heard: dev and test together.
    [[ -d $dumpdir/probed ]] ||
        ../../../utils/subset_data_dir.sh --per-spk "$dumpdir/train" "$per_speaker" "$dumpdir/probed"
    [[ -d $dumpdir/held_out ]] || ../../../utils/combine_data.sh "$dumpdir/held_out" "$dumpdir/dev" "$dumpdir/test"
    for set in probed held_out; do
        analyze "entropy_$set" entropy "$expdir/train_encoder" "${experiments[@]}" --data "$dumpdir/$set"
    done
fi
