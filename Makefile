# make demo   shows the main job on this machine
# make test   runs every check that a change has to pass
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: tools ## Run the main job: control plane, embedded File 360, operator, samples, real files
	@tests/demo/run.sh

.PHONY: demo-index
demo-index: tools ## The same with a real OpenSearch for the search index (needs Maven and Java)
	@tests/counterparts/opensearch/run.sh tests/demo/run.sh

.PHONY: test
test: tools ## Run all tests and checks
	@tests/run.sh

.PHONY: test-all
test-all: test ## The same and the long ones: 2,000 transitions of another seed, a real OpenSearch, every seeded fault, fuzzing
	FILE360_TRANSITIONS=2000 FILE360_SEED_NUMBER=$${FILE360_SEED_NUMBER:-$$(date +%s)} cargo test --test api_server transitions -- --nocapture
	tests/counterparts/opensearch/run.sh cargo test --test destinations index::
	tests/seeded_faults.py
	tests/fuzz.sh 120

.PHONY: tools
tools: ## Check what the project needs on a machine, and install what can be
	@tests/tools.sh

.PHONY: build
build: ## Build the programs
	cargo build --bins

.PHONY: generate
generate: ## Write CRDs, roles and what is made from them
	cargo run --quiet -- crds --out crds
	cargo run --quiet -- crds --rbac --out config/rbac
	cargo run --quiet -- crds --admission --out config/admission
	tests/chart/sync.sh

.PHONY: screenshots
screenshots: tools ## Take the pictures of the outsiders' pages again (docs/pages)
	FILE360_SCREENSHOTS=$(CURDIR)/docs/pages cargo test --quiet --test file360_server browser::

.PHONY: fmt
fmt: ## Format the code
	cargo fmt

.PHONY: bench
bench: tools ## Measure the system against its own limits (docs/performance.md)
	cargo bench --bench system

.PHONY: controlplane
controlplane: ## Build the control plane for tests and print its folder
	@tests/controlplane/build.sh
