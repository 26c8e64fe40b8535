#!/usr/bin/env bash
# How well edits work on zsRE and CounterFact, by every method, with tables, plots and a page for each:
#
#     benchmarks/evaluation.sh DATA/dev out/evaluation [JOBS]
#
# Each method runs in a process of its own, JOBS at a time (4). It goes on where it was interrupted.
set -euo pipefail
export data=$1 out=$2 OMP_NUM_THREADS=1  # processes that share cores get in each other's way with more
jobs=${3:-4}
# the slowest first
methods="all_in_context fine_tuned adaptor ensemble counterfactual in_context verbatim retrieve_and_prompt"

evaluate() {  # DATASET METHOD...
    case $1 in
        zsre) of=("$data"/ZsRE-test-all.json*) edits=1,10,100,1000 ;;
        counterfact) of=("$data"/counterfact-edit-first5000.json*) edits=1000 ;;
    esac
    semedit evaluate --dataset "$1" --data "${of[0]}" --unrelated "$(echo "$data"/NQ-open.dev.jsonl*)" \
        --edits "$edits" --limit 1000 --sample 200 --out "$out/$1" --method "${@:2}"
}
export -f evaluate

for dataset in zsre counterfact; do
    for method in $methods; do echo "$dataset $method"; done
done | xargs -P "$jobs" -L 1 bash -c 'evaluate "$0" "$1" > /dev/null'
for dataset in zsre counterfact; do
    # shellcheck disable=SC2086
    evaluate $dataset in_context verbatim counterfactual adaptor ensemble \
        all_in_context retrieve_and_prompt fine_tuned
done
