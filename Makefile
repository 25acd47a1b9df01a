# One place for what a person and CI run. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
GO ?= go
ARCH := $(shell $(GO) env GOARCH 2>/dev/null)
export CGO_ENABLED := 0
# Without symbols, for which the compiler would take a seventh more of the time.
export NODWARF = -gcflags=all=-dwarf=false
# SQLite is the package that compiles longest, and waits for disks: nothing of it is inlined.
export SQLITE = -gcflags=modernc.org/sqlite/lib=-dwarf=false -l
LDFLAGS = -s -w -X banger.build=$(shell ./scripts/version)

.PHONY: help deps build install uninstall double cross demo web test node test-ui test-kubernetes test-slow test-power test-kvm test-cpu lab lint check bench bench-kvm clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

deps: ## install the Debian packages that banger and its tests need
	@./scripts/deps

agent-%: ## build the guest agent of one architecture
	@GOGC=400 GOARCH=$* $(GO) build -trimpath $(NODWARF) -ldflags '-s -w' -o internal/daemon/embedded/agent-$* ./cmd/banger-agent

.PHONY: packages
packages:
	@GO=$(GO) ./scripts/compile

build: packages agent-$(ARCH) ## build bin/banger
	@GOGC=400 $(GO) build -trimpath $(NODWARF) "$(SQLITE)" -ldflags '$(LDFLAGS)' -o bin/banger ./cmd/banger
	@chmod 0755 bin/banger # VMs of root run it as users of their own, whatever the umask was

install: ## install banger, its completions and man pages below PREFIX=/usr/local; also DESTDIR
	@./scripts/install install

uninstall: ## remove what make install has installed below PREFIX=/usr/local
	@./scripts/install uninstall

double: ## build the stand-in for Firecracker and the tests that run in a guest
	@$(GO) build -trimpath $(NODWARF) -o bin/double/firecracker ./internal/testing/double
	@mkdir -p bin/double/jailed && ln -sf ../firecracker bin/double/jailed/firecracker # which the jailer sees through
	@$(GO) build -trimpath $(NODWARF) -o bin/double/jailed/jailer ./internal/testing/double/jailer
	@$(GO) test -trimpath $(NODWARF) -c -o bin/double/agent.test ./internal/agent
	@$(GO) test -trimpath $(NODWARF) -c -o bin/double/cgroup.test ./internal/cgroup

cross: agent-arm64 ## build for linux/arm64 too
	@GOARCH=arm64 $(GO) build -trimpath $(NODWARF) -ldflags '$(LDFLAGS)' -o bin/banger-arm64 ./cmd/banger

demo: ## install what is missing, build, boot a Debian image and run a command in it
	@./scripts/demo

test: deps build double ## everything that must pass, real boots included
	@./scripts/test

web: ## build the page of the web UI into web/dist, which is committed; needs Node.js 20.19
	@cd web && npm ci --silent --no-audit --no-fund && npm run --silent types && npm run --silent build

test-ui: deps build ## the web UI: its page is what its sources give, and its stories in Chromium
	@./scripts/test-ui

node: ## build bin/banger-node, which makes this host a node of a Kubernetes cluster
	@cd node && GOGC=400 $(GO) build -trimpath $(NODWARF) -ldflags '$(LDFLAGS)' -o ../bin/banger-node .

test-kubernetes: deps build ## nodes of a real control plane, with kubectl; builds Kubernetes once, in ten minutes
	@./scripts/test-kubernetes

test-slow: deps build double ## a shard of the proofs that take long; SHARD=1..8|all
	@./scripts/test-slow

test-power: deps build ## 1000 power cuts while VMs, images and kernels change; root only
	@./scripts/test-power

test-kvm: deps build double ## the real Firecracker, QEMU with KVM, and Debian's kernel: here, or in a VM that runs VMs
	@./scripts/on-kvm run

test-cpu: deps build double ## boots and cmpxchg16b on the CPU that emulated guests see
	@./scripts/test-cpu

lab: deps build double ## a shell in a VM that can run VMs, with banger, Firecracker and the tests
	@./scripts/lab

lint: ## gofmt, vet, staticcheck, licenses, vulnerabilities
	@./scripts/lint

check: lint cross test test-ui ## what CI runs, beside a shard of test-slow

bench: deps build ## the figures of docs/SPECIFICATION.md
	@./scripts/bench

bench-kvm: deps build double ## what boots, restores, sessions and forks cost with KVM, here or in the lab
	@./scripts/on-kvm figures

clean:
	@rm -rf bin internal/daemon/embedded/agent-*
