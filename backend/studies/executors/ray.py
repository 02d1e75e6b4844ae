"""Run tasks on a Ray cluster, one task a run."""

from __future__ import annotations

import importlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from backend.config import environment, home, project_root
from backend.errors import InputError, ModelUnavailable, first_line
from backend.studies.executors.common import ATTEMPTS, execute, leave_failure
from backend.studies.executors.local import thread_limits
from backend.training.progress import Outcome, ProgressEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backend.studies.planned_runs import Task

__all__ = ["RayExecutor"]

_LOOK_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 10.0


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError:
        msg = "The executor ray needs the package ray, which is not installed here."
        hint = "Run `pip install -r requirements-cluster.txt`, or use --executor local."
        raise ModelUnavailable(msg, hint) from None


def _check_reachable(address: str) -> None:
    """Refuse an address where nobody listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        msg = f'No Ray cluster answers at "{address}" ({error.strerror or error}).'
        hint = "Check --address (`ray status` on the head node), or leave it out."
        raise InputError(msg, hint) from error


def _run_task(task: Task, threads: int) -> Outcome:
    """Run a task in a process of the cluster."""
    if task.uses_gpu:
        import torch

        torch.set_num_threads(threads)
    return execute(task, lambda event: None)


class RayExecutor:
    """Tasks on a Ray cluster.

    A task whose process or machine dies is tried again by Ray, on any machine, and goes on from
    its last checkpoint in the shared results folder.

    Parameters
    ----------
    address
        Of a cluster, such as `head:6379` or `auto`; None starts Ray on this machine.
    jobs
        Runs at a time, where Ray is started here.
    threads
        Threads of one run, and the CPUs that it asks the cluster for.

    Raises
    ------
    InputError
        If nobody listens at the address.
    ModelUnavailable
        If Ray is not installed.
    """

    def __init__(self, *, address: str | None = None, jobs: int = 1, threads: int = 1) -> None:
        self.address, self.jobs, self.threads = address, jobs, threads
        if address is not None:
            _check_reachable(address)
        self._ray = _ray()

    def run(
        self, tasks: Sequence[Task], tell: Callable[[ProgressEvent | Outcome], None]
    ) -> list[Outcome]:
        """Run all tasks; outcomes come in the order of the tasks."""
        if not tasks:
            return []
        ray = self._ray
        self._connect()
        pending: dict[Any, Task] = {}
        outcomes: dict[str, Outcome] = {}
        try:
            for task in tasks:
                pending[self._submit(task)] = task
                tell(ProgressEvent("submitted", key=task.key))
            while pending:
                ready, _ = ray.wait(list(pending), timeout=_LOOK_SECONDS)
                for reference in ready:
                    task = pending.pop(reference)
                    outcomes[task.key] = self._outcome(reference, task)
                    tell(outcomes[task.key])
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)
            ray.shutdown()
        return [outcomes[task.key] for task in tasks]

    def _connect(self) -> None:
        ray = self._ray
        variables = {"FAULTLINE_HOME": str(home().resolve()), **thread_limits(self.threads)}
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if self.address is None:
            variables["PYTHONPATH"] = environment()["PYTHONPATH"]
            options |= {"num_cpus": self.jobs * self.threads, "include_dashboard": False}
            options["runtime_env"] = {"env_vars": variables}
        else:
            options["address"] = self.address
            modules = [str(project_root() / "backend")]
            options["runtime_env"] = {"env_vars": variables, "py_modules": modules}
        try:
            ray.init(**options)
        except (ConnectionError, ImportError, ValueError, RuntimeError) as error:
            where = "on this machine" if self.address is None else f'at "{self.address}"'
            msg = f"Ray cannot be used {where}: {first_line(error)}"
            hint = (
                "Check --address (`ray status` on the head node), and set RAY_AUTH_MODE=token where "
                "the cluster asks for a token."
            )
            raise InputError(msg, hint) from error

    def _submit(self, task: Task) -> Any:
        has_gpu = self._ray.cluster_resources().get("GPU", 0) > 0
        remote = self._ray.remote(
            num_cpus=self.threads,
            num_gpus=1 if has_gpu and task.uses_gpu else 0,
            max_retries=ATTEMPTS - 1,
        )(_run_task)
        # Ray makes it the name of the process, which the kernel cuts within a character.
        name = task.text.encode("ascii", errors="replace").decode("ascii")
        return remote.options(name=name).remote(task, self.threads)

    def _outcome(self, reference: Any, task: Task) -> Outcome:
        errors = self._ray.exceptions
        try:
            return replace(self._ray.get(reference))
        except errors.RayTaskError as error:
            # Raised by our own code inside the task: a fault, not a death.
            reason = (
                f"fault of the program: {str(error.cause).strip() or type(error.cause).__name__}"
            )
        except errors.RayError as error:
            reason = f"Its worker died, {ATTEMPTS} times: {first_line(error)}"
            leave_failure(task, reason)
        return Outcome(task.key, "failed", reason)
