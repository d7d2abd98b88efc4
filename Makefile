# `make run` and `make test` do all the set-up they need on a fresh Debian 12 with rustup.

.DEFAULT_GOAL := help
.PHONY: help run stop test test-unit test-e2e test-vm bench static deny schema fmt lint

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: ## Build, start one node, deploy a sample and show its answer
	@scripts/setup
	@scripts/run

stop: ## Stop the node that `make run` started, with its pods
	@scripts/stop

test: ## All tests, end to end included
	@scripts/setup
	@scripts/test all

test-unit: ## Tests that need neither root nor the built binary
	@scripts/test unit

test-e2e: ## The built binary with stock clients and real containers (needs root)
	@scripts/setup
	@scripts/test e2e

test-vm: ## The node in a guest with cgroup v2 (needs QEMU)
	@scripts/test-vm

bench: ## Print the budgets of the design beside what this build needs
	@scripts/setup
	@scripts/bench

static: ## Static binaries for x86-64 and arm64 in target/static
	@scripts/static

deny: ## Check licences and sources of dependencies
	@scripts/deny

schema: ## Check the table of Kubernetes' types against its sources
	@scripts/schema

fmt: ## Format
	cargo fmt --all

lint: ## Lints as CI runs them
	cargo clippy --workspace --all-targets -- -D warnings
