################################################################################
#
# valkey
#
################################################################################

VALKEY_VERSION = 8.1.8
VALKEY_SITE = $(call github,valkey-io,valkey,$(VALKEY_VERSION))
VALKEY_LICENSE = BSD-3-Clause (core), MIT and BSD family licenses (bundled components)
VALKEY_LICENSE_FILES = COPYING
VALKEY_CPE_ID_VENDOR = lfprojects

# The C library's allocator, and no fast_float: neither jemalloc nor a C++ compiler is needed.
VALKEY_BUILDOPTS = $(TARGET_CONFIGURE_OPTS) \
	MALLOC=libc USE_FAST_FLOAT=no BUILD_TLS=no USE_SYSTEMD=no WARNINGS=

define VALKEY_BUILD_CMDS
	$(TARGET_MAKE_ENV) $(MAKE) $(VALKEY_BUILDOPTS) -C $(@D)/src valkey-server valkey-cli
endef

# The names of Redis too: what looks for redis-server finds it, whichever server is in the image.
define VALKEY_INSTALL_TARGET_CMDS
	$(foreach program,server cli,\
		$(INSTALL) -D -m 0755 $(@D)/src/valkey-$(program) $(TARGET_DIR)/usr/bin/valkey-$(program)
		ln -sf valkey-$(program) $(TARGET_DIR)/usr/bin/redis-$(program)
	)
endef

$(eval $(generic-package))
