# Needs Python 3.11, git and make; everything else is installed into .venv from requirements.lock.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: adapter autoencoder ci distilled docs dvc foundation help env judge lab lock params rehearse repro test lint notebooks expected site \
  studio clean distclean

UV_VERSION := 0.13.9
PROFILE := laptop
BIN := .venv/bin
# As it was given, for Python to split: make expands nothing in it, and no shell takes its spaces and brackets apart.
override SET := $(value SET)
export SET
# Stages and notebook kernels are started as `python`: let that be the environment's.
export PATH := $(CURDIR)/$(BIN):$(PATH)

help:
	@echo "make env        build .venv from requirements.lock"
	@echo "make repro      run the whole DAG, except stages that are up to date. With another profile and values:"
	@echo "                make repro PROFILE=nih-mini SET='curation.image_folder=/data/my images seed=1'"
	@echo "                Up to one stage only: make repro STAGE=07_quality"
	@echo "make rehearse   run profile paper (PROFILE=gpu: that one) on stand-ins of its data and weights, with small sizes"
	@echo "make test       lint, tests, and every notebook re-executed and compared (profile ci)"
	@echo "make ci         make test and make rehearse, beside each other"
	@echo "make judge GENERATOR='shipped other=FOLDER'   judge generators of radiographs (docs/judging.md), with more"
	@echo "                options: OPTIONS='--prompts 200'; results in runs/judge/result, or OUT=FOLDER"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make studio     sample by hand, in a notebook"
	@echo "make autoencoder train a new autoencoder, of other latents;  make foundation  train the shipped generator on (over two hours)"
	@echo "make adapter    retrain the shipped adapter for masks and boxes;  make distilled  the generator of few steps"
	@echo "make notebooks  copy the outputs of the run in runs/laptop into the committed notebooks"
	@echo "make expected   execute the notebooks and write the results that make test expects (NAMES=07_quality: of one)"
	@echo "make lock       compile the lock files from pyproject.toml (UPGRADE=1: to the newest versions)"
	@echo "make params     write params.yaml, the composition of the profile (laptop)"
	@echo "make docs       write docs/datasets.md from the datasheets of the sources"
	@echo "make site       build the web site of README, docs, notebooks, figures and API in build/site/html"
	@echo "make clean      remove what is in runs but for the answers of a language model;  make distclean  .venv and the DVC cache too"

env: .venv/.complete

# The scripts of an environment name its folder, so that none of them runs where the repository was moved to.
PLACE := $(shell sed -n "s/^ *\(export \)*VIRTUAL_ENV=[\"']*\(\/[^\"']*\)[\"']*$$/\2/p" .venv/bin/activate 2>/dev/null | tail -n 1)
MOVED := $(shell place='$(PLACE)'; [ -z "$$place" ] || [ -e "$$place/bin/python" ] || echo moved)
ifneq ($(MOVED),)
.PHONY: .venv/.complete
endif

.venv/.complete: requirements.lock pyproject.toml
ifneq ($(MOVED),)
	@echo "error: the environment .venv was built as $(PLACE): remove the folder .venv, and start again" >&2; exit 1
endif
	@python=; for p in $(PYTHON) python3.11 python3 python; do \
	  if "$$p" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then python=$$p; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "error: no Python 3.11 found; install it, or name it: make $(or $(MAKECMDGOALS),env) PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	"$$python" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip sync --compile-bytecode --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

lock: .venv/.complete
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --no-annotate --no-header \
	  $(if $(UPGRADE),--upgrade) --quiet --output-file requirements.lock
	$(BIN)/uv pip compile --group pyproject.toml:site --universal --python-version 3.11 --no-annotate --no-header \
	  $(if $(UPGRADE),--upgrade) --quiet --output-file requirements-site.lock

params: .venv/.complete
	$(BIN)/python -m chexgen_lib.workflow.dag params '$(PROFILE)' $(if $(SET),--set "$$SET")

# DVC wants git unless it is told otherwise, and an unpacked archive of the repository has none.
dvc: .venv/.complete
	@git rev-parse --git-dir >/dev/null 2>&1 || $(BIN)/dvc config --local core.no_scm true

# Nothing is downloaded within a run: what its stages read of others' weights must be there before the first begins.
repro: export HF_HUB_OFFLINE ?= 1
repro: params dvc
	$(BIN)/python -m chexgen_lib.cli weights check --trial --stages $(filter-out -%,$(STAGE))
	$(BIN)/dvc repro $(STAGE)

# All stages of a profile on stand-ins of its datasets and weights, in runs/rehearsal/PROFILE, which no other run reads.
rehearse: .venv/.complete
	$(BIN)/python -m chexgen_lib.rehearsal '$(if $(filter file,$(origin PROFILE)),paper,$(PROFILE))' \
	  --stages $(filter-out -%,$(STAGE)) $(if $(SET),--set "$$SET")

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
	$(BIN)/python -m chexgen_lib.workflow.validation check
	$(BIN)/python -m chexgen_lib.workflow.dag outputs
	$(BIN)/python -m chexgen_lib.cohort.leakage runs/ci

# Beside each other, since most of a rehearsal takes one core; what each command prints is shown when it has ended.
ci: .venv/.complete
	OMP_NUM_THREADS=1 $(MAKE) --jobs=2 --output-sync=line test rehearse

judge: .venv/.complete
	$(BIN)/python -m chexgen_lib.cli judge $(GENERATOR) --out '$(or $(OUT),runs/judge/result)' $(OPTIONS)

lab: .venv/.complete
	$(BIN)/jupyter lab --config conf/jupyter_server_config.py

studio: .venv/.complete
	$(BIN)/jupyter lab --config conf/jupyter_server_config.py --LabApp.default_url=/lab/tree/docs/studio.ipynb

lint: .venv/.complete
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

# Retrains the small autoencoder that the package ships; half an hour on 2 cores. All models of its latents belong to it,
# unless these stay: SET="autoencoder.encoder=shipped autoencoder.steps=0" trains the decoder and its noise alone.
autoencoder: params dvc
	$(BIN)/dvc repro 01_curation
	$(BIN)/python -m chexgen_lib.workflow.notebooks run 02_autoencoder

# Trains the generator that the package ships on, or with SET="foundation.start=null" one anew; on 2 cores with bfloat16
# an hour of rendering, a quarter of an hour of encoding and three quarters of an hour of training; 6 GB of disk. Stopped
# at any moment, it goes on where it was. The shipped adapter and the distilled generator belong to it: make adapter
# distilled next.
foundation: params dvc
	$(BIN)/dvc repro 01_curation
	$(BIN)/python -m chexgen_lib.workflow.notebooks run 03_foundation

# Retrains the adapter for masks and boxes that the package ships; an hour and a half on 2 cores with bfloat16.
adapter: params dvc
	$(BIN)/dvc repro 01_curation
	$(BIN)/python -m chexgen_lib.workflow.notebooks run 05_adapter

# Retrains the generator of few steps that the package ships; about an hour on 2 cores with bfloat16.
distilled: params dvc
	$(BIN)/dvc repro 01_curation
	$(BIN)/python -m chexgen_lib.workflow.notebooks run 03_distilled

docs: .venv/.complete
	mkdir -p docs
	$(BIN)/python -m chexgen_lib.sources.registry > docs/datasets.md.part
	mv docs/datasets.md.part docs/datasets.md

# Sphinx reads the library as text, so its environment holds nothing of .venv and `make env` nothing of Sphinx.
site: .venv/.complete .venv-site/.complete
	$(BIN)/python -m chexgen_lib.workflow.site lay-out build/site/source
	rm -rf build/site/html
	.venv-site/bin/sphinx-build -W --keep-going -q -b html -c conf/site -d build/site/doctrees build/site/source build/site/html
	$(BIN)/python -m chexgen_lib.workflow.site check build/site/html

.venv-site/.complete: .venv/.complete requirements-site.lock
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-site
	$(BIN)/uv pip sync --quiet --compile-bytecode --python .venv-site/bin/python requirements-site.lock
	@touch $@

notebooks: .venv/.complete
	$(BIN)/python -m chexgen_lib.workflow.publication $(NAMES)

expected: .venv/.complete
	$(BIN)/python -m chexgen_lib.workflow.validation expected $(NAMES)

# The answers of a language model stay: they were paid for.
clean:
	[ ! -d runs ] || find runs -depth \( -type d -empty -o ! -type d ! -name 'answers.sqlite*' \) -delete
	git checkout --quiet -- runs 2>/dev/null || true  # the committed numbers of the laptop run
	rm -rf build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find chexgen_lib tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf .venv .venv-site .dvc/cache .dvc/tmp
