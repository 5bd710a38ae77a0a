# Run by drgn on an output of ours: prints what it sees there, as JSON, for the tests to judge.
import json

from drgn import FaultError
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.mm import access_remote_vm, for_each_vma
from drgn.helpers.linux.pid import find_task, for_each_task
from drgn.helpers.linux.sched import cpu_curr, idle_task


def frames(task):
    return [{"pc": f.pc, "name": f.name, "inline": f.is_inline} for f in prog.stack_trace(task)]


def facts(task):
    seen = {"pid": task.pid.value_(), "tgid": task.tgid.value_(), "comm": task.comm.string_().decode()}
    try:
        seen["frames"] = frames(task)
    except Exception as e:  # the tests tell which task failed, and go on with the others
        seen["frames"], seen["error"] = [], f"{type(e).__name__}: {e}"
    return seen


def user(mm, address, size):
    try:
        return access_remote_vm(mm, address, size).hex()
    except FaultError as e:  # left out, the tests know whether rightly
        return type(e).__name__


cpus = list(for_each_possible_cpu(prog))
mm = find_task(prog, 1).mm
start = next(iter(for_each_vma(mm))).vm_start.value_()
print(json.dumps({
    "release": prog["init_uts_ns"].name.release.string_().decode(),
    "tasks": [facts(task) for task in for_each_task(prog)],
    "idle": [facts(idle_task(prog, cpu)) for cpu in cpus],
    "on_cpu": [facts(cpu_curr(prog, cpu)) for cpu in cpus],
    "init_start": start,
    "init_magic": user(mm, start, 4),
    "init_stack": user(mm, mm.start_stack.value_(), 8),
}))
