#!/bin/sh
# What the overlay's scripts count on: directories to mount on, and links from a root that nothing can write to into what
# a boot makes.
set -eu
cd "$1"

mkdir -p boot data
rm -rf var/run run/lock etc/resolv.conf root/.ssh etc/dropbear
ln -sfn /boot etc/vigie
ln -sfn /run/resolv.conf etc/resolv.conf
ln -sfn /run/ssh root/.ssh
mkdir -p var/lib
ln -sfn /run var/run
ln -sfn /proc/self/mounts etc/mtab
