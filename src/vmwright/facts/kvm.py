"""Does a guest really start under KVM? A probe that runs one, and a parser of what it said.

/dev/kvm that opens proves little: nested, filtered and software-made KVMs accept a virtual machine and then fail on
its first ordinary instructions. So the probe starts QEMU as a VM would be started (-cpu host) on a firmware image of
its own: 64 KiB that enter protected mode and then long mode, touch the x87 and SSE units and CPUID, as every guest's
boot does, and report by QEMU's isa-debug-exit device. It ends in some milliseconds, or it does not work.
"""

from __future__ import annotations

from vmwright.facts.model import Kvm
from vmwright.names import HOST_RUN

EXIT_OK = 33  # isa-debug-exit: (value << 1) | 1, with the value 0x10

FIRMWARE_SIZE = 65536
# kvm_probe.S, assembled: the last 512 bytes of the image; everything before them is zero. Gzip, base64.
FIRMWARE_TAIL = (
    "H4sIAAAAAAACA/ull8bPKMbwn1/hQFrzCUZ+pQNpr6T+/f/PwZC2Q4Ch70bfgb4LexgaGBhm335seGA/gwADw04GCQaGP59XH2cF8ZgVGBiALCDJ"
    "bABiSYBYDgwMO5oZGBj2MwDFOtl7JwDZBzqng9SzMgDVNh/naPzPAFRV+mgHSJBf6Qa/wgNeBTYQ88FOoHUH+I14GRiBXAOgy5of/OZlYmBoALru"
    "1Xag4yQYdgClGPgXpXnw5x1I479yAMioO+zBeMDD8nApywaBZ1++vP7bu4WBAWQxGPz/DyRmn4fQk6H07PUM8gwP/oHZIwS85P2HwgcA8ySh0QAC"
    "AAA="
)
FIRMWARE_TAIL_SIZE = 512


def script(qemu: str = "", options: str = "-accel kvm -cpu host", run: str = HOST_RUN, device: str = "/dev/kvm") -> str:
    """The probe as a shell script: prints "absent", "works" or "broken", and the reason.

    The result is kept until reboot, under QEMU's own file and the device node (which a reloaded module makes anew), so
    that what changed is tried again; a guest that hung is tried again after ten minutes, as the host may just have been
    busy. The parameters are for tests: which QEMU, how it is started, where the result is kept, and whose presence
    means that there is KVM.
    """
    words = {
        "@FIRMWARE@": FIRMWARE_TAIL, "@PAD@": str(FIRMWARE_SIZE - FIRMWARE_TAIL_SIZE), "@OK@": str(EXIT_OK),
        "@QEMU@": qemu or "qemu-system-x86_64", "@OPTIONS@": options, "@DEVICE@": device, "@RUN@": run,
    }
    text = _SCRIPT
    for word, value in words.items():
        text = text.replace(word, value)
    return text


_SCRIPT = """
[ -e @DEVICE@ ] || { echo "absent there is no @DEVICE@"; exit 0; }
qemu=$(command -v @QEMU@ || command -v /usr/libexec/qemu-kvm) || { echo "absent QEMU is not installed"; exit 0; }
key="$(stat -L -c '%n %s %Y' "$qemu") $(stat -L -c '%i %Z' @DEVICE@)"
if [ -f @RUN@/kvm ] && [ "$(head -n1 @RUN@/kvm)" = "$key" ]; then
  said=$(tail -n +2 @RUN@/kvm)
  case $said in *" in 5 s"*) [ -n "$(find @RUN@/kvm -mmin -10)" ] || said= ;; esac
  [ -n "$said" ] && { echo "$said"; exit 0; }
fi
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
{ head -c @PAD@ /dev/zero; echo @FIRMWARE@ | base64 -d | gzip -d; } > "$work/bios"
timeout -k 1 5 "$qemu" @OPTIONS@ -M pc -m 64 -bios "$work/bios" -nodefaults -display none -monitor none \
  -serial none -no-reboot -device isa-debug-exit,iobase=0xf4,iosize=0x04 > "$work/out" 2>&1 < /dev/null
code=$?
case $code in
  @OK@) said=works ;;
  124|137) said="broken a guest started under KVM did not get through its first instructions in 5 s" ;;
  *) said="broken $(grep -v warning "$work/out" | grep . | head -n1 | cut -c1-200)"
     [ "$said" = "broken " ] && said="broken QEMU ended with code $code" ;;
esac
mkdir -p @RUN@ && printf '%s\\n%s\\n' "$key" "$said" > @RUN@/kvm.$$ && mv @RUN@/kvm.$$ @RUN@/kvm
echo "$said"
"""


def parse(text: str) -> tuple[Kvm, str]:
    """The verdict and its reason. Pure."""
    word, _, reason = text.strip().partition(" ")
    try:
        return Kvm(word), reason.strip()
    except ValueError:
        return Kvm.BROKEN, f"the probe did not run: {text.strip()[:200] or 'it said nothing'}"
