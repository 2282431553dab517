# vigie: everything a person types. `make help` lists it.

MUSL_X86 := x86_64-unknown-linux-musl
MUSL_ARM := aarch64-unknown-linux-musl

.PHONY: help demo test bench dist image install-tools

ARCH ?= x86_64
OUTPUT ?= target/image-$(ARCH)

help:
	@echo 'make demo   five hosts on this machine, a real Redis behind a virtual IP, a failover you can watch'
	@echo 'make test   every check: format, lints, documentation, units, real peers in namespaces, both static binaries'
	@echo 'make bench  failover times, the cost of an idle cluster, throughput beside redis itself (takes minutes)'
	@echo 'make dist   dist/vigie-x86_64 and dist/vigie-aarch64, static and stripped'
	@echo 'make image BUILDROOT=dir [ARCH=x86_64|aarch64] [SOURCES=dir]   the disk image of a box: buildroot/README.md'

install-tools:
	@tests/install-tools

demo:
	@tests/install-tools demo
	cargo build --release --locked
	target/release/vigie demo

test: install-tools
	@tests/run

bench: install-tools
	cargo build --release --locked
	@tests/bench

dist: install-tools
	cargo build --profile dist --locked --target $(MUSL_X86) --target $(MUSL_ARM)
	@mkdir -p dist
	@cp target/$(MUSL_X86)/dist/vigie dist/vigie-x86_64
	@cp target/$(MUSL_ARM)/dist/vigie dist/vigie-aarch64
	@for file in dist/vigie-x86_64 dist/vigie-aarch64; do printf '%s: %s bytes, ' "$$file" "$$(stat -c %s "$$file")"; \
		file -b "$$file" | grep -o 'statically linked' || { echo 'NOT static'; exit 1; }; done

image:
	@test -e '$(BUILDROOT)/Config.in' || { echo 'make image BUILDROOT=dir: the directory of an unpacked Buildroot'; exit 2; }
	@buildroot/build '$(BUILDROOT)' $(ARCH) '$(OUTPUT)' '$(SOURCES)'
