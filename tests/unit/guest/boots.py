"""What cloud-init leaves in a guest at several moments of a boot, in the forms of its versions."""

from __future__ import annotations

import json
from typing import Any

SEED = "DataSourceNoCloud [seed=/dev/sr0][dsmode=net]"


def probe(*, result: Any = None, status: Any = None, **said: str) -> str:
    """The output of the probe script: JSON files where given, and what its other questions were answered."""
    parts = {"command": "/usr/bin/cloud-init", "result": result and json.dumps(result),
             "status": status and json.dumps(status), "disabled": "", "before": "", "instance": "i-1",
             "final": "inactive", **said}
    return "".join(f"=={name}==\n{text or ''}\n" for name, text in parts.items())


def stage(start: float | None = None, finished: float | None = None, errors: list[str] | None = None,
          recoverable: dict[str, list[str]] | None = None) -> dict[str, Any]:
    """One stage of status.json; only versions from 23.4 on have recoverable errors."""
    told: dict[str, Any] = {"start": start, "finished": finished, "errors": errors or []}
    return told | ({"recoverable_errors": recoverable} if recoverable is not None else {})


def status(now: str | None, **stages: Any) -> dict[str, Any]:
    """status.json; names of stages with _ for -."""
    return {"v1": {"datasource": SEED, "stage": now, **{name.replace("_", "-"): told for name, told in stages.items()}}}


def result(*errors: str, datasource: str | None = SEED) -> dict[str, Any]:
    """result.json."""
    return {"v1": {"datasource": datasource, "errors": list(errors)}}


NOT_BEGUN = probe(instance="")
LOCAL = probe(status=status("init-local", init_local=stage(1.0)))
BETWEEN = probe(status=status(None, init_local=stage(1.0, 2.0), init=stage(3.0, 4.0)))
FINAL = probe(status=status("modules-final", init_local=stage(1.0, 2.0), init=stage(3.0, 4.0),
                            modules_config=stage(5.0, 6.0), modules_final=stage(7.0)))
# 20.1 has a stage more, and times since the epoch.
DONE_20 = probe(result=result(datasource="DataSourceNoCloud [seed=/dev/sr0][dsmode=net]"), status=status(
    None, init_local=stage(1588000000.1, 1588000001.2), init=stage(1588000002.1, 1588000003.2),
    modules_init=stage(), modules_config=stage(1588000004.1, 1588000005.2),
    modules_final=stage(1588000006.1, 1588000007.2)))
DONE = probe(result=result(), status=status(None, modules_final=stage(7.0, 8.0)))
DEGRADED = probe(result=result(), status=status(
    None, init=stage(3.0, 4.0, recoverable={"DEPRECATED": ["chef is old"], "WARNING": ["Unable to rename interfaces"]}),
    modules_final=stage(7.0, 8.0, recoverable={"WARNING": ["Unable to rename interfaces"], "ERROR": ["no time"]})))

PACKAGE_ERROR = """\
('package-update-upgrade-install', ProcessExecutionError("Unexpected error while running command.\\n\
Command: ['eatmydata', 'apt-get', 'install', 'no-such-package']\\nExit code: 100\\nReason: -"))"""
FAILED = probe(result=result(PACKAGE_ERROR), status=status(None, modules_final=stage(7.0, 8.0, [PACKAGE_ERROR])))

LOG = """\
2026-05-01 09:00:00,101 - util.py[DEBUG]: Cloud-init v. 22.4.2 running 'init-local' at Fri, 01 May 2026 09:00:00 +0000.
2026-05-01 09:00:09,900 - util.py[WARNING]: Running module of a boot long ago failed
2026-05-01 10:00:00,101 - util.py[DEBUG]: Cloud-init v. 22.4.2 running 'init-local' at Fri, 01 May 2026 10:00:00 +0000.
2026-05-01 10:00:01,000 - handlers.py[DEBUG]: start: init-local/check-cache: attempting to read from cache [check]
2026-05-01 10:00:41,000 - subp.py[DEBUG]: Running command ['eatmydata', 'apt-get', 'install'] with allowed codes [0]
2026-05-01 10:00:42,000 - util.py[WARNING]: Failed to install packages: ['no-such-package']
2026-05-01 10:00:42,001 - util.py[DEBUG]: Failed to install packages: ['no-such-package']
Traceback (most recent call last):
  File "/usr/lib/python3/dist-packages/cloudinit/config/cc_package_update_upgrade_install.py", line 103, in handle
    cloud.distro.install_packages(pkglist)
cloudinit.subp.ProcessExecutionError: Unexpected error while running command.
Command: ['eatmydata', 'apt-get', 'install', 'no-such-package']
Exit code: 100
Reason: -
Stdout: -
Stderr: -
2026-05-01 10:00:43,000 - util.py[WARNING]: Running module package-update-upgrade-install failed
2026-05-01 10:00:44,000 - util.py[DEBUG]: cloud-init mode 'modules' took 3.5 seconds (3.50)
"""
OUTPUT = """\
Cloud-init v. 22.4.2 running 'modules:final' at Fri, 01 May 2026 10:00:40 +0000. Up 12.00 seconds.
Hit:1 http://deb.example.com/debian bookworm InRelease
Reading package lists...
0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded, 0 failed
E: Unable to locate package no-such-package
/var/lib/cloud/instance/scripts/runcmd: 3: frobnicate: not found
Cloud-init v. 22.4.2 finished at Fri, 01 May 2026 10:00:44 +0000. Datasource DataSourceNoCloud. Up 16.00 seconds
"""
FACTS = """\
==hostname==
z-dev
==machine==
0123456789abcdef0123456789abcdef
==uptime==
41.07
==keys==
ecdsa-sha2-nistp256 AAAAE2Vj root@z-dev
ssh-ed25519 AAAAC3Nz root@z-dev
"""
