# vigie: everything a person types. `make help` lists it.

MUSL_X86 := x86_64-unknown-linux-musl
MUSL_ARM := aarch64-unknown-linux-musl

# Who got a file of dist/ some other way compares it with this list.
SUMS := cd dist && sha256sum vigie-x86_64 vigie-aarch64 $$(ls | grep '\.img\.xz$$') >SHA256SUMS

# What a box is built for.
ARCH ?= x86_64
OUTPUT ?= target/buildroot-$(ARCH)

.PHONY: help demo test test-long bench dist box image image-quick install-tools
# Two builds of one profile leave their binary at the same place.
.NOTPARALLEL:

help:
	@echo 'make demo   five hosts on this machine, a real Redis behind a virtual IP, a failover you can watch'
	@echo 'make test   every check: format, lints, documentation, units, real peers in namespaces, both static binaries'
	@echo 'make test-long   what takes long for its own sake: 10,000 simulated worlds, fuzzers, tables of drop-ins; an hour'
	@echo 'make bench  failover times, the cost of an idle cluster, throughput beside redis itself (takes minutes)'
	@echo 'make dist   dist/vigie-x86_64 and dist/vigie-aarch64, static and stripped, and their checksums in dist/SHA256SUMS'
	@echo 'make image-quick [ARCH=aarch64]   a box on a kernel of Debian, in target/image: for trying, in a virtual machine'
	@echo 'make image BUILDROOT=DIR [ARCH=aarch64] [SOURCES=DIR]   dist/vigie-ARCH.img.xz: the disk of a box; an hour'

install-tools:
	@tests/install-tools

demo:
	@tests/install-tools demo
	cargo build --release --locked
	target/release/vigie demo

test: install-tools
	@tests/run

test-long: install-tools
	@tests/long

bench:
	@tests/install-tools bench
	cargo build --release --locked
	@tests/bench

dist: install-tools
	cargo build --profile dist --locked --target $(MUSL_X86) --target $(MUSL_ARM)
	@mkdir -p dist
	@cp target/$(MUSL_X86)/dist/vigie dist/vigie-x86_64
	@cp target/$(MUSL_ARM)/dist/vigie dist/vigie-aarch64
	@for file in dist/vigie-x86_64 dist/vigie-aarch64; do printf '%s: %s bytes, ' "$$file" "$$(stat -c %s "$$file")"; \
		file -b "$$file" | grep -o 'statically linked' || { echo 'NOT static'; exit 1; }; done
	@$(SUMS)

# The vigie of a box: without the demo.
box: install-tools
	cargo build --profile dist --locked --no-default-features --target $(MUSL_X86) --target $(MUSL_ARM)
	@mkdir -p target/box
	@cp target/$(MUSL_X86)/dist/vigie target/box/vigie-x86_64
	@cp target/$(MUSL_ARM)/dist/vigie target/box/vigie-aarch64

image-quick: box
	image/quick $(ARCH) target/box/vigie-$(ARCH) target/image/$(ARCH)

image:
	@test -e '$(BUILDROOT)/Config.in' || { echo 'make image BUILDROOT=DIR: "$(BUILDROOT)" is not the directory of an unpacked Buildroot 2026.02' >&2; exit 2; }
	@$(MAKE) --no-print-directory dist box
	buildroot/build '$(BUILDROOT)' '$(ARCH)' '$(OUTPUT)' '$(SOURCES)'
	@$(SUMS)
