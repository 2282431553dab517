################################################################################
#
# vigie
#
################################################################################

# The binary is built beforehand by "make box": Buildroot's own cargo would need a Rust toolchain from the network.
VIGIE_SITE = $(BR2_EXTERNAL_VIGIE_PATH)/../target/box
VIGIE_SITE_METHOD = local
VIGIE_LICENSE = MIT or Apache-2.0

VIGIE_BINARY = vigie-$(if $(BR2_aarch64),aarch64,x86_64)
VIGIE_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --include $(VIGIE_BINARY) --exclude '*'

define VIGIE_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/$(VIGIE_BINARY) $(TARGET_DIR)/usr/bin/vigie
endef

$(eval $(generic-package))
