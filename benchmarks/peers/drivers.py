"""How each tool is started, and how a cell reaches its ranks."""

from pathlib import Path


class Driver:
    """One tool: what to install, what starts `n` ranks, what sends a cell or a tensor to them."""

    name: str
    requirement: str | None = None  # None: this project, in its own environment
    kernel_module = "ipykernel_launcher"
    interrupt_mode = "signal"
    has_notebook = True  # ordinary cells run beside the ranks, in a process of their own
    updates_comm: str | None = None  # the comm a front end opens to be sent output while a cell runs

    def kernel_env(self, n: int) -> dict[str, str]:
        return {}

    def start(self, n: int) -> list[str]:
        """The cells a user runs before the first cell on the ranks."""
        raise NotImplementedError

    def join(self, n: int, folder: Path) -> str:
        """What users write on the ranks for `rank` and a process group, where the tool leaves it to them."""
        return ""

    def run_cell(self, code: str) -> str:
        raise NotImplementedError

    def push(self, name: str) -> str | None:
        """The line that copies a notebook variable to every rank, if there is one."""
        return None


class Quarterdeck(Driver):
    name = "quarterdeck"

    def start(self, n: int) -> list[str]:
        self._first_line = f"%%distributed -n {n}"
        return ["%load_ext quarterdeck"]

    def run_cell(self, code: str) -> str:
        return f"{self._first_line}\n{code}"

    def push(self, name: str) -> str:
        return f"%push {name}"


class Ipyparallel(Driver):
    name = "ipyparallel"
    requirement = "ipyparallel==9.2.0"

    def start(self, n: int) -> list[str]:
        lines = [
            "import ipyparallel as ipp",
            f"rc = ipp.Cluster(n={n}).start_and_connect_sync()",
            "rc.activate()",
            "view = rc[:]",
            "_ = view.scatter('rank', rc.ids, flatten=True, block=True)",
        ]
        return ["\n".join(lines)]

    def join(self, n: int, folder: Path) -> str:
        store = f"file://{folder / 'store'}"
        return (
            "import torch.distributed as dist\n"
            f"dist.init_process_group('gloo', init_method={store!r}, rank=rank, world_size={n})\n"
        )

    def run_cell(self, code: str) -> str:
        return f"%%px\n{code}"

    def push(self, name: str) -> str:
        return f"_ = view.push({{{name!r}: {name}}}, block=True)"


class JupyterDistributed(Driver):
    """Its proxy kernel, started the way its server extension starts it.

    The extension restarts the notebook's kernel behind this proxy; here the proxy is launched at once,
    so the time of that restart, and of the server, is left out in the tool's favour.
    """

    name = "jupyter-distributed"
    requirement = "jupyter-distributed==0.1.1"
    kernel_module = "jupyter_distributed.kernel"
    interrupt_mode = "message"
    has_notebook = False
    updates_comm = "jupyter.distributed.rank_updates"

    def kernel_env(self, n: int) -> dict[str, str]:
        return {"JUPYTER_DISTRIBUTED_BASE_KERNEL": "python3", "JUPYTER_DISTRIBUTED_WORLD_SIZE": str(n)}

    def start(self, n: int) -> list[str]:
        return []

    def join(self, n: int, folder: Path) -> str:
        return (
            "import os, torch.distributed as dist\n"
            "rank = int(os.environ['RANK'])\n"
            "dist.init_process_group('gloo')\n"
        )

    def run_cell(self, code: str) -> str:
        return code


class Nbdistributed(Driver):
    """Kills processes by name pattern, all over the machine: only ever run in a PID namespace."""

    name = "nbdistributed"
    requirement = "nbdistributed==0.1.0"

    def start(self, n: int) -> list[str]:
        return ["%load_ext nbdistributed", f"%dist_init -n {n}", "%dist_mode -d"]

    def run_cell(self, code: str) -> str:
        return f"%%distributed\n{code}"


DRIVERS: dict[str, type[Driver]] = {
    driver.name: driver for driver in (Quarterdeck, JupyterDistributed, Ipyparallel, Nbdistributed)
}
