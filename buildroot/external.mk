include $(sort $(wildcard $(BR2_EXTERNAL_VIGIE_PATH)/package/*/*.mk))

# Buildroot offers sfdisk only together with some sixty other programs of util-linux; here it is all that is wanted, to
# grow the data partition. fdisk cannot be switched off apart from it; "check" leaves cfdisk out where it lacks curses.
UTIL_LINUX_CONF_OPTS += --enable-fdisks=check

define UTIL_LINUX_ONLY_SFDISK
	rm -f $(TARGET_DIR)/sbin/fdisk $(TARGET_DIR)/usr/sbin/fdisk
endef
UTIL_LINUX_POST_INSTALL_TARGET_HOOKS += UTIL_LINUX_ONLY_SFDISK
