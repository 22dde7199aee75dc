# Everything that one does with a clone, in one place. Needs a POSIX shell.

ifneq ($(filter 3.7% 3.80,$(MAKE_VERSION)),)
$(error GNU make $(MAKE_VERSION) is too old: install 3.81 or newer)
endif

VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
INSTALLED_RAY := $(VENV)/.installed-ray
PINS := environments/constraints.txt
JOBS := 3
PIP := $(RUN) -m pip --disable-pip-version-check
QUICKSTART := notebooks/00_quickstart.ipynb

# Without PYTHON=... the first of these that runs and is new enough; a name on the path can be an
# empty shim.
ifdef PYTHON
PYTHONS := $(PYTHON)
else
PYTHONS := python3 python3.13 python3.12 python3.11
endif
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.PHONY: help run lab test check bench image reproduce

help: ## say what can be made (default)
	@echo 'Usage: make TARGET [NAME=VALUE ...]'
	@sed -n 's/^\([a-z]*\):[^#]*## /  \1@/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "%-12s %s\n", $$1, $$2 }'
	@echo 'PYTHON=/path/to/python    the Python (3.11 or newer) that .venv is made from'
	@echo 'PARAMETERS="name=value"   for run: parameters of the quickstart, such as dataset=cifar10'
	@echo 'LAB="--no-browser"        for lab: options of JupyterLab'
	@echo 'TESTS="tests/grouping"    for test: arguments for pytest, which then runs in one process'
	@echo 'JOBS=3                    for test: processes that share all the tests'
	@echo 'NAME=name PROFILE=laptop  for reproduce: one of them, at another profile'
	@echo 'ONLY=name                 for bench: only the benchmarks whose file has this in its name'
	@echo 'BASE=image                for image: what it is built on (bash, coreutils, the same Python)'

run: $(INSTALLED) ## set up, run the quickstart notebook, print its result, write its report
	@$(RUN) -m workbench run-notebook $(QUICKSTART) $(foreach p,$(PARAMETERS),-p '$(p)')

lab: $(INSTALLED) ## open JupyterLab on the notebooks
	@PLOTLY_RENDERER=plotly_mimetype $(RUN) -m jupyterlab $(ROOT_MAY) $(LAB) \
	  --ServerApp.root_dir=notebooks --LabApp.default_url=/lab/tree/$(notdir $(QUICKSTART))

# Several processes with several threads each would get into each other's way.
test: $(INSTALLED) ## run the tests
	@$(if $(TESTS),$(RUN) -m pytest $(TESTS),OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(JOBS) --dist loadgroup)

check: $(INSTALLED) ## lint, format, types, and notebooks without outputs
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(RUN) -m workbench check-notebooks notebooks

bench: $(INSTALLED_RAY) ## run the benchmarks, print a table, write reports/bench.json
	@$(RUN) -m tests.benchmarks $(if $(ONLY),--only '$(ONLY)')

reproduce: $(INSTALLED) ## run all reproductions of the papers at their smallest (minutes)
	@$(RUN) -m workbench reproduce $(if $(NAME),$(NAME),all) --profile $(if $(PROFILE),$(PROFILE),smoke)

image: $(INSTALLED) ## build the image of client containers, for DockerTestbed
	@$(RUN) -m workbench image $(if $(BASE),--base '$(BASE)')

# JupyterLab refuses to start for root, which is who one is in a container.
ROOT_MAY = $(if $(filter 0,$(shell id -u)),--allow-root)

$(INSTALLED): pyproject.toml $(PINS)
	@command -v git >/dev/null || \
	{ echo 'git is missing: install it (Debian: apt-get install git, macOS: xcode-select --install)' >&2; exit 1; }
	@if ! $(RUN) -c '$(NEW_ENOUGH)' 2>/dev/null; then \
	  for python in $(PYTHONS); do \
	    if "$$python" -c '$(NEW_ENOUGH)' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    there=$$(for python in $(PYTHONS); do "$$python" --version 2>/dev/null; done | sort -u | paste -s -d, -); \
	    echo "Python 3.11 or newer is missing (found: $${there:-none}): install it, or name it with PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$found has no venv module: install it (Debian: apt-get install python3-venv)" >&2; \
	    exit 1; \
	  fi; \
	  "$$found" -m venv --clear $(VENV); \
	fi
	@echo 'Installing the pinned packages into $(VENV): once, a minute or two.'
	@$(PIP) install --constraint $(PINS) --editable '.[test]'
	@$(PIP) check
	@touch $@

$(INSTALLED_RAY): $(INSTALLED)
	@$(PIP) install --constraint $(PINS) --editable '.[test,ray]'
	@touch $@
