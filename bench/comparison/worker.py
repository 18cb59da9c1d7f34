# SPDX-License-Identifier: MIT
"""A process that contenders live in, and the other end of the pipe to it.

Each line on the pipe is a command in JSON, and one line answers it. Only one worker computes at a time; the threads of
the others have gone to sleep by then, so that no runtime is disturbed by another's threads waiting for work.
"""

import contextlib
import ctypes
import gc
import json
import os
import selectors
import subprocess
import sys
import time

FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class WorkerError(Exception):
    pass


class Worker:
    """The parent's end. engine: see `_engine` below; environment: changes to this process's, None to unset."""

    def __init__(self, engine, environment, log):
        self.engine, self.environment, self.log = engine, environment, log
        self.process = None
        self.loaded = None

    def _start(self):
        environment = dict(os.environ)
        for name, value in self.environment.items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        self.process = subprocess.Popen(
            [sys.executable, "-m", "comparison.worker", json.dumps(self.engine)],
            cwd=FOLDER,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def start(self):
        """Starts the process without waiting for it; what it has to say comes with the first answer."""
        if self.process is None:
            self._start()

    def ask(self, patience=None, **command):
        self.start()
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            with selectors.DefaultSelector() as selector:
                selector.register(self.process.stdout, selectors.EVENT_READ)
                if not selector.select(patience):
                    self.stop()
                    raise WorkerError(f"takes more than {patience:.0f} s")
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self.process.wait()
            self.stop()
            raise WorkerError(f"its process ended with status {code}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def finish(self):
        """Asks the process to end by itself, without waiting for it."""
        if self.process is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def stop(self, patience=0):
        """Ends the process, by force where `patience` seconds were not enough."""
        if self.process is None:
            return
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.finish()
        self.process.stdout.close()
        self.process = self.loaded = None


def _engine(kind, **options):
    from comparison import contenders, cuda

    return {"lgm": contenders.LgmEngine, "torch": contenders.TorchEngine, "cuda": cuda.CudaEngine}[kind](**options)


def _memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def _peak_of_step(contender):
    """The most bytes that a step has beyond its inputs, what it returns included; None: the system does not tell."""
    try:
        contender.answer = None
        gc.collect()
        # What the heap keeps for the next step belongs to this one.
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as peak:
            peak.write("5")  # forgets the peak so far
        before = _memory("VmRSS")
        contender.run(1)
        return max(_memory("VmHWM") - before, 0)
    except (OSError, AttributeError):
        return None


class _Process:
    def __init__(self, engine):
        self.engine = _engine(**engine)
        self.data, self.made = None, {}

    def load(self, folder):
        import numpy

        self.made.clear()
        self.data = None
        gc.collect()
        self.data = {name: numpy.load(os.path.join(folder, name + ".npy")) for name in self.engine.inputs}
        self.engine.loaded()
        return self.engine.versions()

    def prepare(self, name, threads):
        from comparison.contenders import CONTENDERS

        contender = self.made[name] = CONTENDERS[name].made(self.engine, self.data, threads)
        begin = time.perf_counter()
        contender.run(1)
        first = time.perf_counter() - begin
        # Again, unless it is clear by now that it takes long.
        again = contender.run(1)[0] if first < 1 or getattr(contender, "compiled", False) else first
        if again < 0.01:
            again = sorted(contender.run(5))[2]
        memory = contender.memory() if hasattr(contender, "memory") else _peak_of_step(contender)
        workspace = contender.workspace() if hasattr(contender, "workspace") else None
        return {"first": first, "seconds": again, "memory": memory, "workspace": workspace}

    def run(self, name, warm, times):
        contender = self.made[name]
        if warm:
            contender.run(warm)
        return {"seconds": contender.run(times)}

    def outputs(self, name, file):
        import numpy

        self.made[name].run(1)
        numpy.savez(file, **self.made[name].outputs())
        return {}


def _first_line(failure):
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return f"{type(failure).__name__}: {lines[0] if lines else ''}"


def _is_memory(failure):
    return isinstance(failure, MemoryError) or "allocate memory" in str(failure) or "bad_alloc" in str(failure)


def main():
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    process = failure = None
    try:
        process = _Process(json.loads(sys.argv[1]))
    except Exception as e:
        failure = e
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if failure is not None:
                raise failure
            answer = getattr(process, command.pop("do"))(**command)
        except Exception as e:
            process and process.made.pop(command.get("name"), None)
            answer = {"error": "does not fit" if _is_memory(e) else _first_line(e)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
