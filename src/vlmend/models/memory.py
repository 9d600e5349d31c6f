"""Free memory of a device, a container's own limit included."""

from __future__ import annotations

from pathlib import Path

__all__ = ["free_bytes"]


def free_bytes(device: str, cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Free memory of a device, in bytes; None where it cannot be told.

    Args:
        device: `cpu`, `cuda`, ..., or `auto`: all GPUs together, else the CPU.
        cgroup: Where a container's own limit is written, which counts beside the machine's memory.
    """
    import psutil
    import torch

    if device == "auto" and torch.cuda.is_available():
        return sum(int(torch.cuda.mem_get_info(k)[0]) for k in range(torch.cuda.device_count()))
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    if device not in ("cpu", "mps", "auto"):
        return None
    limits = [psutil.virtual_memory().available, _cgroup_free(cgroup)]
    return min(limit for limit in limits if limit is not None)


def _cgroup_free(root: Path) -> int | None:
    """What a container may still take (cgroup 2, else 1), its page cache counted as free."""
    for limit_file, used_file, cache_key in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, used = root / limit_file, root / used_file
        if limit.exists() and used.exists() and limit.read_text().strip() != "max":
            stat = used.parent / "memory.stat"
            rows = [line.split() for line in stat.read_text().splitlines()] if stat.exists() else []
            cache = next((int(value) for key, value in rows if key == cache_key), 0)
            return int(limit.read_text()) - int(used.read_text()) + cache
    return None
