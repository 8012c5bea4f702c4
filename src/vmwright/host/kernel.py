"""argv builders: the kernel's command line, and the end of a boot. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def update_grub() -> list[str]:
    """Have GRUB's menu written anew from /etc/default/grub and grub.d (grub-mkconfig(8))."""
    return ["update-grub"]


def in_menu(arguments: Sequence[str], path: str = "/boot/grub/grub.cfg") -> list[str]:
    """Whether each line of GRUB's menu that starts Linux has these arguments: code 0."""
    return ["awk", "-v", f"wanted={' '.join(arguments)}", _EVERY_LINE, path]


# Recovery entries are started without what GRUB_CMDLINE_LINUX_DEFAULT says, but with GRUB_CMDLINE_LINUX.
_EVERY_LINE = r"""
BEGIN { count = split(wanted, words, " ") }
$1 ~ /^linux(16|efi)?$/ { lines++; for (i = 1; i <= count; i++) if (index($0 " ", " " words[i] " ") == 0) bad = 1 }
END { exit lines == 0 || bad }
"""


def grubby(arguments: Sequence[str]) -> list[str]:
    """Add arguments to all kernels that are there, and to those to come (grubby(8))."""
    return ["grubby", "--update-kernel=ALL", f"--args={' '.join(arguments)}"]


def reboot() -> list[str]:
    """Reboot in a moment, so that the answer to this still arrives."""
    return ["systemd-run", "--quiet", "--collect", "--on-active=1", "systemctl", "reboot"]


def boot_id() -> list[str]:
    """Which boot of the host this is."""
    return ["cat", "/proc/sys/kernel/random/boot_id"]
