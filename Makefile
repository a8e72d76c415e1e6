# make help lists the targets. Continuous integration calls only these.

GO      ?= go
BIN     ?= bin
DIST    ?= dist
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
TOOLS   := $(shell $(GO) env GOPATH)/bin
LDFLAGS := -s -w -X gantry/gateway.Version=$(VERSION)

FUZZTIME ?= 30s
ROUNDS   ?= 20
TARGET   ?= 127.0.0.1:1883
PLATFORMS ?= linux/amd64 linux/arm64 linux/arm/7

export PATH := $(PATH):$(TOOLS)

.PHONY: help build run test race lint check fuzz bench crash conformance package clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/gantry and bin/gantry-lab
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/gantry ./cmd/gantry-lab

run: build ## the laboratory: a gateway, devices and a Kafka stand-in for 30 s, with an uplink cut of 5 s
	$(BIN)/gantry-lab --for 30s --cut 5s

test: ## all tests, in random order
	$(GO) test -shuffle=on -timeout 30m ./...

race: ## all tests with the race detector
	$(GO) test -race -shuffle=on -timeout 60m ./...

lint: ## gofumpt, go vet and golangci-lint
	@files=$$(gofumpt -l .) || exit 1; if [ -n "$$files" ]; then echo "not in gofumpt format:"; echo "$$files"; exit 1; fi
	$(GO) vet ./...
	golangci-lint run

check: lint ## what must pass before a commit: lint, import rules, short tests with the race detector and all fuzz seeds
	$(GO) test -count=1 -run 'TestImportsGoOneWay|TestOneLibraryHasOneHome' ./gateway
	$(GO) test -race -short -timeout 30m ./...

fuzz: ## every fuzz target for FUZZTIME (30s)
	@$(GO) list ./... | while read -r package; do \
		targets=$$($(GO) test -list '^Fuzz' "$$package" | grep '^Fuzz') || continue; \
		for target in $$targets; do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) "$$package" || exit 1; \
		done; \
	done

bench: build ## the message path, idle connections, stalled readers, connect storms, beside mosquitto and libcoap (all of it takes 10 minutes)
	$(GO) test -run '^$$' -bench . -benchmem ./persist/seglog
	$(GO) run ./conformance/bench --gantry $(BIN)/gantry

crash: ## kill -9 and power cuts ROUNDS times (20), checking every acknowledged message
	$(GO) test -count=$(ROUNDS) -timeout 0 -run 'Kill|PowerCut|Crash' \
		./persist/seglog ./persist/embedded ./bridge/kafka
	GANTRY_CRASH_ROUNDS=$(ROUNDS) $(GO) test -count=1 -timeout 0 -v -run '^TestCrashLoop$$' ./conformance/e2e

conformance: ## every MQTT statement against a running server: TARGET=host:port, tls://, ws://, wss://, quic:// or unix:/path; CA=file, INSECURE=true, BROKER=mosquitto
	$(GO) run ./conformance/mqtt/judge -target '$(TARGET)' -broker '$(BROKER)' -websocket '$(WEBSOCKET)' \
		-ca '$(CA)' -cert '$(CERT)' -key '$(KEY)' -insecure='$(or $(INSECURE),false)'

package: ## tar.gz for amd64, arm64 and armv7 in dist/
	@mkdir -p $(DIST)
	@for platform in $(PLATFORMS); do \
		set -- $$(echo $$platform | tr / ' '); \
		name=gantry-$(VERSION)-$$1-$$2$${3:+v$$3}; \
		echo "$(DIST)/$$name.tar.gz"; \
		mkdir -p $(DIST)/$$name/configs && \
		CGO_ENABLED=0 GOOS=$$1 GOARCH=$$2 GOARM=$$3 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(DIST)/$$name/gantry ./cmd/gantry && \
		cp LICENSE README.md CHANGELOG.md $(DIST)/$$name/ && \
		cp configs/*.yaml configs/gantry.service $(DIST)/$$name/configs/ && \
		tar -C $(DIST) --owner=0 --group=0 --sort=name -czf $(DIST)/$$name.tar.gz $$name && \
		rm -r $(DIST)/$$name || exit 1; \
	done

clean: ## remove bin/ and dist/
	rm -rf $(BIN) $(DIST)
