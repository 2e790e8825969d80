"""The formats that images come in, each read without QEMU before QEMU sees it."""
