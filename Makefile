# Needs Python 3.11 or later with venv, a Rust toolchain, make and git; each target makes the rest for itself, once.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
FUZZ_SECONDS ?= 20
# What cargo itself would take, so that both agree where binaries are.
TARGET := $(or $(CARGO_TARGET_DIR),target)
BIN := $(CURDIR)/.venv/bin
BENCH_BIN := $(CURDIR)/.venv-bench/bin
# For stub checks the sources, not what is installed, are read.
export MYPYPATH := $(CURDIR)/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Stock clients and suites come one by one: they have servers of their own, and take their time.
beside = --ignore tests/interop --ignore tests/compliance
dev_build = ignore:fanwire was built:RuntimeWarning
# Which Python the binding is built for; it is there before any cargo command that needs it.
with_python = PYO3_PYTHON=$(BIN)/python
rust_sources := Cargo.toml Cargo.lock $(shell find rust -name target -prune -o \( -name '*.rs' -o -name Cargo.toml \) -print)
signalr := tests/interop/signalr/drivers
java := $(and $(shell command -v javac),$(shell command -v mvn))
go := $(firstword $(shell command -v go) $(wildcard /usr/local/go/bin/go))
node := $(and $(shell command -v node),$(shell command -v npm))

.PHONY: help demo quick test soak peers lint fmt bench fuzz docs wheel clean

help: ## This list
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | sort | awk -F '\t' '{ printf "%-8s %s\n", $$1, $$2 }'

demo: .venv/.stamp-engine ## A backend, the relay before it, 10,000 SignalR clients: live in the terminal
	$(BIN)/fanwire demo

quick: .venv/.stamp .venv/.stamp-test ## What an edit broke, in 90 s: one loop, one poller, dev profile, nothing slow
	cargo test --quiet --locked -p fanwire-core -p fanwire-upstream --lib
	VIRTUAL_ENV=$(CURDIR)/.venv $(with_python) $(BIN)/maturin develop --quiet --locked --extras cli
	rm -f .venv/.stamp-engine # what is installed is no release build any more
	PYTHONWARNINGS="$(dev_build)" $(BIN)/python -m pytest -q -n 4 -W "$(dev_build)" --hypothesis-profile quick \
		-m "not slow and not soak" -k "not uvloop and not trio and not uring and not in_a_browser" \
		$(beside)

test: .venv/.stamp-engine .venv/.stamp-test tests/interop/node/node_modules/.stamp .venv/bin/nats-server
test: $(signalr)/node/node_modules/.stamp $(signalr)/java/target/.stamp ## Rust, loom and Python tests
	$(with_python) PROPTEST_RNG_SEED=1 cargo test --workspace --exclude fanwire-python --locked # the same cases each time
	RUSTFLAGS="--cfg loom" cargo test -p fanwire-core --test loom --release --locked --target-dir $(TARGET)/loom
	$(BIN)/python -m pytest -n 2 $(beside)
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/interop tests/compliance

soak: .venv/.stamp-engine .venv/.stamp-test ## What takes too long for `make test`, and new examples of what holds for all
	$(with_python) cargo test --workspace --exclude fanwire-python --locked -- --ignored
	$(BIN)/python -m pytest -m "soak or hypothesis" --hypothesis-profile new

peers: .venv/.stamp-engine .venv-peers/.stamp ## The suites of pysignalr, signalrcore and others, from checkouts in PEERS (25 minutes)
	@for one in pysignalr signalrcore uvicorn websockets starlette fastapi broadcaster litestar channels python-socketio; do \
		test -d "$(PEERS)/$$one" || { echo "needs PEERS=FOLDER with the sources of $$one, by that name"; exit 1; }; done
	@command -v nginx >/dev/null || test -x /usr/sbin/nginx || { echo "needs nginx, which gives the suites TLS"; exit 1; }
	PYTHONPATH=$(CURDIR)/python:$(CURDIR)/tests .venv-peers/bin/python tests/peers/run.py "$(PEERS)"

lint: .venv/.stamp-engine .venv/.stamp-lint .venv/.stamp-test ## ruff, mypy, stubtest, cargo fmt, clippy, doc, deny; the house's rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest fanwire._engine
	cargo fmt --all --check
	cargo fmt --manifest-path rust/core/fuzz/Cargo.toml --check
	$(with_python) cargo clippy --workspace --all-targets --locked -- -D warnings
	$(with_python) RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
	@if command -v c++ >/dev/null; then set -x; cargo check --manifest-path rust/core/fuzz/Cargo.toml --locked; \
	else echo "skipped: the fuzz targets are not checked, there is no C++ compiler for libFuzzer"; fi
	@if cargo deny --version >/dev/null 2>&1; then set -x; cargo deny --workspace check bans licenses sources; \
	else echo "skipped: cargo deny is not installed (cargo install --locked cargo-deny)"; fi
	$(BIN)/python -m pytest tests/test_house.py

fmt: .venv/.stamp-lint ## Format Python and Rust
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	cargo fmt --all
	cargo fmt --manifest-path rust/core/fuzz/Cargo.toml

bench: .venv-bench/.stamp bench/peers/node/node_modules/.stamp .venv-bench/centrifugo ## Beside the peers, the short form: under ten minutes
	cargo build --release --locked -p fanwire-load
	CENTRIFUGO=$(CURDIR)/.venv-bench/centrifugo FANWIRE_BENCH_BINARIES="$$(realpath $(TARGET)/release)" \
		$(BENCH_BIN)/python bench/run.py --short

fuzz: ## Each fuzz target for FUZZ_SECONDS (20), from its seeds
	@cargo +nightly --version >/dev/null 2>&1 || { echo "needs Rust nightly: rustup toolchain install nightly"; exit 1; }
	@cargo fuzz --version >/dev/null 2>&1 || { echo "needs cargo-fuzz: cargo install --locked cargo-fuzz"; exit 1; }
	cd rust/core/fuzz; for target in $$(cargo +nightly fuzz list); do \
		mkdir -p "corpus/$$target"; \
		cargo +nightly fuzz run "$$target" "corpus/$$target" "seeds/$$target" -- -max_total_time=$(FUZZ_SECONDS); \
	done

docs: .venv/.stamp ## The crates' documentation, into target/doc
	$(with_python) RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

wheel: dist/.stamp ## Wheels for this machine, and the pure-Python one, into dist

clean: ## Remove all that was made here
	cargo clean
	rm -rf .venv .venv-bench .venv-peers dist python/fanwire/*.so tests/interop/node/node_modules bench/peers/node/node_modules
	rm -rf $(signalr)/node/node_modules $(signalr)/java/target
	rm -rf rust/core/fuzz/target .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks

# The set-up. A stamp is newer than what it was made from, so that nothing is done twice.
.venv/.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needs Python 3.11 or later: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' 'maturin>=1.10,<2'
	touch $@

.venv-peers/.stamp: pyproject.toml
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	.venv-peers/bin/python -m pip install --quiet --group peers
	touch $@

.venv/.stamp-test .venv/.stamp-lint: .venv/.stamp-%: .venv/.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --group $*
	touch $@

.venv/.stamp-engine: .venv/.stamp pyproject.toml rust/load/pyproject.toml $(rust_sources)
	VIRTUAL_ENV=$(CURDIR)/.venv $(with_python) $(BIN)/maturin develop --release --locked --extras cli
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/maturin develop --release --locked --manifest-path rust/load/Cargo.toml
	touch $@

# One wheel for CPython 3.11 and later; one more for free-threaded CPython 3.14, which has no stable ABI; one with the load
# client, a program that needs no Python; and one without the engine, for whatever machine has no other.
python_sources := $(shell find python pure -type f -not -path '*/__pycache__/*' -not -name '*.so')
dist/.stamp: .venv/.stamp pyproject.toml rust/load/pyproject.toml $(rust_sources) $(python_sources)
	rm -rf dist
	$(BIN)/maturin build --release --locked --interpreter $(BIN)/python --out dist
	if command -v python3.14t >/dev/null; then \
		$(BIN)/maturin build --release --locked --no-default-features --interpreter python3.14t --out dist; \
	else echo "skipped: the free-threaded wheel, there is no python3.14t"; fi
	$(BIN)/maturin build --release --locked --manifest-path rust/load/Cargo.toml --out dist
	$(BIN)/python -m pip install --quiet 'hatchling>=1.27'
	$(BIN)/python -m hatchling build -t wheel -d dist
	touch $@

.venv-bench/.stamp: dist/.stamp
	$(PYTHON) -m venv .venv-bench
	$(BENCH_BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BENCH_BIN)/python -m pip install --quiet --group bench --group test dist/fanwire-*-abi3-*.whl
	$(BENCH_BIN)/python -m pip install --quiet --force-reinstall --no-deps dist/fanwire-*-abi3-*.whl
	touch $@

# A peer of the bench; without Go its runs say why they are skipped.
.venv-bench/centrifugo: .venv-bench/.stamp
ifneq ($(go),)
	GOBIN=$(CURDIR)/$(@D) $(go) install github.com/centrifugal/centrifugo/v6@latest
else
	@echo "no Go: Centrifugo is left out"
endif

# A server of the tests of the backbone; without Go they are skipped, or take the machine's if it is 2.12 or later.
.venv/bin/nats-server: .venv/.stamp
ifneq ($(go),)
	test -x $@ || GOBIN=$(CURDIR)/$(@D) $(go) install github.com/nats-io/nats-server/v2@v2.15.3 \
		|| echo "nats-server cannot be built: tests with a NATS server need one of 2.12 or later"
	if test -x $@; then touch $@; fi
else
	@echo "no Go: tests with a NATS server need one of 2.12 or later"
endif

%/node_modules/.stamp: %/package-lock.json
ifneq ($(node),)
	cd $* && npm ci --no-audit --no-fund
	touch $@
else
	@echo "skipped: the npm packages of $*, there is no node or no npm"
endif

%/java/target/.stamp: %/java/pom.xml %/java/Driver.java
ifneq ($(java),)
	cd $*/java && mvn --quiet --batch-mode package
	cd $*/java && javac --release 11 -d target/classes -cp 'target/lib/*' Driver.java
	touch $@
else
	@echo "skipped: the Java driver of $*, there is no javac or no mvn"
endif
