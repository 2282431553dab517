#!/bin/sh
# The disk image from kernel, root and boot loader.
set -eu

board=$BR2_EXTERNAL_VIGIE_PATH/board/vigie
boot=$BUILD_DIR/boot-partition
tmp=$BUILD_DIR/genimage.tmp
image=$BINARIES_DIR/vigie.img
rm -rf "$boot" "$tmp"

mkdir -p "$boot/grub"
cp -r "$BR2_EXTERNAL_VIGIE_PATH/../image/boot/." "$boot"
cp "$board/grub.cfg" "$boot/grub"
mkdir -p "$boot/EFI/BOOT"
cp "$BINARIES_DIR"/efi-part/EFI/BOOT/*.efi "$boot/EFI/BOOT"
for kernel in bzImage Image.gz; do
	if [ -e "$BINARIES_DIR/$kernel" ]; then
		cp "$BINARIES_DIR/$kernel" "$boot/linux-a"
	fi
done

genimage --rootpath "$boot" --tmppath "$tmp" --inputpath "$BINARIES_DIR" --outputpath "$BINARIES_DIR" \
	--config "$board/genimage.cfg"

# Writes bytes (in printf's octal) or a file into the image.
bytes_at() {
	printf "$2" | dd of="$image" bs=1 seek="$1" conv=notrunc status=none
}

# What grub-bios-setup does to the disk of a running system. Sector 2048 is the partition vigie-bios: the MBR is told
# where GRUB's core begins, the core where it goes on; the two no-operations let the MBR believe that it is on a disk even
# where a BIOS says otherwise. From byte 440 on the MBR is the partition table's.
if [ -e "$BINARIES_DIR/grub.img" ]; then
	dd if="$(echo "$BUILD_DIR"/grub2-*/build-i386-pc/grub-core/boot.img)" of="$image" bs=440 count=1 conv=notrunc status=none
	bytes_at 92 '\000\010\000\000\000\000\000\000'
	bytes_at 102 '\220\220'
	dd if="$BINARIES_DIR/grub.img" of="$image" bs=512 seek=2048 conv=notrunc status=none
	bytes_at $((2048 * 512 + 500)) '\001\010\000\000\000\000\000\000'
fi

xz -T0 -k -f "$image"
