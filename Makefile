# The door to everything. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The system's own interpreter where it will do: distributions build theirs with every optimization, a fifth faster than
# one built without.
PYTHON ?= $(shell /usr/bin/python3 -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' \
	2>/dev/null && echo /usr/bin/python3 || echo python3)
BIN := .venv/bin
# The interpreter is the machine's own.
export UV_PYTHON_DOWNLOADS := never
LOCKS := requirements-setup.txt requirements-dev.txt

.PHONY: help setup native rustc demo test test-all test-cores airflow-next chromium curl postgres redis pictures lint docs wheel audit secrets bench bench-smoke lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.ready native ## the virtual environment, with the command at .venv/bin/ingest

# The first that works, from Debian 12's on: a rustup without a toolchain does not. Nothing but its standard library is needed.
RUSTC = $(shell for one in rustc /usr/bin/rustc; do $$one --version >/dev/null 2>&1 && { echo $$one; break; }; done)
CORE := ingest/core/_native.so
native: ## the native core, which judges lines several times as fast; without rustc Python does
	@$(if $(RUSTC),$(MAKE) --no-print-directory $(CORE),test -e $(CORE) || echo 'There is no rustc here that works, so \
		Python judges all lines: slower, and the same. Install rustc and run make again to change that.')

$(CORE): $(wildcard native/*.rs)
	$(RUSTC) --edition 2021 -C opt-level=3 -C codegen-units=1 -C strip=symbols --crate-type cdylib -o $@.part native/lib.rs && mv $@.part $@

# Remade only when a lock or the interpreter's version changes; a half-made one has no stamp and is finished next time.
.venv/.ready: $(LOCKS) pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 15) else f"Landfall needs Python 3.11 to 3.14; $(PYTHON) is {v[0]}.{v[1]}. Name another: make PYTHON=python3.12 ...")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "This Python has no venv module: installing the system's"; apt-get update -q && apt-get install -yq python3-venv; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-setup.txt
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --compile-bytecode --require-hashes requirements-dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps --editable .
	@echo 'The command is .venv/bin/ingest (or ingest, after `. .venv/bin/activate`). Begin with `ingest check FILE`, or `ingest init`.'
	@touch $@

demo: setup $(filter postgres,$(WAREHOUSE)) ## Airflow, a store and a warehouse on this machine, with sample files; EXIT=1 ends by itself, WAREHOUSE=postgres or iceberg
	@exec $(BIN)/ingest demo $(if $(EXIT),--exit) $(if $(WAREHOUSE),--warehouse $(WAREHOUSE))

# A worker for each core: half of the longest tests is waiting for other processes.
PYTEST = $(BIN)/pytest --numprocesses logical --dist loadgroup

test: rustc setup curl postgres ## every test that takes seconds
	$(PYTEST) -m "not slow"

test-all: rustc setup chromium curl postgres redis ## the slow ones too, in a browser as well
	$(PYTEST)

# Most files in tests are too small for the core: so once with it for each, and once without any.
test-cores: rustc setup ## the tests that load Kissmetrics lines without the native core, and with it for files of any size
	LANDFALL_CORE=never $(PYTEST) -m "not slow" $(LOADING)
	LANDFALL_CORE=always $(PYTEST) -m "not slow" $(LOADING)
LOADING = $(addprefix tests/test_,cases.py exactly_once.py identity.py native.py order_and_accounts.py reading.py staging.py)

# The lock with the newest Airflow instead of its own, pre-releases included: what will differ is seen before it is out.
NEXT = .venv-next/bin
AIRFLOW = apache-airflow apache-airflow-core apache-airflow-task-sdk

airflow-next: setup chromium postgres redis ## the tests of DAGs and pages on the newest pre-release of Airflow, in .venv-next
	@mkdir -p build && cp requirements-dev.txt build/requirements-next.txt
	$(COMPILE) pyproject.toml $(EXTRAS) --group dev --prerelease allow $(AIRFLOW:%=--upgrade-package %) --output-file build/requirements-next.txt
	$(PYTHON) -m venv .venv-next
	$(BIN)/uv pip sync --quiet --python $(NEXT)/python --require-hashes build/requirements-next.txt
	$(BIN)/uv pip install --quiet --python $(NEXT)/python --no-build-isolation --no-deps --editable .
	@echo "On Airflow $$($(NEXT)/python -c 'from importlib.metadata import version; print(version("apache-airflow"))'):"
	$(NEXT)/pytest --numprocesses logical --dist loadgroup tests/airflow tests/ui

# The machine's own: nothing may fetch one.
chromium:
	@command -v chromium >/dev/null || { apt-get update -q && apt-get install -yq --no-install-recommends chromium; }

curl: # the vendors' printed commands are run with it
	@command -v curl >/dev/null || { apt-get update -q && apt-get install -yq --no-install-recommends curl; }

rustc:
	@test -n '$(RUSTC)' || { apt-get update -q && apt-get install -yq --no-install-recommends rustc; }

# Its programs only: each test starts a server of its own. The package would start one, too.
postgres:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { mkdir -p /etc/postgresql-common \
		&& echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf \
		&& apt-get update -q && apt-get install -yq --no-install-recommends postgresql; }

# Its program only: the test starts a server of its own. The package's would run from now on.
redis:
	@command -v redis-server >/dev/null || { apt-get update -q && apt-get install -yq --no-install-recommends redis-server \
		&& { systemctl disable --quiet --now redis-server 2>/dev/null || true; }; }

pictures: setup chromium ## docs/pictures, taken again by the tests in the browser
	@mkdir -p docs/pictures
	LANDFALL_PICTURES=docs/pictures $(BIN)/pytest tests/ui/test_browser.py

lint: setup docs ## ruff, mypy, and the links of the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup ## the documentation as a site, in build/site; a link that leads nowhere is an error
	@rm -rf build/pages build/site && mkdir -p build/pages
	@cp -r *.md LICENSE docs examples schemas tests build/pages/
	$(BIN)/zensical build --clean --strict

wheel: setup ## the wheel, in dist/; and one for this platform that holds the native core, if there is one
	$(BIN)/python -m build --wheel --no-isolation --outdir dist
	@test ! -e $(CORE) || LANDFALL_WHEEL=native $(BIN)/python -m build --wheel --no-isolation --outdir dist

audit: setup ## locked packages with a known vulnerability; says so where the database cannot be reached
	$(BIN)/python .ci/audit.py

# Each only if it is missing, so that nothing that runs already loses its keys.
secrets: ## .env for docker-compose.yml: a random secret for each that has none; TEAM=1 chooses the size team
	@touch .env && chmod 600 .env && sed -i '/^[A-Z0-9_]*=$$/d' .env # .env.example may have been copied
	@for name in AIRFLOW_JWT_SECRET AIRFLOW_SECRET_KEY POSTGRES_PASSWORD S3_SECRET_KEY UI_PASSWORD WAREHOUSE_PASSWORD; do \
		grep -q "^$$name=." .env || $(PYTHON) -c "import secrets; print('$$name=' + secrets.token_hex(24))" >> .env; done
	@grep -q '^AIRFLOW_FERNET_KEY=.' .env || $(PYTHON) -c \
		"import base64, secrets; print('AIRFLOW_FERNET_KEY=' + base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())" >> .env
	@$(if $(TEAM),grep -q '^COMPOSE_PROFILES=' .env || printf '%s\n' COMPOSE_PROFILES=team AIRFLOW_EXECUTOR=CeleryExecutor \
		INGEST_WAREHOUSE=postgresql://landfall@warehouse/landfall >> .env)
	@echo 'The secrets are in .env, which only you may read. The login is admin, its password is UI_PASSWORD.'

bench: setup postgres ## how fast, and beside what
	$(BIN)/python bench/run.py
	$(BIN)/python bench/beside.py judge
	$(BIN)/python bench/beside.py large
	$(BIN)/python bench/small.py
	PYTHONPATH=. $(BIN)/python bench/postgres.py
	PYTHONPATH=. $(BIN)/python bench/iceberg.py

bench-smoke: rustc setup ## whether a load is as fast as it was, beside the engine alone
	$(BIN)/python bench/run.py --smoke

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command "make lock"
EXTRAS = --extra airflow --extra celery --extra demo --extra iceberg --extra postgres --extra postgres-metadata --extra serve

lock: setup ## newest versions that fit pyproject.toml, written down with their hashes
	$(COMPILE) --upgrade pyproject.toml $(EXTRAS) --group dev --output-file requirements-dev.txt
	$(COMPILE) pyproject.toml --extra airflow --extra celery --extra iceberg --extra postgres --extra postgres-metadata --extra serve --constraints requirements-dev.txt --output-file requirements-airflow.txt
	$(COMPILE) pyproject.toml --constraints requirements-dev.txt --output-file requirements.txt
	$(COMPILE) --group pyproject.toml:setup --constraints requirements-dev.txt --output-file requirements-setup.txt

clean: ## forget everything that was made here
	rm -rf .venv .venv-next .demo .cache build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
