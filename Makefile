# run: everything in one process, no server needed.   test: the whole suite, on a real RabbitMQ and PostgreSQL.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MADE := $(VENV)/.made
TYPED_TESTS := answering api cli compose contract delivery end_to_end faults registry unit

.PHONY: run test compose-test compose-cluster-test faults lint types bench bench-quick scale servers clean format

run: $(MADE)
	@POSTBOTE_DEMO=$${POSTBOTE_DEMO:-1} $(BIN)/postbote run

test: $(MADE) servers
	$(BIN)/pytest

# Breaks processes, RabbitMQ, PostgreSQL, the network and the receivers under load: three quarters of an hour, and a table.
faults: $(MADE) servers
	$(BIN)/pytest tests/faults -m 'long or not long'

# Builds the image and runs compose.yaml on the Docker engine that answers.
compose-test: $(MADE)
	$(BIN)/pytest tests/compose -m 'compose and not long' -s

# Three RabbitMQ nodes in containers, of which one is lost under load; ten minutes.
compose-cluster-test: $(MADE)
	$(BIN)/pytest tests/compose -m 'compose and long' -s

lint: $(MADE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# The tests one directory at a time: their modules' names repeat. Their functions need no annotations.
types: $(MADE)
	$(BIN)/mypy
	@for each in $(TYPED_TESTS); do \
	  echo "mypy tests/$$each"; \
	  $(BIN)/mypy --allow-untyped-defs --allow-untyped-calls --no-strict-equality tests/$$each || exit 1; \
	done

# Needs nginx and wrk besides (on Debian: apt-get install nginx-light wrk). What is measured: docs/performance.md.
bench: $(MADE) servers
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m bench

bench-quick: $(MADE) servers
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m bench --quick

# Measures nothing: fits the model to what the last `make bench` measured, and computes docs/scale.md from it.
scale: $(MADE)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m bench --fit --scale

format: $(MADE)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The tests run their own RabbitMQ and PostgreSQL, from addresses that are set, a Docker engine, or these programs.
servers:
	@sh tests/servers/install.sh

$(MADE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Postbote needs Python 3.11 or newer; name one with: make PYTHON=python3.12 …"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "Python cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "Installing Postbote into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
