PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# evaluation files that are not trained on; CounterFact's names too many subjects to do without them
KEEP_OUT = --leave-out $(DATA)/dev/ZsRE-test-all.json $(DATA)/dev/zsre_mend_edit.json \
	--unseen $(DATA)/dev/counterfact-edit-first5000.json
TRAIN_SCOPE = $(BIN)/accelerate launch --num_cpu_threads_per_process $$(nproc) training/scope_classifier.py \
	$(KEEP_OUT) --data $(DATA)/train
SEEDS ?= 0 1

.PHONY: demo test check figures bench crashes scale scope answers grace learning classifier retriever evaluation clean

demo: $(VENV)/ready  ## wrap, edit, generate, explain, undo: on the shipped model
	$(BIN)/semedit demo

test: $(VENV)/ready check  ## lint, type-check, run the tests
	$(BIN)/pytest

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

figures: $(VENV)/ready  ## what the shipped model knows and reads; DATA=folder with train/ and dev/
	$(BIN)/python training/measure_base_model.py semedit/models/base --config configs/base_model.yaml \
		--data $(DATA)/train --edits $(DATA)/dev/ZsRE-test-all.json \
		--leave-out $(DATA)/dev/ZsRE-test-all.json $(DATA)/dev/zsre_mend_edit.json

answers: $(VENV)/ready  ## whether 1,000 edits are answered, from the query to the text; DATA=folder with dev/
	$(BIN)/python benchmarks/answers.py --data $(DATA)/dev

evaluation: $(VENV)/ready  ## every method on zsRE and CounterFact, with plots and a page in out/; DATA=folder with dev/, JOBS=4
	PATH="$(CURDIR)/$(BIN):$$PATH" benchmarks/evaluation.sh $(DATA)/dev out/evaluation $(or $(JOBS),4)

grace: $(VENV)/ready  ## GRACE as published and repaired, in free generation; DATA=folder with dev/, MODEL=PATH of another model, LAYER, JOBS=4
	$(BIN)/python benchmarks/grace.py --data $(DATA)/dev $(if $(MODEL),--model $(MODEL)) $(if $(LAYER),--layer $(LAYER)) \
		--out out/grace$(if $(MODEL),-$(notdir $(patsubst %/,%,$(MODEL)))) --jobs $(or $(JOBS),4)

learning: $(VENV)/ready  ## how much faster a value is learned than through the full model, as a ratio in one run
	$(BIN)/python benchmarks/learning.py

classifier: $(VENV)/ready  ## trains the scope classifier that ships: twice, in two stages; DATA=folder with train/ and dev/, SEEDS="0 1"
	for seed in $(SEEDS); do \
		$(TRAIN_SCOPE) configs/scope_classifier.yaml --seed $$seed --output out/broad-$$seed && \
		$(TRAIN_SCOPE) configs/scope_classifier_hard.yaml --seed $$seed --output out/scope-$$seed \
			--start out/broad-$$seed || exit 1; \
	done
	$(TRAIN_SCOPE) configs/scope_classifier_hard.yaml --average $(addprefix out/scope-,$(SEEDS)) --output out/scope

retriever: $(VENV)/ready  ## compares retrievers; DATA=folder with train/ and dev/
	$(BIN)/accelerate launch training/retriever.py configs/retriever.yaml --data $(DATA)/train --output out/retriever \
		$(KEEP_OUT)
	$(BIN)/accelerate launch training/retriever.py configs/retriever.yaml --data $(DATA)/train --output out/static \
		$(KEEP_OUT) --static
	$(BIN)/python benchmarks/retriever.py --data $(DATA)/dev --models out/retriever out/static

bench: $(VENV)/ready  ## what routing and adding cost, as ratios in one run
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/memory.py

crashes: $(VENV)/ready  ## kills writers and servers, lets many processes contend, damages files: the full numbers
	$(BIN)/pytest tests/test_crashes.py tests/test_contention.py tests/test_fuzz.py -m slow -s

scope: $(VENV)/ready  ## how well scope is decided, with figures in out/; DATA=folder with train/ and dev/
	mkdir -p out
	$(BIN)/python benchmarks/scope.py --data $(DATA)/dev --train $(DATA)/train --errors 10 \
		--json out/scope.json --plot out/scope

scale: $(VENV)/ready  ## a memory of a million edits: search, opening, bytes, writing, stalls; DATA=folder with train/
	mkdir -p out
	$(BIN)/python benchmarks/scale.py --data $(DATA)/train --folder out --json out/scale.json

$(VENV)/ready: pyproject.toml constraints-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints-dev.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints-dev.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
