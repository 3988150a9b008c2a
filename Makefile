# Tator's tasks; `make help` lists them. Every target that needs an environment makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDIO := .venv-label-studio
# Test processes side by side, of up to 3 GB each; on two cores four, since some always wait for servers.
PROCESSES ?= 4
READY := $(VENV)/tator-ready
STUDIO_READY := $(STUDIO)/label_studio.sqlite3
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast faults attack newcomer lint audit format fuzz env-example image-check remote-check starter bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Tator needs Python 3.11 or newer; give one as PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "Python cannot make environments here; on Debian: apt-get install python3-venv"; exit 1; }
	@rm -rf *.egg-info  # a stale one hides the verbs that a newer pyproject names
	@echo "Installing Tator into $(VENV): two to four minutes the first time (6 GB with torch)"
	$(PIP) install --upgrade pip setuptools wheel
	$(PIP) install -c constraints.txt torch torchvision
	$(PIP) install -c constraints.txt -e '.[server,models,dev]'
	SAM2_BUILD_CUDA=0 $(PIP) install -c constraints.txt --no-build-isolation sam2
	@touch $@

$(STUDIO_READY): constraints-label-studio.txt | $(READY)
	$(BIN)/python -m demo.label_studio $(STUDIO)

install: $(READY) ## Tator's environment in .venv (every other target makes it too)

demo: $(READY) ## Label Studio with a connected project; IMAGES=folder for your own pictures, CHECK=1 to check and stop
	@$(BIN)/python -m demo $(if $(CHECK),--check) $(if $(IMAGES),--images "$(IMAGES)") $(if $(CLASSES),--classes "$(CLASSES)")

test: $(READY) $(STUDIO_READY) ## the whole suite: units, wire, adapters, real Label Studio, real browser
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile -m "not alone and not faults and not attack and not newcomer"
	$(BIN)/python -m pytest -m "alone and not faults" tests/processes/test_latency.py tests/studio/test_demo.py
endif

test-fast: $(READY) ## what needs neither Label Studio nor a browser
	$(BIN)/python -m pytest -m "not studio and not browser and not faults and not attack and not newcomer" $(ARGS)

faults: $(READY) $(STUDIO_READY) ## everything that may fail, row by row of docs/reliability.md
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults --write docs/reliability.md

attack: $(READY) $(STUDIO_READY) ## what an enemy would try, line by line of docs/security.md
	$(BIN)/python -m pytest tests/attack tests/fuzz $(ARGS)
	$(BIN)/python -m tests.fuzz --inputs $(or $(INPUTS),10000) --seconds 60

newcomer: $(READY) $(STUDIO_READY) ## every command of the documentation, to the letter
	$(BIN)/python -m pytest -m newcomer $(ARGS)

lint: $(READY) ## ruff, bandit, mypy and pip-audit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit -q -ll -c pyproject.toml -r label_config tator_sdk tator_ml training demo
	$(BIN)/mypy
	@$(BIN)/python -m deploy.audit

audit: $(READY) ## known weaknesses in the versions that we pin, where PyPI's advisories can be asked
	$(BIN)/python -m deploy.audit

format: $(READY) ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: $(READY) ## readers of outside input under coverage-guided fuzzing; INPUTS=100000 for each
	$(BIN)/python -m tests.fuzz --inputs $(or $(INPUTS),100000)

env-example: $(READY) ## write .env.example from the settings
	$(BIN)/python -m tator_sdk settings --env > .env.example.part && mv .env.example.part .env.example

image-check: $(READY) ## lint Dockerfile and compose files, and do the Dockerfile's steps in a clean environment
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml docker-compose.gpu.yml
	$(BIN)/python -m deploy.image build/image
	TATOR_IMAGE_VENV=$(CURDIR)/build/image/tator $(BIN)/python -m pytest -q tests/deploy/test_compose.py

remote-check: $(READY) $(STUDIO_READY) ## Label Studio and Tator on two hosts (network namespaces: needs root), by SSH and by TLS; three minutes
	REMOTE_CHECK=1 $(BIN)/python -m pytest -s -rs tests/deploy/test_remote.py

starter: $(READY) ## train the starter weights anew (two hours on two cores; resumable)
	$(BIN)/python -m training.starter.segmenter --output tator_ml/weights/starter_segmenter.safetensors
	$(BIN)/python -m training.starter.encoder --output tator_ml/weights/starter_encoder
	$(BIN)/python -m training.starter.head --output tator_ml/weights/starter_head

bench: $(READY) ## run a benchmark: NAME=starter; without a name, list them
	$(BIN)/python -m benchmarks $(NAME)

clean: ## remove environments, caches and the demo's state
	rm -rf $(VENV) $(STUDIO) .tator build .pytest_cache .mypy_cache .ruff_cache *.egg-info
