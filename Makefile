# The two commands that a newcomer needs are "make run" and "make test"; the rest is for those who change the code.
.PHONY: help build run demo test test-step lint bench deps fuzz clean go

SHELL := /bin/bash
GO ?= go
BIN := bin/exitgate
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

go:
	@scripts/need-go "$(GO)"

build: go ## build bin/exitgate
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $(BIN) ./cmd/exitgate

run: build ## start a gateway with embedded defaults
	@exec $(BIN) run

demo: build ## show every kind of flow with sample traffic
	@exec $(BIN) demo

deps: ## install what the tests need and is missing (Debian, as root)
	@scripts/test-deps

test: go deps lint ## lint, then all tests with the race detector
	$(GO) test -race -timeout 18m ./...
	@scripts/test-terraform "$(GO)"

test-step: go ## the identity authority with smallstep's own step, which the first run builds
	STEP=$$(scripts/step "$(GO)") && STEP=$$STEP $(GO) test -race -tags stepcli -run '^TestStep' ./ca/authority

lint: go ## gofmt, go vet, staticcheck, govulncheck
	@scripts/lint "$(GO)"

bench: go ## the benchmarks beside the code
	$(GO) test -run '^$$' -bench . -benchmem ./...

fuzz: go ## each fuzz target for FUZZTIME (default 30s)
	@scripts/fuzz "$(GO)" "$${FUZZTIME:-30s}"

clean: ## remove what was built
	rm -rf bin
