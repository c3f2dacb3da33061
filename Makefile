# Tidegate. Every target installs or checks what it needs first; `make demo` and `make test` work
# from a clean clone on Debian 12 with Rust. As a user other than root they use sudo where the
# kernel wants it (namespaces, AF_XDP); nothing is compiled as root then.

SHELL := /bin/bash
CARGO ?= cargo
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# Test and lab binaries need root; compiling them does not.
RUN_TESTS := $(if $(SUDO),CARGO_TARGET_$(shell uname -m | tr a-z A-Z)_UNKNOWN_LINUX_GNU_RUNNER="sudo -E env PATH=$(PATH)")

BUILD_PACKAGES := clang llvm libbpf-dev libelf-dev zlib1g-dev pkg-config gcc g++ make protobuf-compiler
LAB_PACKAGES := iproute2 iputils-ping nftables ethtool iperf3 tcpdump curl procps mount e2fsprogs
BENCH_PACKAGES := etcd-server conntrack conntrackd
PACKAGES := $(BUILD_PACKAGES) $(LAB_PACKAGES)

# Always all members of the workspace, and what is wanted of them: another selection has other features of the
# dependencies, and compiles them again.
BUILD := $(CARGO) build --locked --workspace
TEST := $(RUN_TESTS) $(CARGO) test --locked --workspace
UNIT_TESTS := --lib --bins --test cli --test mirror --test net --test program --test veth

# A tool that runs for two seconds need not be compiled for minutes.
QUICKLY_BUILT := CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
  CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0

.PHONY: help setup build demo test test-unit test-lab test-planted sim soak bench lint fuzz clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

setup: ## install the Debian packages and crates that building and testing need
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: install it from rustup.rs, then run make again" >&2; exit 1; }
	@missing=""; for p in $(PACKAGES); do \
	  [ "$$(dpkg-query -W -f='$${Status}' $$p 2>/dev/null)" = "install ok installed" ] || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  echo "installing:$$missing"; \
	  if [ -n "$(SUDO)" ] && ! command -v sudo >/dev/null; then \
	    echo "not root and no sudo: as root, run: apt-get install$$missing" >&2; exit 1; fi; \
	  $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
	@$(CARGO) fetch --locked --quiet

build: setup ## both binaries, in target/release
	$(BUILD) --release --bin tidegate --bin tidegate-lab

demo: build ## the main job on real traffic, in under a minute
	$(SUDO) target/release/tidegate-lab demo

test: test-unit test-lab test-planted ## everything that must pass
	@echo "all tests passed"

test-unit: setup ## the pure crates and the daemon's own tests
	$(TEST) $(UNIT_TESTS)

test-lab: build ## real traffic through real devices, in namespaces
	$(TEST) --test lab -- --test-threads=2
	$(TEST) --test alone --test corrupted_fields -- --test-threads=1

test-planted: setup ## planted faults: the simulations must find each
	cluster-tests/planted/planted.sh

SEEDS ?= 200
sim: build ## simulated clusters and sessions: SEEDS=n of each, their counts, and what they found
	target/release/tidegate-lab sim --seeds $(SEEDS)
	target/release/tidegate-lab sim --sessions --seeds $(SEEDS)

soak: build ## the long versions of the cluster's tests: a thousand applies, ten deaths and more, full and failing disks
	TIDEGATE_LONG=1 $(TEST) --test lab -- --test-threads=1 cluster_ repl_

# Peers of benches come on top of what every build needs.
bench: PACKAGES += $(BENCH_PACKAGES)
bench: build ## benchmarks against their peers: target/bench/report.json and a table
	$(SUDO) target/release/tidegate-lab bench

lint: setup ## format, clippy with warnings denied, licences and bans
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@$(CARGO) deny --version >/dev/null 2>&1 || $(QUICKLY_BUILT) $(CARGO) install --locked --quiet cargo-deny
	$(CARGO) deny --locked check bans licenses sources

fuzz: setup ## every fuzz target, then planted faults must be found
	cluster-tests/fuzz/run.sh 60
	cluster-tests/fuzz/planted.sh

clean: ## forget what was built
	$(CARGO) clean
